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
export function drawing(width, height, attributes = {}, ...children) {
  return svgEl("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "font-family": "system-ui, sans-serif",
    "font-size": 11, fill: page().ink, ...attributes }, ...children);
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

// The outline of a mark in a box (x, y, width, height), as the d of an SVG path; matplotlib's markers.
const place = (value) => Math.round(100 * value) / 100;
const polygon = (...points) => (x, y, wide, high) =>
  `M${points.map(([right, down]) => `${place(x + right * wide)} ${place(y + down * high)}`).join("L")}z`;

export const BOX = polygon([0, 0], [1, 0], [1, 1], [0, 1]);
const MARKS = {
  s: BOX,
  D: polygon([0.5, 0], [1, 0.5], [0.5, 1], [0, 0.5]),
  "^": polygon([0.5, 0], [1, 1], [0, 1]),
  v: polygon([0, 0], [1, 0], [0.5, 1]),
  o: (x, y, wide, high) => `M${x} ${y + high / 2}${[wide, -wide].map((step) => `a${wide / 2} ${high / 2} 0 1 1 ${step} 0`).join("")}z`,
  P: polygon([0.33, 0], [0.67, 0], [0.67, 0.33], [1, 0.33], [1, 0.67], [0.67, 0.67], [0.67, 1], [0.33, 1], [0.33, 0.67], [0, 0.67], [0, 0.33], [0.33, 0.33]),
  X: polygon([0, 0.2], [0.2, 0], [0.5, 0.3], [0.8, 0], [1, 0.2], [0.7, 0.5], [1, 0.8], [0.8, 1], [0.5, 0.7], [0.2, 1], [0, 0.8], [0.3, 0.5]),
  x: polygon([0.4, 0.4], [0.6, 0.4], [0.6, 0.6], [0.4, 0.6]),
};

export function markOf(name) {
  return MARKS[kindOf(name).marker] ?? BOX;
}

// The colour of a kind as CSS: it follows the scheme by itself.
export function variable(name) {
  return `var(--kind-${kindOf(name).name})`;
}

function marked(mark, fill, words) {
  return el("span", { class: "chip" }, svgEl("svg", { viewBox: "0 0 1 1", width: 11, height: 11, "aria-hidden": "true" },
    svgEl("path", { d: mark(0, 0, 1, 1), fill })), words);
}

export function chip(name, words) {
  const kind = kindOf(name);
  return marked(markOf(name), variable(name), words ?? `${kind.name}: ${kind.words}`);
}

// Marks and what they mean, in rows of a width: [words, mark, colour, whether it is hollow] each.
export function svgLegend(entries, width) {
  const items = [];
  let [x, y] = [0, 12];
  for (const [words, mark, paint, open] of entries) {
    const wide = 28 + 6.4 * [...words].length;
    if (x && x + wide > width) [x, y] = [0, y + 18];
    items.push(svgEl("path", { d: mark(x, y - 9, 10, 10), fill: open ? page().page : paint, stroke: paint, "stroke-width": 2 }),
      svgEl("text", { x: x + 15, y }, words));
    x += wide;
  }
  return { items, height: items.length ? y + 8 : 0 };
}

// What squares on a mask mean, beside the kinds: attention of the "dense" model or under the "plan".
export const SQUARE = polygon([0.15, 0.15], [0.85, 0.15], [0.85, 0.85], [0.15, 0.85]);

export function attentionOf(of) {
  return `attention of the model ${of === "dense" ? "as it is; on bare ground the plan takes it away" : "under the plan"}`;
}

export function attentionChip(of) {
  return marked(SQUARE, "currentColor", attentionOf(of));
}

export function legend(chips) {
  return el("ul", { class: "legend", "aria-label": "What is drawn" }, chips.map((each) => el("li", {}, each)));
}
