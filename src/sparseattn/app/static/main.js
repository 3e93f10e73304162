// Which view is shown, and the address that brings it back.

import { addressOf, read } from "./address.js";
import { NO_MORE, SAVED, ask, beginUse } from "./api.js";
import { alarm, el, replace, say } from "./dom.js";
import { forgetRedraws, setPalette } from "./look.js";
import { HEADS, headsView } from "./heads.js";
import { MASKS, masksView } from "./masks.js";
import { STUDIES, studiesView } from "./studies.js";

const VIEWS = {
  masks: ["Masks", masksView, MASKS],
  heads: ["Heads", headsView, HEADS],
  studies: ["Studies", studiesView, STUDIES],
};

let current = SAVED ? SAVED.hash : null; // the address of what is shown
let shown = 0;

async function show(about, hash) {
  const mine = ++shown;
  current = hash;
  const [asked, given] = read(hash);
  const view = asked in VIEWS ? asked : about.studies.length ? "studies" : "masks";
  const [title, draw, defaults] = VIEWS[view];
  beginUse();
  await ask("about");
  forgetRedraws();
  const root = document.getElementById("view");
  document.title = `${title} – sparseattn`;
  replace(document.getElementById("views"), SAVED ? el("span", {}, title) : Object.entries(VIEWS).map(([name, [words]]) =>
    el("a", { href: `#${name}`, "aria-current": name === view ? "page" : null }, words)));
  const state = { ...defaults, model: about.models[0] ?? "", ...given };
  const change = (values) => {
    Object.assign(state, values);
    if (SAVED || mine !== shown) return; // a view that is left may still be at work
    current = addressOf(view, state, defaults);
    history.replaceState(null, "", current);
  };
  root.dataset.view = view;
  await draw(root, about, state, change);
  root.dataset.ready = String(Number(root.dataset.ready ?? 0) + 1);
}

async function start() {
  const root = document.getElementById("view");
  try {
    const about = await ask("about");
    setPalette(about.palette);
    window.addEventListener("hashchange", () => {
      if (SAVED) say(location.hash === "#view" ? "" : NO_MORE);
      else if (location.hash === "#view") history.replaceState(null, "", current); // the skip link has moved the focus
      else if (location.hash !== current) show(about, location.hash).catch(trouble);
    });
    await show(about, current ?? location.hash);
  } catch (error) {
    trouble(error);
  }
  function trouble(error) {
    replace(root, alarm(error));
  }
}

start();
