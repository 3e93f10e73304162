// Layers by heads: which kinds of connection a plan gives each head.

import { el, region, svgEl } from "./dom.js";
import { chip, legend, markOf } from "./look.js";

// A button for each head: `said(cell)` are the words and content of one, `at` is the chosen one.
export function headsTable(label, caption, rows, said, at, onpick) {
  const most = Math.max(...rows.map((row) => row.length));
  const made = rows.map((row, layer) => el("tr", {}, el("th", { scope: "row" }, `layer ${layer}`),
    row.map((cell, head) => {
      const [about, content, style] = said(cell);
      const words = `layer ${layer}, head ${head}: ${about}`;
      const pressed = at ? String(String(at) === String([layer, head])) : null;
      const button = el("button", { type: "button", class: "head", title: words, "aria-label": words,
        "aria-pressed": pressed, onclick: () => onpick(layer, head) }, content);
      Object.assign(button.style, style);
      return el("td", {}, button);
    })));
  return region(label, el("table", { class: "heads" }, el("caption", {}, caption),
    el("thead", {}, el("tr", {}, el("td", {}), Array.from({ length: most }, (_, head) =>
      el("th", { scope: "col" }, el("span", { class: "unseen" }, "head "), String(head))))),
    el("tbody", {}, made)));
}

export function planGrid(plan, at, onpick, caption = "What the plan gives each head") {
  return headsTable(caption, caption, plan.grid, (which) => {
    const { pattern, kinds } = plan.patterns[which];
    return [pattern, marks(kinds)];
  }, at, onpick);
}

function marks(kinds) {
  const size = 9;
  const drawn = kinds.slice(0, 4).map((name, at) => svgEl("path", {
    d: markOf(name), class: `fill-${name}`,
    transform: `translate(${(at % 2) * (size + 2)} ${Math.floor(at / 2) * (size + 2)}) scale(${size})`,
  }));
  const wide = kinds.length > 1 ? 2 : 1;
  const tall = kinds.length > 2 ? 2 : 1;
  return svgEl("svg", {
    width: wide * (size + 2) - 2, height: tall * (size + 2) - 2, "aria-hidden": "true",
  }, drawn);
}

export function planLegend(plan) {
  return legend([...new Set(plan.patterns.flatMap((each) => each.kinds))].map((name) => chip(name)));
}
