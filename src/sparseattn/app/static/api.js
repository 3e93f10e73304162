// Questions to the server. A saved page holds the answers that it was saved with, and asks no one.

import { say, unsay } from "./dom.js";

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
  const ordered = Object.fromEntries(Object.entries(body).sort(([a], [b]) => (a < b ? -1 : 1)));
  const key = `${name} ${JSON.stringify(ordered)}`;
  if (!answers.has(key)) {
    if (SAVED) throw new Error(NO_MORE);
    answers.set(key, await fetched(name, ordered));
    if (answers.size > MOST) answers.delete(answers.keys().next().value);
  }
  used.set(key, answers.get(key));
  return answers.get(key);
}

async function fetched(name, body) {
  let response;
  const waiting = setTimeout(() => say("at work …", true), PATIENCE);
  try {
    response = await fetch(`api/${name}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  } catch {
    throw new Error("the explorer does not answer; is it still running in the terminal?");
  } finally {
    clearTimeout(waiting);
    unsay("at work …");
  }
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error ?? `status ${response.status}`);
  return answer;
}

// Numbers that came as base64 of their bytes.
export function bytes(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
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
