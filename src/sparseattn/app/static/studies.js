// Studies: arms against sparsity, declared contrasts, and the trials behind them.

import { addressOf } from "./address.js";
import { Rounds, ask } from "./api.js";
import { alarm, choice, el, labelled, percent, replace, short, svgEl, table } from "./dom.js";
import { drawing, markOf, onLook, page, svgLegend } from "./look.js";
import { MASKS } from "./masks.js";
import { offerSaving, saveSvg } from "./save.js";
import { planGrid, planLegend } from "./grid.js";

export const STUDIES = { study: "", off: "", placement: "", search: "", trial: "" };

const PLACEMENTS = ["random", "near", "parse", "similar", "segment", "global", "other"]; // marks of placements
const TICKS = [0, 20, 40, 50, 60, 70, 75, 80, 85, 90, 91, 92, 93, 94, 95, 96, 97, 98, 99, 99.5, 99.9];
const steps = (sparsity) => -Math.log(1 - Math.min(sparsity, 0.9999));

function ticksOf(low, high, most) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50].find((each) => (high - low) / each <= most) ?? 100;
  const first = Math.ceil(low / step);
  return Array.from({ length: Math.floor(high / step) - first + 1 }, (_, at) => Number(((first + at) * step).toFixed(2)));
}

export function studiesView(root, about, state, change) {
  state.study ||= about.studies[0] ?? "";
  const rounds = new Rounds(root);
  const head = el("div");
  const filters = el("div", { class: "controls" });
  const plot = el("div");
  const arms = el("div");
  const same = el("details", { hidden: true }, el("summary", {}, "The same as a table"), arms);
  const forest = el("div");
  const trial = el("section", { "aria-label": "The chosen trial", tabindex: "-1" });
  let study = null;
  let contrasts = null;

  const choose = about.studies.length > 1 ? labelled("Study", choice(about.studies, state.study, (value) => {
    change({ ...STUDIES, study: value });
    study = contrasts = null;
    same.hidden = true;
    [head, filters, plot, trial, arms, forest].forEach((each) => replace(each));
    update();
  })) : null;
  replace(root, el("h2", {}, "Studies"), choose, rounds.trouble, head, filters, plot, trial, same, forest);
  onLook(() => redraw());
  offerSaving("study", () => (study ? scatter(820) : null));

  function update() {
    return rounds.run(async (last) => {
      if (!about.studies.length) throw new Error("No study was named; start the explorer with its folder: sparseattn app runs/mine");
      const asked = { study: state.study };
      const found = await ask("study", asked);
      if (!last()) return;
      study = found;
      describe();
      redraw();
      if (state.trial) await showTrial(state.trial);
      const compared = await ask("contrasts", asked);
      if (!last()) return;
      contrasts = compared;
      redraw();
    });
  }

  function describe() {
    replace(head, el("p", {}, el("strong", {}, study.name), study.question ? ` — ${study.question}` : ""),
    study.missing ? el("p", { class: "note" }, study.missing) : null,
    study.hidden ? el("p", { class: "note" }, `${study.hidden} more arms are not shown.`) : null);
    const placements = placementsOf(study.arms);
    replace(filters, el("fieldset", { class: "families row" }, el("legend", {}, "Arms"), families().map((name) => {
      const box = el("input", { type: "checkbox", checked: !off().includes(name), onchange: (event) => {
        const rest = off().filter((each) => each !== name);
        change({ off: (event.target.checked ? rest : [...rest, name]).join("\n") });
        redraw();
      } });
      const dot = el("span", { class: "dot" });
      dot.style.borderColor = colour(name);
      dot.style.background = hollow(name) ? "transparent" : colour(name);
      return el("label", {}, box, dot, short(name, 40));
    })), el("div", { class: "row" },
      placements.length > 1 ? labelled("Layers", choice([["", "every placement"], ...placements], state.placement,
        (value) => { change({ placement: value }); redraw(); })) : null,
      labelled("Filter by name", el("input", { type: "search", value: state.search, oninput: (event) => { change({ search: event.target.value }); redraw(); } }))));
  }

  function families() {
    return [...new Set(study.arms.filter((arm) => arm.address !== study.baseline).map((arm) => arm.family))];
  }

  function off() {
    return state.off ? state.off.split("\n") : [];
  }

  function colour(family) {
    const series = page().series;
    return series[families().indexOf(family) % series.length] ?? page().ink;
  }

  // Families beyond the last colour have the same ones again, and hollow marks.
  function hollow(family) {
    return families().indexOf(family) >= page().series.length;
  }

  // Arms of one sparsity stand side by side: how far each family is moved, in pixels.
  function dodge(shown, room) {
    const present = families().filter((name) => shown.some((arm) => arm.family === name));
    const step = present.length > 2 ? Math.min(9, (0.14 * room) / present.length) : 0;
    return (arm) => step * (present.indexOf(arm.family) - (present.length - 1) / 2);
  }

  function visible(arm) {
    return arm.mean !== null && arm.address !== study.baseline && !off().includes(arm.family) &&
      (!state.placement || arm.placement === state.placement) && arm.words.toLowerCase().includes(state.search.toLowerCase());
  }

  function redraw() {
    if (!study) return;
    const room = Math.max(300, Math.min(820, plot.clientWidth || 820));
    replace(plot, scatter(room), el("p", { class: "note" }, "A mark is the mean over seeds, its bar the 95% interval where there are three or more; small dots are seeds; arms of one sparsity stand side by side. " +
      "The dashed line is the baseline, a band its interval. A click opens a trial."));
    same.hidden = false;
    replace(arms, armsTable());
    replace(forest, contrasts ? forests(room) : el("p", { class: "note" }, "The contrasts are being computed …"));
  }

  function value(number) {
    return number === null ? "–" : (study.scale === 100 ? (100 * number).toFixed(1) : number.toFixed(3));
  }

  function scatter(width) {
    const names = legendOf(width);
    const height = 400 + names.height;
    const edge = { left: 52, right: 16, top: 14, bottom: 46 + names.height };
    const colours = page();
    const shown = study.arms.filter((arm) => visible(arm) && arm.sparsity !== null);
    const base = study.arms.find((arm) => arm.address === study.baseline);
    const every = [...shown, ...(base ? [base] : [])];
    const made = drawing(width, height, { class: "plot", role: "group", "aria-label": `${study.metric} against sparsity, ${shown.length} arms; a table below has the numbers` });
    made.append(svgEl("rect", { width, height, fill: colours.page }));
    const values = every.flatMap((arm) => arm.trials.map((each) => each.value)).filter((each) => each !== null);
    if (!values.length) {
      made.append(svgEl("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no arm is shown"));
      return made;
    }
    const ends = every.flatMap((arm) => [arm.low, arm.high]).filter((each) => each !== null);
    const spread = Math.max(...values) - Math.min(...values) || 0.01;
    const low = Math.max(Math.min(...values, ...ends), Math.min(...values) - 0.4 * spread) - 0.05 * spread;
    const high = Math.min(Math.max(...values, ...ends), Math.max(...values) + 0.4 * spread) + 0.05 * spread;
    const places = shown.map((arm) => steps(arm.sparsity));
    const first = Math.max(-0.02, Math.min(...places, 5) - 0.15);
    const last = Math.max(...places, first + 0.4) + 0.15;
    const x = (sparsity) => edge.left + ((steps(sparsity) - first) / (last - first)) * (width - edge.left - edge.right);
    const y = (number) => edge.top + ((high - Math.max(low, Math.min(high, number))) / (high - low)) * (height - edge.top - edge.bottom);
    axes(made, { width, height, edge, low, high, first, last, x, y, colours });
    if (base) {
      if (base.low !== null) made.append(svgEl("rect", { x: edge.left, y: y(base.high), width: width - edge.left - edge.right, height: y(base.low) - y(base.high), fill: colours.ink, opacity: 0.08 }));
      made.append(svgEl("line", { x1: edge.left, x2: width - edge.right, y1: y(base.mean), y2: y(base.mean), stroke: colours.ink, "stroke-dasharray": "5 4" }),
        svgEl("text", { x: width - edge.right - 4, y: y(base.mean) - 5, "text-anchor": "end" }, `${base.name} ${value(base.mean)}`));
    }
    made.append(svgEl("g", { transform: `translate(${edge.left} ${height - names.height})` }, names.items));
    const side = dodge(shown, width - edge.left - edge.right);
    for (const cells of Map.groupBy(shown, (arm) => `${arm.line}\n${arm.placement}`).values()) {
      const sorted = [...cells].sort((a, b) => a.sparsity - b.sparsity);
      if (sorted.length > 1) made.append(svgEl("polyline", { points: sorted.map((arm) => `${x(arm.sparsity) + side(arm)},${y(arm.mean)}`).join(" "), fill: "none", stroke: colour(sorted[0].family), opacity: 0.6 }));
    }
    for (const arm of shown) {
      const paint = colour(arm.family);
      const at = x(arm.sparsity) + side(arm);
      if (arm.low !== null) made.append(svgEl("line", { x1: at, x2: at, y1: y(arm.low), y2: y(arm.high), stroke: paint, "stroke-width": 1.5 }));
      for (const each of arm.trials) {
        if (each.value === null) continue;
        made.append(svgEl("circle", { cx: at, cy: y(each.value), r: 3, fill: paint, opacity: 0.75, class: "seed", "data-digest": each.digest,
          onclick: () => open(each.digest) }, svgEl("title", {}, `${arm.words}, seed ${each.seed}: ${value(each.value)}`)));
      }
      const words = `${arm.words}: ${study.metric} ${value(arm.mean)}${arm.low === null ? "" : ` (${value(arm.low)} to ${value(arm.high)})`} at sparsity ${percent(arm.sparsity)}`;
      const done = arm.trials.find((each) => each.value !== null);
      const chosen = arm.trials.some((each) => each.digest === state.trial);
      made.append(svgEl("path", { d: shapeOf(arm.placement)(at - 6, y(arm.mean) - 6, 12, 12), fill: hollow(arm.family) ? colours.page : paint, stroke: chosen ? colours.ink : hollow(arm.family) ? paint : colours.page, "stroke-width": chosen || hollow(arm.family) ? 2.4 : 1.2,
        tabindex: "0", role: "button", "aria-label": words, class: "mark", "data-arm": arm.address,
        onclick: () => open(done.digest), onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(done.digest); } } },
      svgEl("title", {}, words)));
    }
    return made;
  }

  function placementsOf(arms) {
    return [...new Set(arms.map((arm) => arm.placement))].filter((each) => each !== "none");
  }

  function shapeOf(placement) {
    return markOf(PLACEMENTS[Math.max(0, placementsOf(study.arms).indexOf(placement)) % PLACEMENTS.length]);
  }

  // The families that are shown, and what shapes mean where there are several, in rows below the axes.
  function legendOf(width) {
    const shown = study.arms.filter(visible);
    const placements = placementsOf(study.arms).length > 1 ? placementsOf(shown) : [];
    const entries = [
      ...families().filter((family) => shown.some((arm) => arm.family === family)).map((name) => [short(name, 32), shapeOf(""), colour(name), hollow(name)]),
      ...placements.map((each) => [`layers: ${each}`, shapeOf(each), page().ink, true])];
    return svgLegend(entries, width - 68);
  }

  function axes(made, { width, height, edge, low, high, first, last, x, y, colours }) {
    for (const tick of ticksOf(study.scale * low, study.scale * high, 8)) {
      const at = y(tick / study.scale);
      made.append(svgEl("line", { x1: edge.left, x2: width - edge.right, y1: at, y2: at, stroke: colours.rule }),
        svgEl("text", { x: edge.left - 6, y: at + 4, "text-anchor": "end" }, String(tick)));
    }
    let before = -Infinity;
    for (const tick of TICKS) {
      const place = steps(tick / 100);
      const at = x(tick / 100);
      if (place < first || place > last || at - before < 46) continue;
      before = at;
      made.append(svgEl("line", { x1: at, x2: at, y1: height - edge.bottom, y2: height - edge.bottom + 4, stroke: colours.ink }),
        svgEl("text", { x: at, y: height - edge.bottom + 17, "text-anchor": "middle" }, String(tick)));
    }
    made.append(svgEl("text", { x: (edge.left + width - edge.right) / 2, y: height - edge.bottom + 38, "text-anchor": "middle" }, "sparsity in percent, log scale of what remains"),
      svgEl("text", { transform: `translate(13 ${(edge.top + height - edge.bottom) / 2}) rotate(-90)`, "text-anchor": "middle" }, study.scale === 100 ? `${study.metric}, percent` : study.metric));
  }

  function armsTable() {
    const rows = study.arms.filter((arm) => arm.address === study.baseline || visible(arm)).map((arm) => [arm.words, value(arm.mean),
      arm.low === null ? "–" : `${value(arm.low)} to ${value(arm.high)}`, percent(arm.sparsity),
      seedsOf(arm)]);
    return table(`${study.metric} of the arms that are shown`, ["arm", "mean", "95% interval", "sparsity", "seeds"], rows);
  }

  // A button for each trial of an arm.
  function seedsOf(arm) {
    return el("span", { class: "seeds" }, arm.trials.map((each) => el("button", { type: "button", "aria-label": `${arm.words}, seed ${each.seed}`,
      "aria-pressed": String(each.digest === state.trial), onclick: () => open(each.digest) }, `${each.seed}: ${value(each.value)}`)));
  }

  function forests(width) {
    const groups = [...contrasts.questions, ...(contrasts.baseline.length ? [{ text: `Each arm, or ${study.baseline}?`, answer: "", notes: [], comparisons: contrasts.baseline }] : [])];
    return [el("h3", {}, "Contrasts"), el("p", { class: "note" }, `Differences in ${study.metric}${study.scale === 100 ? ", in percentage points," : ""} with their 95% intervals. ` +
      `Filled: declared before the first trial; hollow: post hoc; grey: no difference was found.${contrasts.layers ? ` Layers: ${contrasts.layers}.` : ""}`), ...groups.map((group) => el("section", {}, el("h4", {}, group.text || "Declared comparisons"),
      group.answer ? el("p", {}, group.answer) : null, ...group.notes.map((note) => el("p", { class: "note" }, note)),
      savable(forestPlot(group.comparisons.filter((each) => matches(each)), width))))];
  }

  function savable(plot) {
    if (!plot.matches("svg")) return plot;
    return [plot, el("button", { type: "button", onclick: () => saveSvg("contrasts", plot) }, "Save these contrasts as SVG")];
  }

  // The same axis for all contrasts.
  function range() {
    const every = [...contrasts.questions.flatMap((each) => each.comparisons), ...contrasts.baseline];
    const known = every.flatMap((each) => [each.difference, each.low, each.high, 0]).filter((each) => each !== null && each !== undefined);
    return [Math.min(...known), Math.max(...known)];
  }

  function matches(each) {
    return `${each.a} ${each.b}`.toLowerCase().includes(state.search.toLowerCase());
  }

  function forestPlot(comparisons, width) {
    if (!comparisons.length) return el("p", { class: "note" }, "nothing is compared here");
    const colours = page();
    const narrow = width < 600;
    const row = narrow ? 54 : 40;
    const height = comparisons.length * row + 26;
    const [low, high] = range();
    const x = (number) => 12 + ((number - low) / (high - low || 1)) * (width - 24);
    const made = drawing(width, height, { class: "plot forest", "font-size": 11.5, role: "img",
      "aria-label": comparisons.map((each) => each.words).join(" ") });
    made.append(svgEl("rect", { width, height, fill: colours.page, class: "ground" }),
      svgEl("line", { x1: x(0), x2: x(0), y1: 14, y2: height - 20, stroke: colours.quiet }));
    for (const tick of ticksOf(low * study.scale, high * study.scale, width / 90)) {
      const at = x(tick / study.scale);
      if (tick) made.append(svgEl("line", { x1: at, x2: at, y1: 14, y2: height - 20, stroke: colours.rule }));
      made.append(svgEl("text", { x: Math.max(10, Math.min(width - 10, at)), y: height - 6, "text-anchor": "middle" }, `${tick > 0 ? "+" : ""}${tick}`.replace("-", "−")));
    }
    comparisons.forEach((each, at) => {
      const y = (at + 1) * row - 12;
      const paint = each.verdict === "none" ? colours.quiet : colours.series[0];
      const numbers = `${each.change}${each.asked === "declared" ? "" : ", post hoc"}, p ${each.probability}`;
      const over = { "paint-order": "stroke", stroke: colours.page, "stroke-width": 4 };
      made.append(svgEl("text", { x: 2, y: at * row + 15, ...over }, short(`${each.a} − ${each.b}`, Math.floor((narrow ? width : width - 150) / 6))),
        svgEl("text", { x: width - 2, y: y - 13, "text-anchor": "end", fill: colours.quiet, ...over }, numbers));
      if (each.low !== null) made.append(svgEl("line", { x1: x(each.low), x2: x(each.high), y1: y, y2: y, stroke: paint, "stroke-width": 2 }));
      made.append(svgEl("rect", { x: x(each.difference) - 4, y: y - 4, width: 8, height: 8, fill: each.asked === "declared" ? paint : colours.page, stroke: paint, "stroke-width": 2 }, svgEl("title", {}, each.words)));
    });
    return made;
  }

  function open(digest) {
    change({ trial: digest });
    redraw();
    showTrial(digest).then(() => trial.focus({ preventScroll: false }));
  }

  async function showTrial(digest) {
    replace(trial, el("p", { class: "note" }, "The trial is being read …"));
    try {
      const found = await ask("trial", { study: state.study, digest });
      replace(trial, ...drawTrial(found));
    } catch (error) {
      replace(trial, alarm(error));
    }
  }

  function masksOf(found, values) {
    return addressOf("masks", { model: found.model, plan: found.plan ?? "full()", ...values }, MASKS);
  }

  function drawTrial(found) {
    const { row, changed } = found;
    const all = changed.better + changed.worse + changed.other;
    const caption = all > changed.listed?.length ? `Changed examples: the ${changed.listed.length} of ${all} that changed most` : "Changed examples";
    const numbers = [[study.metric, value(row[study.metric])], ["sparsity", percent(row.sparsity)], ["keys a query", row.mean_degree?.toFixed(1) ?? "–"],
      ["training", row.seconds_train ? `${Math.round(row.seconds_train)} s` : "–"], ["status", row.reason ? `${row.status}: ${row.reason}` : row.status]];
    const arm = study.arms.find((each) => each.trials.some((other) => other.digest === found.digest));
    return [el("h3", {}, `${row.arm}, seed ${row.seed}`), el("p", { class: "code" }, short(row.pattern, 400)), arm ? el("p", {}, "Seeds: ", seedsOf(arm)) : null, el("p", { class: "note" }, numbers.map(([name, words]) => `${name} ${words}`).join(" · ")),
      found.grid ? planGrid(found.grid, null, (layer, head) => { location.hash = masksOf(found, { layer: String(layer), head: String(head) }); }) : null,
      found.grid ? planLegend(found.grid) : null,
      ...found.notices.map((notice) => el("p", { class: "note" }, notice)),
      changed.examples ? el("div", {}, el("h4", {}, "Examples that are predicted otherwise than by the dense trial of this seed"),
        el("p", {}, `Of ${changed.examples} examples ${changed.better} are better and ${changed.worse} worse${changed.other ? `, ${changed.other} different but no better` : ""}. ` +
          "Trained weights are not kept: Masks shows the pretrained model under this trial's plan."),
        table(caption, ["example", "text", "label", "dense", "here", "open in"], changed.listed.map((each) => [each.example,
          el("div", {}, each.texts.map((text) => el("blockquote", { dir: "auto" }, short(text, 220)))), short(each.label, 60), short(each.dense, 60),
          `${short(each.here, 60)}${each.gain > 0 ? " (better)" : each.gain < 0 ? " (worse)" : ""}`,
          each.texts.length ? el("a", { href: masksOf(found, { text: each.texts[0], pair: each.texts[1] ?? "" }), "aria-label": `Open example ${each.example} in Masks` }, "Masks") : ""]))) : null];
  }

  return update();
}
