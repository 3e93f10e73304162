// What is shown, as files: an SVG picture, or a page that holds everything itself.

import { SAVED, request, usedAnswers } from "./api.js";
import { el, replace, say } from "./dom.js";

function download(name, content, type) {
  const link = el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

export function saveSvg(name, node) {
  const copy = node.cloneNode(true);
  copy.setAttribute("xmlns", "http://www.w3.org/2000/svg");
  const text = new XMLSerializer().serializeToString(copy);
  download(`${name}.svg`, `<?xml version="1.0" encoding="UTF-8"?>\n${text}\n`, "image/svg+xml");
}

async function savePage(name) {
  const page = await (await request("saved.html")).text();
  const saved = JSON.stringify({ hash: location.hash, answers: usedAnswers() }).replaceAll("<", "\\u003c");
  download(`${name}.html`, page.replace("SAVED", () => saved), "text/html");
  say("saved a page that opens without the explorer");
}

// `picture` makes the SVG element of the present view.
export function offerSaving(name, picture) {
  const button = (words, onclick) => el("button", { type: "button", onclick }, words);
  replace(document.getElementById("saving"),
    button("Save SVG", () => {
      const made = picture();
      if (made) saveSvg(name, made);
      else say("there is nothing to save yet");
    }),
    SAVED ? null : button("Save HTML", () => savePage(name).catch((error) => say(error.message))));
}
