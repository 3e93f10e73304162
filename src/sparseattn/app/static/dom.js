// Elements, made of names, attributes and children. Text is always text, never markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") node[name] = value;
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

export function svgEl(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

// What has the focus keeps it, if it is there again: the keyboard goes on where it was.
export function replace(node, ...children) {
  const held = node.contains(document.activeElement) ? nameOf(document.activeElement) : null;
  node.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (held) [...node.querySelectorAll("button, select, [tabindex]")].find((each) => nameOf(each) === held)?.focus({ preventScroll: true });
  return node;
}

function nameOf(node) {
  return node.id || node.getAttribute("aria-label") || node.textContent;
}

// What is wrong, in words.
export function alarm(error) {
  return el("p", { class: "trouble", role: "alert" }, error?.message);
}

const READ = 6000; // ms that a message stays
let ending = 0;

// Tells a reader, and a screen reader; `stays` until something else is said.
export function say(text, stays = false) {
  document.getElementById("status").textContent = text;
  clearTimeout(ending);
  if (!stays) ending = setTimeout(() => say("", true), READ);
}

export function unsay(text) {
  if (document.getElementById("status").textContent === text) say("");
}

export function labelled(label, control, hint) {
  control.id = control.id || `field-${label.toLowerCase().replace(/\W+/g, "-")}`;
  return el("div", { class: "field" }, el("label", { for: control.id }, label), control,
    hint ? el("small", {}, hint) : null);
}

// Options are [key, words], or words that are their own key.
export function choice(options, value, onchange) {
  const made = options.map((option) => [option].flat()).map(([key, words = key]) =>
    el("option", { value: key, selected: key === value }, words));
  return el("select", { onchange: (event) => onchange(event.target.value) }, made);
}

export function modelChoice(about, model, onchange) {
  return labelled("Model", choice([...new Set([...about.models, model])].filter(Boolean), model, onchange));
}

// What scrolls in its own frame, by the keyboard too.
export function region(label, content, look = "scroll") {
  return el("div", { class: look, tabindex: "0", role: "region", "aria-label": label }, content);
}

export function table(caption, heads, rows) {
  return region(caption, el("table", {}, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((row) => el("tr", {}, row.map((cell, at) =>
      at ? el("td", {}, cell) : el("th", { scope: "row" }, cell)))))), rows.length > 12 ? "scroll tall" : "scroll");
}

export function percent(share, digits = 1) {
  return share === null || share === undefined || Number.isNaN(share) ? "–" : `${(100 * share).toFixed(digits)}%`;
}

export function short(text, most) {
  const letters = [...text];
  return letters.length > most ? `${letters.slice(0, most - 1).join("")}…` : text;
}

export function debounced(work, wait) {
  let timer = 0;
  return (...given) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...given), wait);
  };
}
