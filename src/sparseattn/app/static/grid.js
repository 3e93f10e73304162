// Layers by heads: which kinds of connection a plan gives each head.

import { el } from "./dom.js";
import { chip, colourOf, markOf } from "./look.js";
import { svgEl } from "./dom.js";

export function kindsIn(plan) {
  return [...new Set(plan.patterns.flatMap((each) => each.kinds))];
}

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
  return el("ul", { class: "legend", "aria-label": "Kinds of connection in the plan" },
    kindsIn(plan).map((name) => el("li", {}, chip(name))));
}

// The same as one SVG picture.
export function planSvg(plan, page, at) {
  const cell = 24;
  const left = 54;
  const most = Math.max(...plan.grid.map((row) => row.length));
  const made = svgEl("svg", {
    viewBox: `0 0 ${left + most * cell + 8} ${20 + plan.grid.length * cell + 8}`,
    width: left + most * cell + 8, height: 20 + plan.grid.length * cell + 8,
    "font-family": "system-ui, sans-serif", "font-size": 11, fill: page.ink, role: "img",
    "aria-label": "What the plan gives each head",
  });
  for (let head = 0; head < most; head++) {
    made.append(svgEl("text", { x: left + (head + 0.5) * cell, y: 12, "text-anchor": "middle" }, String(head)));
  }
  plan.grid.forEach((row, layer) => {
    const y = 20 + layer * cell;
    made.append(svgEl("text", { x: left - 8, y: y + cell / 2 + 4, "text-anchor": "end" }, `layer ${layer}`));
    row.forEach((which, head) => {
      const x = left + head * cell;
      const chosen = at && at[0] === layer && at[1] === head;
      made.append(svgEl("rect", {
        x: x + 1, y: y + 1, width: cell - 2, height: cell - 2, fill: page.page,
        stroke: chosen ? page.ink : page.rule, "stroke-width": chosen ? 2 : 1,
      }));
      const names = plan.patterns[which].kinds.slice(0, 4);
      names.forEach((name, place) => made.append(svgEl("path", {
        d: markOf(name), fill: colourOf(name),
        transform: `translate(${x + 3 + (names.length > 1 ? (place % 2) * 9.5 : 4.5)} ${
          y + 3 + (names.length > 2 ? Math.floor(place / 2) * 9.5 : 4.5)}) scale(8.5)`,
      })));
    });
  });
  return made;
}
