// Queries by keys of one head, on a canvas: the pairs that were computed, and attention on them.

import { bytes } from "./api.js";
import { el, short, svgEl } from "./dom.js";
import { BOX, colourOf, drawing, markOf, mixed, page } from "./look.js";

const EXECUTED = 128;
const LARGEST = 20; // pixels of a cell
const SHAPES = 7; // pixels of a cell from which on it has its kind's mark
const LABELS = 9; // likewise labels
const WEIGHT = 0.8; // side of the square of all attention, so that a mark is seen around it
const STEPS = 16; // of attention in a small cell
const VECTORS = 140; // tokens up to which a saved picture is made of paths

export function causesAt(picture, bits) {
  return picture.causes.filter((_, at) => (bits >> at) & 1);
}

export function kindsAt(picture, bits) {
  if (!(bits & EXECUTED)) return null;
  const found = causesAt(picture, bits).map((cause) => cause.kind);
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
    this.edge = this.cell >= LABELS ? 78 : 2;
    const width = this.edge + cols.length * this.cell + 2;
    const height = this.edge + rows.length * this.cell + 2;
    for (const canvas of [this.canvas, this.over]) {
      canvas.width = width * devicePixelRatio;
      canvas.height = height * devicePixelRatio;
      canvas.style.width = `${width}px`;
      canvas.style.height = `${height}px`;
    }
    this.size = { width, height };
    let allowed = 0;
    for (const query of rows) for (const key of cols) allowed += this.bits(query, key) >> 7;
    this.canvas.setAttribute("aria-label",
      `${this.title}: ${rows.length} queries by ${cols.length} keys, ${allowed} pairs allowed. ` +
      "Arrow keys move over the pairs, Enter pins one; the table below has the same numbers.");
    this.draw();
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
    if (this.cell >= LABELS) this.drawLabels(pen);
    this.mark(this.cursor);
  }

  // The pairs and the attention on them as paths, for cells of a size that begin at an edge.
  paths(cell, edge) {
    const { rows, cols, mode } = this.view;
    const inner = cell - (cell > 10 ? 1 : 0.5);
    const grounds = [];
    const marks = new Map();
    const weights = [];
    rows.forEach((query, row) => cols.forEach((key, col) => {
      const x = edge + col * cell;
      const y = edge + row * cell;
      grounds.push(BOX(x, y, inner, inner));
      const kinds = mode === "attention" ? [] : kindsAt(this.picture, this.bits(query, key)) ?? [];
      const wide = inner / kinds.length;
      kinds.forEach((kind, at) => {
        if (!marks.has(kind)) marks.set(kind, []);
        marks.get(kind).push(markOf(kind)(x + at * wide, y, wide, inner));
      });
      // A square whose area goes with the weight, with a rim, so that it is seen on any colour.
      const side = mode === "mask" ? 0 : WEIGHT * inner * Math.sqrt(this.weight(query, key));
      const start = (inner - side) / 2;
      if (side > 1) weights.push(BOX(x + start, y + start, side, side));
    }));
    const { band, ink, page: ground } = page();
    return [
      { d: grounds.join(""), fill: band },
      ...[...marks].map(([kind, parts]) => ({ d: parts.join(""), fill: colourOf(kind) })),
      { d: weights.join(""), fill: ink, stroke: ground, "stroke-width": 0.75 },
    ];
  }

  drawMarks(pen) {
    for (const { d, fill, stroke, "stroke-width": width } of this.paths(this.cell, this.edge)) {
      const path = new Path2D(d);
      pen.fillStyle = fill;
      pen.fill(path);
      if (!stroke) continue;
      pen.strokeStyle = stroke;
      pen.lineWidth = width;
      pen.stroke(path);
    }
  }

  drawPixels(pen) {
    const { rows, cols, mode, of } = this.view;
    const { bits, weights } = this.picture;
    const small = el("canvas", { width: cols.length, height: rows.length });
    paint(small, this.picture, mode, bits, mode === "mask" ? null : weights[of],
      (place) => this.index(rows[Math.floor(place / cols.length)], cols[place % cols.length]));
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small, this.edge, this.edge, cols.length * this.cell, rows.length * this.cell);
  }

  drawLabels(pen) {
    const { labels } = this.picture.tokens;
    pen.fillStyle = page().ink;
    pen.font = `${Math.min(12, this.cell)}px system-ui, sans-serif`;
    pen.textBaseline = "middle";
    pen.textAlign = "right";
    this.view.rows.forEach((query, row) =>
      pen.fillText(fitting(pen, labels[query]), this.edge - 4, this.edge + (row + 0.5) * this.cell));
    pen.textAlign = "left";
    this.view.cols.forEach((key, col) => {
      pen.save();
      pen.translate(this.edge + (col + 0.5) * this.cell, this.edge - 4);
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
    if (row >= 0) pen.strokeRect(1, this.edge + row * this.cell - 1, this.size.width - 2, this.cell + 1);
    if (col >= 0) pen.strokeRect(this.edge + col * this.cell - 1, 1, this.cell + 1, this.size.height - 2);
  }

  point(event, pinned) {
    if (!this.view) return;
    const box = this.canvas.getBoundingClientRect();
    const col = Math.floor((event.clientX - box.left - this.edge) / this.cell);
    const row = Math.floor((event.clientY - box.top - this.edge) / this.cell);
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
    const { rows, cols } = this.view;
    const told = { "font-size": 10, role: "img", "aria-label": this.title };
    if (rows.length > VECTORS || cols.length > VECTORS) {
      const { width, height } = this.size;
      return drawing(width, height, told, svgEl("image", { href: this.canvas.toDataURL(), width, height }));
    }
    const [cell, edge] = [12, 84];
    const { labels } = this.picture.tokens;
    return drawing(edge + cols.length * cell + 4, edge + rows.length * cell + 4, told,
      this.paths(cell, edge).map((path) => svgEl("path", path)),
      rows.map((query, row) => svgEl("text", { x: edge - 4, y: edge + row * cell + 9, "text-anchor": "end" }, short(labels[query], 14))),
      cols.map((key, col) => svgEl("text", { transform: `translate(${edge + col * cell + 9} ${edge - 4}) rotate(-90)` }, short(labels[key], 14))));
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
