// Queries by keys of one head, on a canvas: the pairs that were computed, and attention on them.

import { bytes } from "./api.js";
import { el, short, svgEl } from "./dom.js";
import { colourOf, drawing, markOf, mixed, page } from "./look.js";

const EXECUTED = 128;
const LARGEST = 20; // pixels of a cell
const SHAPES = 7; // pixels of a cell from which on it has its kind's mark
const LABELS = 9; // likewise labels
const WEIGHT = 0.8; // side of the square of all attention, so that a mark is seen around it
const STEPS = 16; // of attention in a small cell
const VECTORS = 140; // tokens up to which a saved picture is made of paths

export function kindsAt(picture, bits) {
  if (!(bits & EXECUTED)) return null;
  const found = picture.causes.filter((_, at) => (bits >> at) & 1).map((cause) => cause.kind);
  return found.length ? found : ["none"];
}

export class Matrix {
  // `onpoint(query, key, pinned)` is told of tokens, or of null when the pointer leaves.
  constructor(title, onpoint) {
    this.title = title;
    this.onpoint = onpoint;
    this.cursor = null;
    this.canvas = el("canvas", {
      tabindex: "0", role: "img", class: "matrix",
      onpointermove: (event) => this.point(event, false),
      onclick: (event) => this.point(event, true),
      onpointerleave: () => this.onpoint(null),
      onkeydown: (event) => this.key(event),
    });
    this.over = el("canvas", { class: "over", "aria-hidden": "true" });
    this.node = el("div", { class: "scroll board" }, el("div", { class: "layers" }, this.canvas, this.over));
  }

  // picture: the answer, unpacked; view: mode, of, rows, cols.
  show(picture, view) {
    Object.assign(this, { picture, view });
    const { rows, cols } = view;
    const room = Math.max(240, this.node.clientWidth || 560);
    const tight = Math.floor((room - 80) / cols.length);
    this.cell = Math.max(1, Math.min(LARGEST, tight));
    if (this.cell < LABELS) this.cell = Math.max(1, Math.min(LABELS - 1, Math.floor((room - 4) / cols.length)));
    this.labels = this.cell >= LABELS;
    this.left = this.labels ? 78 : 2;
    this.top = this.labels ? 78 : 2;
    const width = this.left + cols.length * this.cell + 2;
    const height = this.top + rows.length * this.cell + 2;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = width * devicePixelRatio;
      canvas.height = height * devicePixelRatio;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.size = { width, height };
    const allowed = this.count();
    this.canvas.setAttribute("aria-label",
      `${this.title}: ${rows.length} queries by ${cols.length} keys, ${allowed} pairs allowed. ` +
      "Arrow keys move over the pairs, Enter pins one; the table below has the same numbers.");
    this.draw();
  }

  count() {
    let count = 0;
    const { bits } = this.picture;
    const first = this.index(0, 0);
    const { size } = this.picture.tile;
    for (const query of this.view.rows) for (const key of this.view.cols) count += bits[first + query * size + key] >> 7;
    return count;
  }

  index(query, key) {
    const { top, left, size } = this.picture.tile;
    return (query - top) * size + key - left;
  }

  bits(query, key) {
    return this.picture.bits[this.index(query, key)];
  }

  weight(query, key) {
    return this.picture.weights[this.view.of]?.[this.index(query, key)] ?? 0;
  }

  draw() {
    const pen = this.canvas.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.size.width, this.size.height);
    if (this.cell >= SHAPES) this.drawMarks(pen);
    else this.drawPixels(pen);
    if (this.labels) this.drawLabels(pen);
    this.mark(this.cursor);
  }

  drawMarks(pen) {
    const { rows, cols, mode } = this.view;
    const colours = page();
    const marks = new Map();
    const gap = this.cell > 10 ? 1 : 0.5;
    const inner = this.cell - gap;
    rows.forEach((query, row) => cols.forEach((key, col) => {
      const x = this.left + col * this.cell;
      const y = this.top + row * this.cell;
      pen.fillStyle = colours.band;
      pen.fillRect(x, y, inner, inner);
      const kinds = mode === "attention" ? null : kindsAt(this.picture, this.bits(query, key));
      kinds?.forEach((kind, at) => {
        if (!marks.has(kind)) marks.set(kind, [new Path2D(markOf(kind)), colourOf(kind)]);
        const [mark, colour] = marks.get(kind);
        pen.save();
        pen.fillStyle = colour;
        pen.translate(x + (at * inner) / kinds.length, y);
        pen.scale(inner / kinds.length, inner);
        pen.fill(mark);
        pen.restore();
      });
      if (mode !== "mask") this.drawWeight(pen, x, y, inner, this.weight(query, key));
    }));
  }

  // A square whose area goes with the weight, with a rim, so that it is seen on any colour.
  drawWeight(pen, x, y, inner, weight) {
    const side = WEIGHT * inner * Math.sqrt(weight);
    if (side < 1.2) return;
    const at = (inner - side) / 2;
    pen.fillStyle = page().ink;
    pen.fillRect(x + at, y + at, side, side);
    pen.strokeStyle = page().page;
    pen.lineWidth = 0.75;
    pen.strokeRect(x + at, y + at, side, side);
  }

  drawPixels(pen) {
    const { rows, cols, mode, of } = this.view;
    const { bits, weights } = this.picture;
    const small = el("canvas", { width: cols.length, height: rows.length });
    paint(small, this.picture, mode, bits, mode === "mask" ? null : weights[of],
      (place) => this.index(rows[Math.floor(place / cols.length)], cols[place % cols.length]));
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, this.left, this.top, cols.length * this.cell, rows.length * this.cell);
  }

  drawLabels(pen) {
    const { labels } = this.picture.tokens;
    pen.fillStyle = page().ink;
    pen.font = `${Math.min(12, this.cell)}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    this.view.rows.forEach((query, row) =>
      pen.fillText(fitting(pen, labels[query]), this.left - 4, this.top + (row + 0.5) * this.cell));
    pen.textAlign = "left";
    this.view.cols.forEach((key, col) => {
      pen.save();
      pen.translate(this.left + (col + 0.5) * this.cell, this.top - 4);
      pen.rotate(-Math.PI / 2);
      pen.fillText(fitting(pen, labels[key]), 0, 0);
      pen.restore();
    });
  }

  // Outlines the row and the column of a pair, or both of a token.
  mark(cursor) {
    this.cursor = cursor;
    const pen = this.over.getContext("2d");
    pen.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    pen.clearRect(0, 0, this.size?.width ?? 0, this.size?.height ?? 0);
    if (!cursor || !this.view) return;
    const { rows, cols } = this.view;
    pen.strokeStyle = page().ink;
    pen.lineWidth = 1.5;
    const row = rows.indexOf(cursor.query);
    const col = cols.indexOf(cursor.key);
    if (row >= 0) pen.strokeRect(1, this.top + row * this.cell - 1, this.size.width - 2, this.cell + 1);
    if (col >= 0) pen.strokeRect(this.left + col * this.cell - 1, 1, this.cell + 1, this.size.height - 2);
  }

  point(event, pinned) {
    if (!this.view) return;
    const box = this.canvas.getBoundingClientRect();
    const col = Math.floor((event.clientX - box.left - this.left) / this.cell);
    const row = Math.floor((event.clientY - box.top - this.top) / this.cell);
    const { rows, cols } = this.view;
    const query = rows[row] ?? null;
    const key = cols[col] ?? null;
    // On the labels: the token itself.
    if (query === null && key === null) return;
    this.onpoint(query ?? key, key ?? query, pinned);
  }

  key(event) {
    const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (!this.view || !(event.key in steps || event.key === "Enter")) return;
    event.preventDefault();
    const { rows, cols } = this.view;
    const [down, right] = steps[event.key] ?? [0, 0];
    const at = (list, token, step) => list[Math.max(0, Math.min(list.length - 1, list.indexOf(token) + step))];
    const here = this.cursor ?? { query: rows[0], key: cols[0] };
    const query = at(rows, here.query, this.cursor ? down : 0);
    const key = at(cols, here.key, this.cursor ? right : 0);
    this.onpoint(query, key, event.key === "Enter");
  }

  // The picture as SVG; of long texts the matrix is an image in it.
  svg() {
    const { rows, cols, mode } = this.view;
    const colours = page();
    const cell = 12;
    const vectors = rows.length <= VECTORS && cols.length <= VECTORS;
    const edge = vectors ? 84 : 4;
    const [width, height] = vectors
      ? [edge + cols.length * cell + 4, edge + rows.length * cell + 4]
      : [this.size.width, this.size.height];
    const made = drawing(width, height, { "font-size": 10, role: "img", "aria-label": this.title });
    if (!vectors) {
      made.append(svgEl("image", { href: this.canvas.toDataURL(), width, height }));
      return made;
    }
    const paths = new Map();
    const weights = [];
    rows.forEach((query, row) => cols.forEach((key, col) => {
      const x = edge + col * cell;
      const y = edge + row * cell;
      const kinds = mode === "attention" ? null : kindsAt(this.picture, this.bits(query, key));
      const cells = kinds ?? ["empty"];
      cells.forEach((kind, at) => {
        if (!paths.has(kind)) paths.set(kind, []);
        paths.get(kind).push([x + (at * 11) / cells.length, y, 11 / cells.length]);
      });
      const side = mode === "mask" ? 0 : 11 * WEIGHT * Math.sqrt(this.weight(query, key));
      if (side >= 1) weights.push(`M${x + (11 - side) / 2} ${y + (11 - side) / 2}h${side}v${side}h${-side}z`);
    }));
    for (const [kind, places] of paths) made.append(marksOf(kind, places, colours));
    made.append(svgEl("path", { d: weights.join(""), fill: colours.ink, stroke: colours.page, "stroke-width": 0.5 }));
    const { labels } = this.picture.tokens;
    rows.forEach((query, row) => made.append(svgEl("text", {
      x: edge - 4, y: edge + row * cell + 9, "text-anchor": "end" }, short(labels[query], 14))));
    cols.forEach((key, col) => made.append(svgEl("text", {
      transform: `translate(${edge + col * cell + 9} ${edge - 4}) rotate(-90)` }, short(labels[key], 14))));
    return made;
  }
}

// A pixel for each pair, in the colour of the first of its kinds, the darker the more attention.
function paint(canvas, picture, mode, bits, weights, indexOf) {
  const { width, height } = canvas;
  const image = new ImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const known = new Uint32Array(256 * STEPS);
  const { band, ink } = page();
  for (let place = 0; place < pixels.length; place++) {
    const index = indexOf(place);
    const step = weights ? Math.min(STEPS - 1, Math.floor(STEPS * Math.sqrt(weights[index]))) : 0;
    const id = bits[index] * STEPS + step;
    if (!known[id]) {
      const kinds = mode === "attention" ? null : kindsAt(picture, bits[index]);
      const [red, green, blue] = mixed(kinds ? colourOf(kinds[0]) : band, ink, step / STEPS);
      known[id] = (255 << 24) | (blue << 16) | (green << 8) | red;
    }
    pixels[place] = known[id];
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// As much of a label as there is room for.
function fitting(pen, label) {
  let most = 14;
  while (most > 2 && pen.measureText(short(label, most)).width > 72) most--;
  return short(label, most);
}

function marksOf(kind, places, colours) {
  if (kind === "empty") {
    const d = places.map(([x, y]) => `M${x} ${y}h11v11h-11z`).join("");
    return svgEl("path", { d, fill: colours.band });
  }
  const id = `mark-${kind}`;
  const shape = svgEl("path", { id, d: markOf(kind) });
  const copies = places.map(([x, y, wide]) => svgEl("use", {
    href: `#${id}`, transform: `translate(${x} ${y}) scale(${wide} 11)` }));
  return svgEl("g", { fill: colourOf(kind) }, svgEl("defs", {}, shape), copies);
}

// The whole of a long text at a glance; a click moves the part that is shown.
export function minimap(picture, onmove) {
  const { side, step } = picture.map;
  const canvas = el("canvas", {
    width: side, height: side, class: "map", role: "img",
    "aria-label": "The whole matrix; a click moves the part that is shown, as do the buttons beside it",
    onclick: (event) => {
      const box = canvas.getBoundingClientRect();
      const half = picture.tile.size / 2;
      onmove(Math.round(((event.clientY - box.top) / box.height) * side * step - half),
        Math.round(((event.clientX - box.left) / box.width) * side * step - half));
    },
  });
  paint(canvas, picture, "mask", bytes(picture.map.mask), null, (place) => place);
  const pen = canvas.getContext("2d");
  const { top, left, size } = picture.tile;
  pen.strokeStyle = page().ink;
  pen.lineWidth = 2;
  pen.strokeRect(left / step, top / step, size / step, size / step);
  return canvas;
}
