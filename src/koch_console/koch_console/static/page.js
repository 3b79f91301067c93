// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// What all parts of the page use: elements, the line that tells what came of a press, requests.

export const byId = (id) => document.getElementById(id);

/** Whether this browser may operate, or look only; the server refuses in any case. */
export const role = { operates: false };

/** An element with properties, attributes (`data-`, `aria-`) and children; texts are never HTML. */
export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-")) made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

let fading = 0;
export function toast(text, ok) {
  const place = byId("toast");
  place.textContent = text;
  // The recorder answers with the light of what it has saved: "red: cameras/above: 2 gap(s) ..."
  const light = ok ? /^(amber|red):/.exec(text)?.[1] : "bad";
  place.className = light ?? "";
  place.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { place.hidden = true; }, light ? 8000 : 3000);
}

/** What the server has at an address: `found`, or `problem`, the reason why there is nothing. */
export async function look(url) {
  try {
    const answer = await fetch(url);
    return answer.ok ? { found: await answer.json() } : { problem: (await answer.text()).trim() || "It failed." };
  } catch {
    return { problem: "There is no connection." };
  }
}

const AGAIN_MS = 3000;

/** A place of the page that is filled from the server, each time that `fill` is called. */
export class Place {
  #looks = 0;
  #again = 0;

  constructor(fill) { this.fill = fill; }

  /** As `look`, but null where a later look has begun meanwhile: answers overtake each other. */
  async look(url) {
    const mine = ++this.#looks;
    clearTimeout(this.#again);
    const answer = await look(url);
    if (mine !== this.#looks) return null;
    if (answer.problem) this.#again = setTimeout(this.fill, AGAIN_MS); // or it would stay empty
    return answer;
  }
}

/** Ask for something with JSON; what is answered, or null after saying why there is nothing. */
export async function post(url, body) {
  try {
    const answer = await fetch(url, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    if (answer.ok) return await answer.json();
    toast((await answer.text()).trim() || "It failed.", false);
  } catch {
    toast("There is no connection.", false);
  }
  return null;
}
