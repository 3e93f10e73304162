// Questions to the server. A saved page holds the answers that it was saved with, and asks no one.

import { alarm, say, unsay } from "./dom.js";

const stored = document.getElementById("saved");
export const SAVED = stored ? JSON.parse(stored.textContent) : null;

export const NO_MORE = "this saved page holds what was shown when it was saved; the explorer shows more";

const MOST = 60;
const PATIENCE = 1000; // ms without an answer until a reader is told
const answers = new Map(SAVED ? Object.entries(SAVED.answers) : []);
let used = new Map();

export function beginUse() {
  used = new Map();
}

export function usedAnswers() {
  return Object.fromEntries(used);
}

export async function ask(name, body = {}) {
  const key = `${name} ${JSON.stringify(body)}`;
  if (!answers.has(key)) {
    if (SAVED) throw new Error(NO_MORE);
    answers.set(key, await fetched(name, body));
    if (answers.size > MOST) answers.delete(answers.keys().next().value);
  }
  used.set(key, answers.get(key));
  return answers.get(key);
}

async function fetched(name, body) {
  const waiting = setTimeout(() => say("at work …", true), PATIENCE);
  try {
    const headers = { "content-type": "application/json" };
    const response = await request(`api/${name}`, { method: "POST", headers, body: JSON.stringify(body) });
    const answer = await response.json();
    if (answer.error) throw new Error(answer.error);
    return answer;
  } finally {
    clearTimeout(waiting);
    unsay("at work …");
  }
}

export function request(path, options) {
  return fetch(path, options).catch(() => {
    throw new Error("the explorer does not answer; is it still running in the terminal?");
  });
}

// The work of a view, of which the last round alone counts: the view is busy until it is done.
export class Rounds {
  constructor(root) {
    this.root = root;
    this.trouble = alarm(); // what is wrong, in words
    this.now = 0;
  }

  begin() {
    this.root.setAttribute("aria-busy", "true");
    return ++this.now;
  }

  // `work` is told how to find out whether it is still the last.
  async run(work) {
    const mine = this.begin();
    const last = () => mine === this.now;
    let wrong = "";
    try {
      await work(last);
    } catch (error) {
      wrong = error.message;
    }
    if (!last()) return;
    this.trouble.textContent = wrong;
    this.root.setAttribute("aria-busy", "false");
  }
}

// Numbers that came as base64 of their bytes.
export function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

const pictures = new WeakMap(); // not in the answers themselves, which are saved

// An answer of `masks`, with its pairs as `bits` and attention as `weights.dense` and `weights.plan`.
export function unpacked(answer) {
  if (!pictures.has(answer)) pictures.set(answer, { ...answer, bits: bytes(answer.mask), weights: weightsOf(answer) });
  return pictures.get(answer);
}

function weightsOf(answer) {
  const weights = {};
  for (const of of ["dense", "plan"]) {
    if (!answer.attention[of]) continue;
    const packed = new Uint16Array(bytes(answer.attention[of]).buffer);
    const shares = new Float32Array(packed.length);
    for (let at = 0; at < packed.length; at++) shares[at] = packed[at] / 65535;
    weights[of] = shares;
  }
  return weights;
}
