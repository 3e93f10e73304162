// Layers by heads: which kinds of connection a plan gives each head.

import { el, region, svgEl } from "./dom.js";
import { chip, legend, markOf, variable } from "./look.js";

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
  const [size, step] = [9, 11];
  const drawn = kinds.slice(0, 4).map((name, at) => svgEl("path", {
    d: markOf(name)((at % 2) * step, Math.floor(at / 2) * step, size, size), fill: variable(name) }));
  const width = kinds.length > 1 ? size + step : size;
  const height = kinds.length > 2 ? size + step : size;
  return svgEl("svg", { width, height, "aria-hidden": "true" }, drawn);
}

export function planLegend(plan) {
  return legend([...new Set(plan.patterns.flatMap((each) => each.kinds))].map((name) => chip(name)));
}
