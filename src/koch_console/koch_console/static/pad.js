// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// The pad: buttons that move a follower's hand while they are pressed, through its jog node.

import { byId, element } from "./page.js";

const PERIOD_MS = 60; // the server and the jog node let the hand rest after 300
const KEYS = [
  ["Left", "y", 1], ["Forward", "x", 1], ["Right", "y", -1], ["Up", "z", 1],
  ["Roll left", "roll", -1], ["Back", "x", -1], ["Roll right", "roll", 1], ["Down", "z", -1],
  ["Pitch up", "pitch", 1], ["Pitch down", "pitch", -1], ["Open", "gripper", 1], ["Close", "gripper", -1],
];
const SPEEDS = [["slow", 0.25], ["medium", 0.5], ["fast", 1]];

const held = new Map(); // pointer -> its key, and where that was when it was pressed
let driven = ""; // the arm of those buttons
let ticking = 0;
let send = () => false;

/** How a word reaches the server: a function that returns whether it was sent. */
export function sendPadBy(sender) { send = sender; }

export function buildPad(arm) {
  const speed = element("select", { className: "speed" }, ...SPEEDS.map(([text, share]) =>
    element("option", { textContent: text, value: share, selected: share === 0.5 })));
  return element("div", { className: "pad none", "data-arm": arm },
    element("div", { className: "facts said" }),
    element("div", { className: "driving", hidden: true },
      element("div", { className: "row" }, element("label", {}, "Move the hand while pressed ", speed)),
      element("div", { className: "keys" }, ...KEYS.map((key) => padKey(arm, ...key)))));
}

function padKey(arm, text, axis, way) {
  const key = element("button", { textContent: text, "data-operate": "", "data-axis": axis, "data-way": way });
  key.addEventListener("pointerdown", (event) => press(event, arm, key));
  key.addEventListener("pointermove", slide);
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) key.addEventListener(name, (event) => release(event.pointerId));
  key.addEventListener("contextmenu", (event) => event.preventDefault()); // a long touch is no menu
  return key;
}

function press(event, arm, key) {
  if (event.button !== 0 || key.disabled || (held.size && driven !== arm)) return;
  // Captured, and measured now: a key that the page shifts under a still finger stays pressed.
  key.setPointerCapture(event.pointerId);
  driven = arm;
  held.set(event.pointerId, { key, edge: key.getBoundingClientRect() });
  key.classList.add("held");
  ticking ||= setInterval(tick, PERIOD_MS);
  tick();
}

/** A finger that slides off the key lets go. */
function slide(event) {
  const edge = held.get(event.pointerId)?.edge;
  if (!edge) return;
  const isOn = event.clientX >= edge.left && event.clientX <= edge.right && event.clientY >= edge.top && event.clientY <= edge.bottom;
  if (!isOn || !(event.buttons & 1)) release(event.pointerId);
}

function release(pointer) {
  if (!held.has(pointer)) return;
  const { key } = held.get(pointer);
  held.delete(pointer);
  if (!keys().includes(key)) key.classList.remove("held");
  if (held.size) tick();
  else letGo();
}

const keys = () => [...held.values()].map(({ key }) => key);

function tick() {
  // Who drives must see the arm: not on another tab, nor where the state is old.
  const isBlind = byId("live").hidden || document.body.classList.contains("lost");
  if (isBlind || keys().some((key) => key.disabled || !key.offsetParent)) { letGo(); return; }
  const speed = Number(document.querySelector(`.pad[data-arm="${CSS.escape(driven)}"] .speed`).value);
  const word = { arm: driven };
  for (const key of new Set(keys())) word[key.dataset.axis] = (word[key.dataset.axis] ?? 0) + speed * Number(key.dataset.way);
  if (!send(word)) letGo();
}

/** End every press; the hand rests. */
export function letGo() {
  if (!ticking) return;
  clearInterval(ticking);
  ticking = 0;
  for (const key of keys()) key.classList.remove("held");
  held.clear();
  send({ arm: driven });
}

addEventListener("blur", letGo);
addEventListener("pagehide", letGo);
document.addEventListener("visibilitychange", () => { if (document.hidden) letGo(); });

/** Show each pad where a jog node runs, with what that node says and who else drives. */
export function drawPads(pads, holder) {
  for (const [arm, said] of Object.entries(pads)) {
    const pad = document.querySelector(`.pad[data-arm="${CSS.escape(arm)}"]`);
    if (!pad) continue;
    const runs = said !== null;
    pad.classList.toggle("none", !runs);
    pad.querySelector(".driving").hidden = !runs;
    const text = holder ? `The page at ${holder} holds the pad.` : said;
    const place = pad.querySelector(".said");
    place.title = text ?? "";
    place.textContent = runs ? text : "To move the hand from here, without a leader: koch up --jog.";
  }
}
