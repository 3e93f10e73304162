// The text itself, token by token; arcs of its parse; how far information has come.

import { el, region, short, svgEl } from "./dom.js";
import { colourOf, drawing, page, variable } from "./look.js";
import { kindsAt } from "./matrix.js";

// `onpoint(token, pinned)` is told of tokens, or of null when the pointer leaves.
export class TextPanel {
  constructor(onpoint) {
    this.onpoint = onpoint;
    this.node = el("div", {
      class: "text", role: "listbox", "aria-label": "Tokens of the text; arrow keys move, Enter pins",
      onpointerover: (event) => this.at(event, (token) => onpoint(token, false)),
      onpointerleave: () => onpoint(null, false),
      onclick: (event) => this.at(event, (token) => onpoint(token, true)),
      onkeydown: (event) => this.key(event),
    });
    this.lit = [];
  }

  at(event, then) {
    const token = event.target.closest?.("[data-token]");
    if (token) then(Number(token.dataset.token));
  }

  show(picture, texts) {
    const { labels, spans, sides } = picture.tokens;
    const held = this.node.contains(document.activeElement) ? document.activeElement.dataset.token : null;
    this.tokens = [];
    const letters = texts.map((text) => [...(text ?? "")]);
    const parts = [];
    let line = null;
    let side = null;
    let end = 0;
    labels.forEach((label, token) => {
      const [from, to] = spans[token];
      const here = sides[token];
      if (here >= 0 && here !== side) {
        side = here;
        end = 0;
        line = el("p", { dir: "auto" });
        parts.push(line);
      }
      if (here >= 0 && to > end) {
        if (from > end) line.append(letters[here].slice(end, from).join(""));
        line.append(this.token(token, letters[here].slice(Math.max(from, end), to).join("")));
        end = to;
      } else {
        if (!line) parts.push((line = el("p", { dir: "auto" })));
        // What the tokenizer added, and all but the first of several tokens of one letter.
        line.append(this.token(token, here >= 0 && to > 0 ? "·" : short(label, 40), here < 0), " ");
        if (here < 0 && side === null) line = null;
      }
    });
    this.node.replaceChildren(...parts.filter((part) => part.childNodes.length));
    if (held && this.tokens[held]) this.focus(Number(held));
    this.lit = [];
  }

  token(token, words, added = false) {
    const made = el("bdi", {
      class: added ? "token added" : "token", role: "option", "data-token": token,
      tabindex: this.tokens.length ? "-1" : "0", "aria-selected": "false",
    }, words);
    this.tokens[token] = made;
    return made;
  }

  // The one token that the tab key comes to.
  focus(token) {
    this.node.querySelector('[tabindex="0"]').tabIndex = -1;
    this.tokens[token].tabIndex = 0;
    this.tokens[token].focus();
  }

  key(event) {
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    const now = Number(document.activeElement?.dataset?.token ?? -1);
    if (now < 0 || !(event.key in steps || event.key === "Enter" || event.key === " ")) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(this.tokens.length - 1, now + (steps[event.key] ?? 0)));
    this.focus(next);
    this.onpoint(next, !(event.key in steps));
  }

  // Lights up a token, its keys and its queries: bits of pairs by `bitsOf(query, key)`.
  light(picture, token, rows, cols, bitsOf) {
    for (const each of this.lit) {
      each.classList.remove("chosen", "key", "query");
      each.setAttribute("aria-selected", "false");
    }
    this.lit = [];
    if (token === null || !this.tokens?.[token]) return;
    const mark = (at, name) => {
      this.tokens[at].classList.add(name);
      this.lit.push(this.tokens[at]);
    };
    mark(token, "chosen");
    this.tokens[token].setAttribute("aria-selected", "true");
    const place = this.tokens[token].offsetTop;
    if (place < this.node.scrollTop || place > this.node.scrollTop + this.node.clientHeight - 24) this.node.scrollTop = place - 60;
    if (rows.includes(token)) {
      for (const key of cols) {
        const kinds = kindsAt(picture, bitsOf(token, key));
        if (!kinds) continue;
        mark(key, "key");
        this.tokens[key].style.setProperty("--kind", variable(kinds[0]));
      }
    }
    if (cols.includes(token)) {
      for (const query of rows) if (query !== token && kindsAt(picture, bitsOf(query, token))) mark(query, "query");
    }
  }
}

function note(words) {
  return el("p", { class: "note" }, words);
}

// Arcs from words to their heads; those that the shown head keeps are drawn through.
export function arcs(picture, tokens, bitsOf) {
  const { labels, words, heads } = picture.tokens;
  if (!words) return note("There is no parse: pip install \"sparseattn[syntax]\"");
  if (!tokens.length) return note("Arcs join tokens that are both among the queries and among the keys that are shown; there is none.");
  const first = new Map();
  words.forEach((word, token) => word >= 0 && !first.has(word) && first.set(word, token));
  const places = [];
  let x = 6;
  for (const token of tokens) {
    const wide = 7.2 * [...short(labels[token], 14)].length + 12;
    places[token] = x + wide / 2;
    x += wide;
  }
  const drawn = [];
  for (const token of tokens) {
    const head = first.get(heads[token]);
    if (words[token] < 0 || first.get(words[token]) !== token) continue;
    if (head === undefined || head === token || places[head] === undefined) continue;
    const kept = bitsOf(token, head) & 128 || bitsOf(head, token) & 128;
    drawn.push([places[token], places[head], Boolean(kept)]);
  }
  const kept = drawn.filter((each) => each[2]).length;
  const said = `Arcs join words to their syntactic heads; ${kept} of ${drawn.length} are pairs that the shown head keeps: the full lines.`;
  const highest = Math.min(150, Math.max(30, ...drawn.map(([a, b]) => Math.abs(a - b) / 3)));
  const base = highest + 12;
  const made = drawing(x + 6, base + 24, {
    "font-family": "ui-monospace, monospace", "font-size": 12, role: "img",
    "aria-label": said,
  });
  for (const [from, to, kept] of drawn) {
    const high = base - Math.min(highest, Math.abs(from - to) / 3) * 1.33;
    made.append(svgEl("path", {
      d: `M${from} ${base}C${from} ${high} ${to} ${high} ${to} ${base}`, fill: "none",
      stroke: kept ? colourOf("parse") : page().quiet, "stroke-width": kept ? 2 : 1,
      "stroke-dasharray": kept ? null : "3 3",
    }));
  }
  for (const token of tokens) {
    made.append(svgEl("text", { x: places[token], y: base + 16, "text-anchor": "middle" }, short(labels[token], 14)));
  }
  return [note(said), region("Dependency arcs", made)];
}

// A row a layer: from which tokens the chosen one can have heard.
export function field(picture, heard) {
  const count = picture.tokens.labels.length;
  const cell = Math.max(1, Math.min(12, Math.floor(640 / count)));
  const left = 150;
  const made = drawing(left + count * cell, heard.layers.length * 16 + 4, {
    role: "img",
    "aria-label": `How many of ${count} tokens token ${heard.token} can have heard from after each layer: ` +
      heard.layers.map((each) => each.length).join(", "),
  });
  heard.layers.forEach((tokens, layer) => {
    const y = layer * 16 + 2;
    made.append(svgEl("text", { x: 0, y: y + 10 }, `layer ${layer}: ${tokens.length} of ${count}`));
    const d = tokens.map((token) => `M${left + token * cell} ${y}h${Math.max(1, cell - (cell > 3))}v12h${-Math.max(1, cell - (cell > 3))}z`);
    made.append(svgEl("rect", { x: left, y, width: count * cell, height: 12, fill: page().band }));
    made.append(svgEl("path", { d: d.join(""), fill: page().series[0] }));
  });
  return region("Receptive field", made);
}
