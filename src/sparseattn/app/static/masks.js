// Masks: a text and the pairs that a plan keeps of it, beside the model's own attention.

import { Rounds, ask, unpacked } from "./api.js";
import { SQUARE, attentionChip, attentionOf, chip, colourOf, drawing, kindOf, legend, markOf, onLook, page, svgLegend } from "./look.js";
import { alarm, choice, debounced, el, labelled, modelChoice, percent, replace, short, svgEl, table } from "./dom.js";
import { Matrix, causesAt, kindsAt, minimap } from "./matrix.js";
import { TextPanel, arcs, field } from "./tokens.js";
import { offerSaving } from "./save.js";
import { planGrid, planLegend } from "./grid.js";

export const MASKS = {
  model: "", text: "The quick brown fox jumps over the lazy dog.",
  pair: "A fast brown fox leaps over a dog that is lazy.",
  plan: "neighbor(radius=1) | similarity(k=1) | global(cls)", beside: "",
  layer: "0", head: "0", show: "both", of: "dense", queries: "all", keys: "all", token: "",
  arcs: "", field: "", top: "0", left: "0",
};

const EXAMPLES = [
  "full()", "neighbor(radius=2) | global(cls)", "similarity(k=2) | global(cls)",
  "dependency() | global(cls)", "sentence()", "bigbird(radius=1, random=2)",
  "layers :3: full(); layers 3:: neighbor(radius=1) | global(cls)",
];

const WAIT = 120; // ms after the last key
const HINT = "Point at a token or at a pair; a click, or Enter, pins a token and lists its keys.";

export function masksView(root, about, state, change) {
  const shown = []; // one or two plans: {matrix, picture, box}
  let token = state.token === "" ? null : Number(state.token);
  let pinned = token !== null;
  let which = 0; // the plan whose keys of the pinned token are listed
  const rounds = new Rounds(root);

  const panel = new TextPanel((at, click) => point(at, at, click, 0));
  const detail = el("section", { "aria-label": "The chosen token" });
  const boards = el("div", { class: "boards" });
  const gridPlace = el("div");
  const parse = el("div");
  const filters = el("div", { class: "row" });

  const soon = debounced(() => update(), WAIT);
  // Busy from the first letter on; what is under way by then is of no use any more.
  const later = () => {
    rounds.begin();
    soon();
  };
  const area = (name, rows, attributes = {}) => el("textarea", {
    rows, value: state[name], spellcheck: "false", ...attributes,
    // The address follows when it is drawn: browsers take only so many changes of it a second.
    oninput: (event) => {
      state[name] = event.target.value;
      if (name === "text" || name === "pair") unpin();
      later();
    },
  });
  const plan = area("plan", 3, { class: "code" });
  const form = el("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); update(); } },
    labelled("Text", area("text", 3, { dir: "auto" })),
    labelled("Second text of a pair", area("pair", 2, { dir: "auto" }), "empty for none"),
    labelled("Pattern or plan", plan, "a pattern, a plan's lines, or its JSON"),
    labelled("Plan beside it", area("beside", 3, { class: "code" }), "empty for none"),
    el("div", { class: "row" },
      modelChoice(about, state.model, (value) => { change({ model: value }); update(); }),
      labelled("Example", choice([["", "choose a pattern"], ...EXAMPLES.map((each) => [each, short(each, 40)])], "", (value) => {
        if (value) { plan.value = value; change({ plan: value }); update(); }
      })),
      labelled("Show", choice([["both", "mask and attention"], ["mask", "mask"], ["attention", "attention"]], state.show,
        (value) => { change({ show: value }); redraw(); })),
      labelled("Attention of", choice([["dense", "the model as it is"], ["plan", "the model under the plan"]], state.of,
        (value) => { change({ of: value }); redraw(); })),
      labelled("Arcs of the parse", el("input", { type: "checkbox", checked: state.arcs === "1",
        onchange: (event) => { change({ arcs: event.target.checked ? "1" : "" }); redraw(); } })),
    ), filters);

  replace(root, el("h2", {}, "Masks"), form, rounds.trouble,
    el("section", { "aria-label": "The text, token by token" }, panel.node), parse, el("div", { class: "beside" }, boards, gridPlace), detail);
  onLook(() => redraw());
  offerSaving("masks", picture);

  function request(text) {
    const { model, text: first, pair } = state;
    return { model, text: first, pair, plan: text, layer: Number(state.layer) || 0, head: Number(state.head) || 0,
      top: Number(state.top) || 0, left: Number(state.left) || 0 };
  }

  function update() {
    const began = performance.now();
    change();
    return rounds.run(async (last) => {
      const plans = state.beside.trim() ? [state.plan, state.beside] : [state.plan];
      const pictures = [];
      for (const each of plans) pictures.push(await ask("masks", request(each)));
      if (!last()) return;
      arrange(pictures.map(unpacked));
      await redraw();
      root.dataset.milliseconds = Math.round(performance.now() - began);
    });
  }

  function arrange(pictures) {
    shown.length = 0;
    which = Math.min(which, pictures.length - 1);
    replace(boards, pictures.map((each, at) => {
      const matrix = new Matrix(`Plan ${at + 1}: layer ${each.layer}, head ${each.head}, ${each.pattern}`,
        (query, key, click) => (query === null ? point(null) : point(query, key, click, at)));
      const readout = el("p", { class: "readout", "aria-live": "polite" });
      const means = el("div");
      shown.push({ matrix, picture: each, readout, means });
      return el("figure", { class: "board-box" }, el("figcaption", {}, caption(each)),
        ...[...each.notices, each.attention.why ?? []].flat().map((notice) => el("p", { class: "note" }, notice)), means, matrix.node, readout,
        each.map ? el("div", { class: "row" }, minimap(each, move), movers(each)) : null,
        el("div", {}, countsTable(each, at)));
    }));
    const [first] = pictures;
    // What the model has, not what was asked for: negative numbers count back.
    change({ layer: String(first.layer), head: String(first.head), top: String(first.tile.top), left: String(first.tile.left) });
    gridPlace.className = pictures.length === 1 ? "aside" : "row";
    replace(gridPlace, pictures.map((each, at) => el("div", {}, planGrid(each.grid, [each.layer, each.head], (layer, head) => {
      change({ layer: String(layer), head: String(head) });
      update();
    }, at ? "What the plan beside gives each head" : "What the plan gives each head"), planLegend(each.grid))));
    replace(filters, filter("Queries", "queries", first), filter("Keys", "keys", first));
  }

  function caption(each) {
    const own = each.counts.head;
    return [el("strong", {}, each.pattern), ` — layer ${each.layer}, head ${each.head}: sparsity ${percent(own.sparsity)}, ` +
      `${own.degree.toFixed(1)} keys a query`];
  }

  // Of the kinds only those that are drawn.
  function kindsOf(matrix, each) {
    if (state.show === "attention") return [];
    const seen = new Uint8Array(256);
    for (const query of matrix.view.rows) for (const key of matrix.view.cols) seen[matrix.bits(query, key)] = 1;
    const kinds = each.causes.map((cause) => cause.kind).filter((_, at) => seen.some((there, bits) => there && (bits >> at) & 1));
    return seen[128] ? [...kinds, "none"] : kinds;
  }

  function squares(each) {
    return state.show !== "mask" && !each.attention.why;
  }

  function meaning(matrix, each) {
    return legend([...kindsOf(matrix, each).map((kind) => chip(kind)), ...(squares(each) ? [attentionChip(state.of)] : [])]);
  }

  function countsTable(each, which) {
    const line = (words, count) => [words, count.allowed.toLocaleString("en"), count.valid.toLocaleString("en"),
      percent(count.sparsity), count.degree.toFixed(1)];
    return table(`Counted over real tokens${which ? ", the plan beside" : ""}`, ["what", "pairs allowed", "of", "sparsity", "mean degree"],
      [line("this head", each.counts.head), line("its layer", each.counts.layer), line("all layers and heads", each.counts.plan)]);
  }

  function move(top, left) {
    change({ top: String(Math.max(0, Math.round(top))), left: String(Math.max(0, Math.round(left))) });
    update();
  }

  function inside(at, start, size) {
    return at >= start && at < start + size;
  }

  function movers(each) {
    const { top, left, size } = each.tile;
    const button = (words, down, right) => el("button", { type: "button", onclick: () => move(top + down, left + right) }, words);
    const last = (at) => Math.min(each.tokens.labels.length, at + size) - 1;
    return el("div", {}, el("p", { class: "note" }, `queries ${top} to ${last(top)}, keys ${left} to ${last(left)} of ${each.tokens.labels.length.toLocaleString("en")}`),
      el("div", { class: "row" }, button("earlier queries", -size / 2, 0), button("later queries", size / 2, 0),
      button("earlier keys", 0, -size / 2), button("later keys", 0, size / 2),
      button("along the diagonal", size / 2, size / 2)));
  }

  function filter(words, name, each) {
    const { sides, sentences } = each.tokens;
    const options = [["all", "all"]];
    if (sides.includes(1)) options.push(["text 0", "first text"], ["text 1", "second text"]);
    const known = [...new Set(sentences ?? [])].filter((sentence) => sentence >= 0);
    if (known.length > 1) known.forEach((sentence) => options.push([`sentence ${sentence}`, `sentence ${sentence + 1}`]));
    if (!options.some(([key]) => key === state[name])) state[name] = "all";
    return labelled(words, choice(options, state[name], (value) => { change({ [name]: value }); redraw(); }));
  }

  function selected(each, name) {
    const { sides, sentences } = each.tokens;
    const start = name === "queries" ? each.tile.top : each.tile.left;
    const tokens = Array.from({ length: each.tile.size }, (_, at) => start + at);
    const [what, which] = state[name].split(" ");
    if (what === "text") return tokens.filter((at) => sides[at] === Number(which));
    if (what === "sentence") return tokens.filter((at) => sentences?.[at] === Number(which));
    return tokens;
  }

  function redraw() {
    if (!shown.length) return undefined;
    const [{ picture: first }] = shown;
    panel.show(first, [state.text, state.pair]);
    for (const { matrix, picture: each, means } of shown) {
      const view = { mode: state.show, of: state.of, rows: selected(each, "queries"), cols: selected(each, "keys") };
      matrix.show(each, view);
      replace(means, meaning(matrix, each));
    }
    if (token !== null && token >= first.tokens.labels.length) unpin();
    lightUp(token, token);
    const { matrix } = shown[0];
    const keys = new Set(selected(first, "keys"));
    const seen = selected(first, "queries").filter((at) => keys.has(at));
    replace(parse, state.arcs === "1" ? arcs(first, seen, (query, key) => matrix.bits(query, key)) : null);
    return showDetail();
  }

  function unpin() {
    token = null;
    pinned = false;
    state.token = "";
  }

  function point(query, key, click = false, at = 0) {
    if (query === null) return lightUp(pinned ? token : null, pinned ? token : null);
    const { top, left, size } = shown[at].picture.tile;
    if (click) which = at;
    if (click && query === key && !(inside(query, top, size) && inside(query, left, size))) {
      [token, pinned] = [query, true];
      change({ token: String(query) });
      return move(query - size / 2, query - size / 2);
    }
    if (click) {
      const same = pinned && token === query;
      token = same ? null : query;
      pinned = !same;
      change({ token: pinned ? String(token) : "" });
      showDetail();
    }
    lightUp(query, key, at);
  }

  function lightUp(query, key, at = 0) {
    const from = shown[at];
    if (!from) return;
    const { rows, cols } = from.matrix.view;
    panel.light(from.picture, query, rows, cols, (q, k) => from.matrix.bits(q, k));
    for (const { matrix } of shown) matrix.mark(query === null ? null : { query, key });
    for (const each of shown) each.readout.textContent = query === null ? HINT : readout(each, query, key);
  }

  function name(each, at) {
    return `‹${short(each.tokens.labels[at], 24)}›`;
  }

  function readout({ matrix, picture: each }, query, key) {
    if (query === key) return spoken(query, shown.findIndex((other) => other.picture === each));
    if (!matrix.view.rows.includes(query) || !matrix.view.cols.includes(key)) return "";
    const bits = matrix.bits(query, key);
    const kinds = kindsAt(each, bits);
    const why = kinds === null ? "may not attend to" : "may attend to";
    const found = causesAt(each, bits).map((cause) => `${cause.kind}, ${cause.pattern}`).join("; ");
    const because = kinds === null ? "" : `: ${found || "its own place"}`;
    return `${name(each, query)} ${why} ${name(each, key)}${because}${weights(each, matrix.index(query, key))}`;
  }

  function weights(each, index) {
    const told = ["dense", "plan"].filter((of) => each.weights[of]).map((of) =>
      `${each.weights[of][index].toFixed(3)} ${of === "dense" ? "as it is" : "under the plan"}`);
    return told.length ? `. Attention ${told.join(", ")}` : "";
  }

  function spoken(at, which = 0) {
    const from = shown[Math.max(0, which)];
    const { rows, cols } = from.matrix.view;
    const all = from.picture.tokens.labels.length;
    const of = (tokens, words) => `of ${tokens.length === all ? "" : "the "}${tokens.length} ${words}${tokens.length === all ? "" : " that are shown"}`;
    const told = [];
    if (rows.includes(at)) told.push(`may attend to ${cols.filter((key) => from.matrix.bits(at, key) & 128).length} ${of(cols, "keys")}`);
    if (cols.includes(at)) told.push(`${rows.filter((query) => from.matrix.bits(query, at) & 128).length} ${of(rows, "queries")} may attend to it`);
    return `Token ${at}, ${name(from.picture, at)}: ${told.join("; ") || "not in the part that is shown"}`;
  }

  function showDetail() {
    const at = token;
    const from = shown[which];
    if (!pinned || at === null) return replace(detail);
    const each = from.picture;
    const { rows, cols } = from.matrix.view;
    if (!rows.includes(at)) return replace(detail);
    const keys = cols.filter((key) => from.matrix.bits(at, key) & 128 || (each.weights.dense?.[from.matrix.index(at, key)] ?? 0) > 0.02);
    const lines = keys.map((key) => {
      const index = from.matrix.index(at, key);
      const kinds = kindsAt(each, from.matrix.bits(at, key));
      return [`${key} ${short(each.tokens.labels[key], 24)}`,
        kinds ? el("span", {}, kinds.map((kind) => chip(kind, kindOf(kind).name))) : "not kept",
        causesAt(each, from.matrix.bits(at, key)).map((cause) => cause.pattern).join("; "),
        each.weights.dense ? each.weights.dense[index].toFixed(3) : "–", each.weights.plan ? each.weights.plan[index].toFixed(3) : "–"];
    });
    const place = el("div", { class: "field-place" });
    replace(detail, el("h3", {}, spoken(at, which)),
      el("button", { type: "button", "aria-pressed": String(state.field === "1"), onclick: () => {
        change({ field: state.field === "1" ? "" : "1" });
        showDetail();
      } }, "Receptive field"), place,
      el("details", { open: true }, el("summary", {}, "Its keys, and those that the model looks at most"),
        table(`Keys of the chosen token under ${short(each.pattern, 80)}`, ["key", "kind", "rule", "attention as it is", "under the plan"], lines)));
    return showField(place, from.picture, at);
  }

  async function showField(place, each, at) {
    if (state.field !== "1") return;
    const heard = ask("reach", { ...request(which ? state.beside : state.plan), token: at });
    replace(place, await heard.then((found) => field(each, found), alarm));
  }

  // All boards beside each other, with what they are.
  function picture() {
    if (!shown.length) return null;
    const parts = shown.map(({ matrix, picture: each }) => [matrix.svg(), each]);
    const found = new Set(shown.flatMap(({ matrix, picture: each }) => kindsOf(matrix, each)));
    const wide = parts.map(([svg]) => Number(svg.getAttribute("width")));
    const high = Math.max(...parts.map(([svg]) => Number(svg.getAttribute("height"))));
    const width = Math.max(420, wide.reduce((sum, each) => sum + each + 16, 16));
    const kinds = [...found].map((kind) => [kindOf(kind).words, markOf(kind), colourOf(kind)]);
    const names = svgLegend(squares(parts[0][1]) ? [...kinds, [attentionOf(state.of), SQUARE, page().ink]] : kinds, width - 32);
    const height = high + 66 + names.height;
    const made = drawing(width, height);
    made.append(svgEl("rect", { width, height, fill: page().page }),
      svgEl("g", { transform: `translate(16 ${high + 58})` }, names.items));
    let x = 16;
    parts.forEach(([svg, each], at) => {
      made.append(svgEl("text", { x, y: 22, "font-size": 13, "font-weight": 600 }, short(each.pattern, Math.max(40, wide[at] / 7))));
      made.append(svgEl("text", { x, y: 38, "font-size": 11, fill: page().quiet },
        `layer ${each.layer}, head ${each.head}: sparsity ${percent(each.counts.head.sparsity)}`));
      svg.setAttribute("x", x);
      svg.setAttribute("y", 50);
      made.append(svg);
      x += wide[at] + 16;
    });
    return made;
  }

  return update();
}
