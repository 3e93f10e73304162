// Heads: what each one attends to, and where in a corpus it does so most.

import { addressOf } from "./address.js";
import { Rounds, ask, unpacked } from "./api.js";
import { alarm, choice, debounced, el, labelled, modelChoice, percent, region, replace, short, svgEl, table } from "./dom.js";
import { headsTable } from "./grid.js";
import { attentionChip, chip, colourOf, drawing, kindOf, legend, luminance, mixed, onLook, page, rgb, variable } from "./look.js";
import { MASKS } from "./masks.js";
import { Matrix } from "./matrix.js";
import { offerSaving } from "./save.js";

export const HEADS = {
  model: "", source: "", own: "", kind: "similar", order: "most", layer: "", head: "", plan: "", place: "",
  typed: "A cat sat on the mat. The cat was black.\nThe committee said on Monday that it would not meet.\n" +
    "Rain fell all night.\tIt rained until the morning.",
};

// Kinds of this view that are none of a pattern: what is left, and one's own.
const LOOKS = { far: "dense", own: "other" };
const look = (kind) => LOOKS[kind] ?? kind;

export function headsView(root, about, state, change) {
  const sources = [...about.studies.map((name) => [`study:${name}`, `evaluation texts of ${name}`]),
    ...about.texts.map((name) => [`file:${name}`, name]), ["typed", "texts typed here"]];
  state.source ||= sources[0][0];
  const rounds = new Rounds(root);
  const result = el("div", { class: "wait" });
  const detail = el("section", { "aria-label": "The chosen head" });
  const typed = el("div", { class: "wide" });
  let probed = null;

  // What is typed is used, and stands in the address, when the typing has stopped.
  const typing = (name, then) => {
    const later = debounced((value) => { change({ [name]: value }); then(); }, 500);
    return (event) => later(event.target.value);
  };
  replace(root, el("h2", {}, "Heads"),
    el("form", { class: "controls", onsubmit: (event) => { event.preventDefault(); update(); } },
      el("div", { class: "row" },
        modelChoice(about, state.model, (value) => { change({ model: value }); update(); }),
        labelled("Texts", choice(sources, state.source, (value) => { change({ source: value, place: "" }); offerTyping(); update(); }))),
      typed,
      labelled("A pattern of your own to probe", el("input", { type: "text", class: "code", value: state.own, oninput: typing("own", update) }),
        "such as similarity(k=1) - sentence()"),
      labelled("Plan to compare with", el("textarea", { rows: 2, class: "code", value: state.plan, spellcheck: "false",
        oninput: typing("plan", showHead) }), "what it keeps of the chosen head")),
    rounds.trouble, result, detail);
  offerTyping();
  onLook(() => { redraw(); showHead(); });
  offerSaving("heads", () => (probed ? heat(kindNow()) : null));

  function offerTyping() {
    replace(typed, state.source === "typed" ? labelled("Texts, one a line; a tab between the two of a pair",
      el("textarea", { rows: 4, value: state.typed, oninput: typing("typed", update) })) : null);
  }

  function request() {
    const source = state.source === "typed" ? `typed:${state.typed}` : state.source;
    return { model: state.model, source, own: state.own };
  }

  function update() {
    return rounds.run(async (last) => {
      const answer = await ask("heads", request());
      if (!last()) return;
      probed = answer;
      redraw();
      await showHead();
    });
  }

  function kindNow() {
    return probed.kinds.find((each) => each.kind === state.kind) ?? probed.kinds[0];
  }

  function redraw() {
    if (!probed) return;
    const now = kindNow();
    replace(result, el("p", {}, `Share of attention on each kind of pair, averaged over the tokens that have such a pair: ` +
      `${probed.texts} texts, ${probed.tokens.toLocaleString("en")} tokens, the model as it is. A pair may be of several kinds; far is what is of none. ` +
      "Choose a head to see the texts where it attends most to a kind."),
    probed.notices.map((notice) => el("p", { class: "note" }, notice)),
    el("div", { class: "split" },
      el("div", {}, labelled("Colour by", choice(probed.kinds.map((each) => [each.kind, `${each.kind}: ${short(each.pattern, 50)}`]), now.kind,
        (value) => { change({ kind: value }); redraw(); showHead(); })), heatTable(now)),
      ranking(now)));
  }

  function chosen(layer, head) {
    return state.layer === String(layer) && state.head === String(head);
  }

  function pick(layer, head) {
    change({ layer: String(layer), head: String(head), place: "" });
    redraw();
    showHead();
  }

  function strength(now, value) {
    const most = Math.max(0.01, ...now.mass.flat().filter((each) => each !== null));
    return value === null ? 0 : value / most;
  }

  function paint(now, value) {
    const ground = mixed(page().page, colourOf(look(now.kind)), 0.85 * strength(now, value));
    return [rgb(ground), luminance(ground) > 0.179 ? "#000" : "#fff"];
  }

  function heatTable(now) {
    const caption = `Percent of attention on pairs of ${short(now.pattern, 70)}; uniform attention: ${percent(now.uniform[0])} in layer 0`;
    return headsTable("Layers by heads", caption, now.mass, (value) => {
      const [background, color] = paint(now, value);
      return [`${percent(value)} on ${now.kind}`, value === null ? "–" : String(Math.round(100 * value)), { background, color }];
    }, [state.layer, state.head], pick);
  }

  function allHeads() {
    return probed.kinds[0].mass.flatMap((row, layer) => row.map((_, head) => ({
      layer, head, shares: probed.kinds.map((each) => each.mass[layer][head]) })));
  }

  function ordered(now) {
    const every = allHeads();
    const at = probed.kinds.indexOf(now);
    if (state.order === "place") return every;
    every.sort((a, b) => (b.shares[at] ?? -1) - (a.shares[at] ?? -1));
    return state.order === "alike" ? alike(every) : every;
  }

  function ranking(now) {
    const heads = ["head", ...probed.kinds.map((each) => each.kind), "mixture"];
    const by = state.order === "most" ? now.kind : state.order === "place" ? "head" : "mixture";
    const cells = heads.map((name) => el("th", { scope: "col", "aria-sort": name === by ? (name === "head" ? "ascending" : "descending") : null },
      el("button", { type: "button", onclick: () => {
        change(name === "head" ? { order: "place" } : name === "mixture" ? { order: "alike" } : { order: "most", kind: name });
        redraw();
        showHead();
      } }, name)));
    const rows = ordered(now).map(({ layer, head, shares: own }) => el("tr", {},
      el("th", { scope: "row" }, el("button", { type: "button", "aria-pressed": String(chosen(layer, head)), onclick: () => pick(layer, head) }, `${layer}.${head}`)),
      own.map((value) => el("td", {}, percent(value, 0))), el("td", {}, bar(own))));
    return el("div", {}, el("ul", { class: "legend" }, probed.kinds.map((each) => el("li", {}, chip(look(each.kind), each.kind)))),
      region("All heads", el("table", { class: "ranking" }, el("caption", {}, "Every head, as layer.head. A heading sorts; mixture puts like heads beside each other"),
        el("thead", {}, el("tr", {}, cells)), el("tbody", {}, rows)), "scroll tall"));
  }

  // Shares side by side; kinds overlap, so that they need not add up to one.
  function bar(own) {
    const sum = Math.max(1, own.reduce((total, value) => total + (value ?? 0), 0));
    let x = 0;
    return svgEl("svg", { width: 120, height: 12, "aria-hidden": "true" }, own.map((value, at) => {
      const width = (120 * (value ?? 0)) / sum;
      x += width;
      return svgEl("rect", { x: x - width, width, height: 12, fill: variable(look(probed.kinds[at].kind)) });
    }));
  }

  let heading = 0;
  async function showHead() {
    if (!probed || state.layer === "" || state.head === "") return void replace(detail);
    const mine = ++heading;
    const at = { layer: Number(state.layer), head: Number(state.head) };
    try {
      const found = await ask("texts", { ...request(), ...at, kind: kindNow().kind });
      if (mine !== heading) return;
      const place = found.texts.find((each) => String(each.place) === state.place) ?? found.texts[0];
      const pictures = place ? el("div", { class: "boards" }) : null;
      const list = found.texts.map((each) => [percent(each.share),
        el("button", { type: "button", "aria-pressed": String(each === place), onclick: () => {
          change({ place: String(each.place) });
          showHead();
        } }, short(each.text.join(" / "), 110))]);
      replace(detail, el("h3", {}, `Layer ${found.layer}, head ${found.head}: where it attends most to ${found.kind} pairs`),
        table("Texts with the largest share", ["share", "text"], list), pictures);
      if (place) await boards(pictures, at, place.text).catch((error) => replace(pictures, alarm(error)));
    } catch (error) {
      if (mine === heading) replace(detail, alarm(error));
    }
  }

  async function boards(into, at, [text, pair]) {
    const asking = { model: state.model, text, pair: pair ?? "", ...at, top: 0, left: 0 };
    const plans = state.plan.trim() ? ["full()", state.plan] : ["full()"];
    const answers = [];
    for (const plan of plans) answers.push(unpacked(await ask("masks", { ...asking, plan })));
    const draws = [];
    for (const [which, answer] of answers.entries()) {
      const readout = el("p", { class: "readout" });
      const matrix = new Matrix(which ? `What the plan keeps: ${answer.pattern}` : "Attention of the head", (query, key) => {
        matrix.mark(query === null ? null : { query, key });
        const { labels } = answer.tokens;
        readout.textContent = query === null ? "" : `‹${short(labels[query], 20)}› to ‹${short(labels[key], 20)}›: ` +
          `${matrix.bits(query, key) ? "" : "not kept, "}attention ${matrix.weight(query, key).toFixed(3)}`;
      });
      const tokens = Array.from({ length: answer.tile.size }, (_, token) => token);
      const link = addressOf("masks", { model: state.model, text, pair: pair ?? "", plan: plans[which], layer: state.layer, head: state.head }, MASKS);
      const share = which ? keptMass(answer) : null;
      const where = answer.map ? "the part that is shown" : "this text";
      into.append(el("figure", { class: "board-box" }, el("figcaption", {}, which ? `What the plan keeps: ${answer.pattern}` : "Its attention, the model as it is: the larger a square, the more",
        " ", el("a", { href: link }, "open in Masks")), matrix.node, readout, [answer.attention.why ?? [], share === null ? [] : `The plan keeps ${percent(share)} of this head's attention in ${where}.`].flat().map((words) => el("p", { class: "note" }, words)),
      which ? legend([...new Set(answer.causes.map((cause) => cause.kind))].map((kind) => chip(kind)).concat(attentionChip("dense"))) : null));
      draws.push(() => matrix.show(answer, { mode: which ? "both" : "attention", of: "dense", rows: tokens, cols: tokens }));
    }
    // Once all are there, since they share the width.
    draws.forEach((draw) => draw());
  }

  function heat(now) {
    const cell = 30;
    const left = 60;
    const width = left + now.mass[0].length * cell + 10;
    const height = 60 + now.mass.length * cell;
    const made = drawing(width, height, { role: "img", "aria-label": `Percent of attention on ${now.pattern}` });
    made.append(svgEl("rect", { width, height, fill: page().page }),
      svgEl("text", { x: 4, y: 16, "font-weight": 600 }, `${kindOf(look(now.kind)).name === now.kind ? kindOf(now.kind).words : now.kind}: percent of attention on ${short(now.pattern, 40)}`));
    now.mass[0].forEach((_, head) => made.append(svgEl("text", { x: left + (head + 0.5) * cell, y: 40, "text-anchor": "middle" }, String(head))));
    now.mass.forEach((row, layer) => {
      const y = 46 + layer * cell;
      made.append(svgEl("text", { x: left - 8, y: y + 19, "text-anchor": "end" }, `layer ${layer}`));
      row.forEach((value, head) => {
        const [ground, ink] = paint(now, value);
        made.append(svgEl("rect", { x: left + head * cell + 1, y: y + 1, width: cell - 2, height: cell - 2, fill: ground, stroke: page().rule }),
          svgEl("text", { x: left + (head + 0.5) * cell, y: y + 19, "text-anchor": "middle", fill: ink }, value === null ? "–" : String(Math.round(100 * value))));
      });
    });
    return made;
  }

  return update();
}

// Each head beside the one that is most like it, of those that are left.
function alike(heads) {
  const left = [...heads];
  const chain = [left.shift()];
  while (left.length) {
    const last = chain.at(-1).shares;
    const apart = left.map((each) => each.shares.reduce((sum, value, at) => sum + ((value ?? 0) - (last[at] ?? 0)) ** 2, 0));
    chain.push(left.splice(apart.indexOf(Math.min(...apart)), 1)[0]);
  }
  return chain;
}

function keptMass(answer) {
  const weights = answer.weights.dense;
  if (!weights) return null;
  let kept = 0;
  let all = 0;
  answer.bits.forEach((bits, at) => {
    all += weights[at];
    if (bits & 128) kept += weights[at];
  });
  return all ? kept / all : null;
}
