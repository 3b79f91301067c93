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
  place.className = ok ? "" : "bad";
  place.hidden = false;
  clearTimeout(fading);
  fading = setTimeout(() => { place.hidden = true; }, ok ? 3000 : 8000);
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
