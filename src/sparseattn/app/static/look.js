// Colours and marks of kinds, for the page's present scheme.

import { debounced, el, svgEl } from "./dom.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
let palette = null;
const redraws = new Set();

export function setPalette(given) {
  palette = given;
  const all = () => redraws.forEach((redraw) => redraw());
  dark.addEventListener("change", all);
  addEventListener("resize", debounced(all, 200));
}

// Of the view, when the scheme or the size of the page changes.
export function onLook(redraw) {
  redraws.add(redraw);
}

export function forgetRedraws() {
  redraws.clear();
}

export function page() {
  return dark.matches ? palette.dark : palette.light;
}

// A drawing of so many pixels, in the page's font and ink.
export function drawing(width, height, attributes = {}) {
  return svgEl("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "font-family": "system-ui, sans-serif",
    "font-size": 11, fill: page().ink, ...attributes });
}

export function kindOf(name) {
  return palette.kinds.find((kind) => kind.name === name) ?? palette.kinds.find((kind) => kind.name === "other");
}

export function colourOf(name) {
  const kind = kindOf(name);
  return dark.matches ? kind.dark : kind.light;
}

export function mixed(one, other, share) {
  const parts = [one, other].map((colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16)));
  return parts[0].map((value, at) => Math.round(value + (parts[1][at] - value) * share));
}

// Relative luminance, as contrasts are reckoned by; above 0.179 black reads better than white.
export function luminance(parts) {
  const linear = parts.map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

export function rgb(parts) {
  return `rgb(${parts.join(" ")})`;
}

// The outline of a mark in a square of side 1, as the d of an SVG path; matplotlib's markers.
const MARKS = {
  s: "M0 0h1v1h-1z",
  D: "M.5 0L1 .5L.5 1L0 .5z",
  "^": "M.5 0L1 1H0z",
  v: "M0 0H1L.5 1z",
  o: "M1 .5A.5 .5 0 1 1 0 .5A.5 .5 0 1 1 1 .5z",
  P: "M.33 0h.34v.33h.33v.34h-.33v.33h-.34v-.33h-.33v-.34h.33z",
  X: "M0 .2L.2 0L.5 .3L.8 0L1 .2L.7 .5L1 .8L.8 1L.5 .7L.2 1L0 .8L.3 .5z",
  x: "M.4 .4h.2v.2h-.2z",
};

export function markOf(name) {
  return MARKS[kindOf(name).marker] ?? MARKS.s;
}

export function chip(name, words) {
  const kind = kindOf(name);
  const mark = svgEl("svg", { viewBox: "0 0 1 1", width: 11, height: 11, "aria-hidden": "true" },
    svgEl("path", { d: markOf(name), class: `fill-${kind.name}` }));
  return el("span", { class: "chip" }, mark, words ?? `${kind.name}: ${kind.words}`);
}

// Marks and what they mean, in rows of a width: [words, outline, colour, whether it is hollow] each.
export function svgLegend(entries, width) {
  const items = [];
  let [x, y] = [0, 12];
  for (const [words, d, paint, open] of entries) {
    const wide = 28 + 6.4 * [...words].length;
    if (x && x + wide > width) [x, y] = [0, y + 18];
    items.push(svgEl("path", { d, transform: `translate(${x} ${y - 9}) scale(10)`, fill: open ? page().page : paint, stroke: paint, "stroke-width": 0.2 }),
      svgEl("text", { x: x + 15, y }, words));
    x += wide;
  }
  return { items, height: items.length ? y + 8 : 0 };
}

// What squares on a mask mean, beside the kinds: attention of the "dense" model or under the "plan".
export const SQUARE = "M.15 .15h.7v.7h-.7z";

export function attentionOf(of) {
  return `attention of the model ${of === "dense" ? "as it is; on bare ground the plan takes it away" : "under the plan"}`;
}

export function attentionChip(of) {
  return el("span", { class: "chip" }, svgEl("svg", { viewBox: "0 0 1 1", width: 11, height: 11, "aria-hidden": "true" },
    svgEl("path", { d: SQUARE, fill: "currentColor" })), attentionOf(of));
}

export function legend(chips) {
  return el("ul", { class: "legend", "aria-label": "What is drawn" }, chips.map((each) => el("li", {}, each)));
}
