// Layers by heads: which kinds of connection a plan gives each head.

import { el, svgEl } from "./dom.js";
import { chip, legend, markOf } from "./look.js";

// `onpick(layer, head)` makes the heads buttons; `at` is the chosen one.
export function planGrid(plan, at, onpick) {
  const most = Math.max(...plan.grid.map((row) => row.length));
  const rows = plan.grid.map((row, layer) => el("tr", {},
    el("th", { scope: "row" }, `layer ${layer}`),
    row.map((which, head) => {
      const { pattern, kinds } = plan.patterns[which];
      const words = `layer ${layer}, head ${head}: ${pattern}`;
      const chosen = at && at[0] === layer && at[1] === head;
      return el("td", {}, el("button", {
        type: "button", class: "head", title: words, "aria-label": words,
        "aria-pressed": at ? String(Boolean(chosen)) : null, onclick: () => onpick(layer, head),
      }, marks(kinds)));
    })));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Heads of the plan" },
    el("table", { class: "heads" }, el("caption", {}, "What the plan gives each head"),
      el("thead", {}, el("tr", {}, el("td", {}), Array.from({ length: most }, (_, head) =>
        el("th", { scope: "col" }, el("span", { class: "unseen" }, "head "), String(head))))),
      el("tbody", {}, rows)));
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
