// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// The page: one WebSocket brings the state and takes the requests; panels draw what has changed.

import { draw as drawLive, build as buildLive, drawLoaded, examine, fillPicks } from "./live.js";
import { beginHere, endHere, heardOfEdits, heardOfJobs, hideEpisodes, showEpisodes } from "./episodes.js";
import { letGo, sendPadBy } from "./pad.js";
import { byId, role, toast } from "./page.js";
import { drawJobs, showRuns } from "./training.js";

const state = {};
let socket = null;
let asked = 0;
const waiting = new Map(); // id of a request -> its name and button
const OLD_MS = 3000; // the server says each second that it is alive
const STOP_MS = 5000; // the server gives a stop three seconds
let aliveAt = 0;

function connect() {
  const scheme = location.protocol === "https:" ? "wss" : "ws";
  socket = new WebSocket(`${scheme}://${location.host}/socket`);
  socket.onmessage = (event) => receive(JSON.parse(event.data));
  socket.onclose = () => {
    // What was shown is no longer true: say so, and keep trying.
    link("not connected", "red");
    document.body.classList.add("lost");
    // A stop last: its text is the one that stays.
    const lost = [...waiting].sort(([, a], [, b]) => (a.name === "stop") - (b.name === "stop"));
    for (const [id, { name }] of lost) unanswered(id, name, "The connection was lost.");
    setTimeout(connect, 1000);
  };
}

function receive(message) {
  if ("answer" in message) answered(message);
  else if (message.hello) greet(message.hello);
  else {
    const { log, ...sections } = message;
    Object.assign(state, sections);
    if ("alive" in sections) revive();
    drawLive(state, sections, log ?? []);
    if (sections.joints || "ghost" in sections) moveView();
    if (sections.work) drawWork(sections.work);
  }
}

let jobs = "";
function drawWork(work) {
  heardOfEdits(work.edited);
  drawLoaded(work.policy);
  const now = JSON.stringify(work.jobs);
  if (now === jobs) return;
  jobs = now;
  if (!byId("training").hidden) drawJobs();
  heardOfJobs();
  fillPicks(); // a training may have saved
}

function revive() {
  aliveAt = performance.now();
  if (!document.body.classList.contains("lost")) return;
  document.body.classList.remove("lost");
  linked();
}

// The connection may be open while nothing comes: the server hangs, or the network is gone.
setInterval(() => {
  if (socket.readyState !== WebSocket.OPEN || performance.now() - aliveAt < OLD_MS) return;
  document.body.classList.add("lost");
  link("state is old", "red");
}, 500);

function linked() {
  link(role.operates ? "connected" : "looking only", role.operates ? "green" : "amber");
}

function greet(hello) {
  aliveAt = performance.now();
  document.body.classList.remove("lost");
  byId("log").replaceChildren(); // the server sends all of it again
  const known = state.hello && JSON.stringify(state.hello) === JSON.stringify(hello);
  state.hello = hello;
  role.operates = hello.role === "operate";
  linked();
  if (!known) buildLive(hello);
  jobs = ""; // what came while there was no connection is new
  openTab(document.querySelector("[data-tab][aria-current]").dataset.tab); // its lists may be old
  setTimeout(openView, 200);
  fillPicks();
  // What the doctor finds costs seconds of the computer: not while an episode is being recorded.
  if (!known && role.operates) setTimeout(() => { if (state.episode?.phase !== "recording") examine(false); }, 3000);
  for (const button of document.querySelectorAll("[data-do], [data-operate], #stop")) button.disabled = !role.operates;
}

// -- 3D view -------------------------------------------------------------------------------------

let view = null;
async function openView() {
  if (view) return;
  view = "loading";
  try {
    // Late: the page and its STOP are there before the largest file is.
    const [{ View3d }, scene] = await Promise.all([import("./view3d.js"), fetch("/scene").then((answer) => answer.json())]);
    byId("view3d").replaceChildren(); // of a failure before
    view = new View3d(byId("view3d"), scene);
    moveView();
  } catch (error) {
    view = null; // the next connection tries again
    byId("view3d").textContent = `No 3D view here: ${error.message}`;
  }
}

function moveView() {
  if (!view?.show || byId("live").hidden) return;
  const angles = Object.fromEntries(Object.entries(state.joints ?? {}).map(([arm, joints]) => [arm, joints.measured]));
  view.show(angles, state.ghost);
}

// -- tabs ----------------------------------------------------------------------------------------

function openTab(name) {
  for (const button of document.querySelectorAll("[data-tab]")) {
    const isIt = button.dataset.tab === name;
    button.toggleAttribute("aria-current", isIt);
    byId(button.dataset.tab).hidden = !isIt;
  }
  // A browser opens six connections to a server at most: images that nobody sees give theirs back.
  for (const image of document.querySelectorAll("figure img")) {
    if (name === "live") image.src = `${image.dataset.src}?${Date.now()}`;
    else image.removeAttribute("src");
  }
  if (name === "episodes") showEpisodes();
  else hideEpisodes();
  if (name === "training") showRuns();
}

byId("tabs").addEventListener("click", (event) => {
  const tab = event.target.closest("[data-tab]")?.dataset.tab;
  if (tab) openTab(tab);
});

function link(text, light) {
  const pill = byId("link");
  pill.textContent = text;
  pill.className = `pill ${light}`;
}

// -- requests ------------------------------------------------------------------------------------

export function ask(name, values = {}, button = null) {
  if (!socket || socket.readyState !== WebSocket.OPEN) {
    toast(name === "stop" ? "NOT STOPPED: no connection. Cut the power." : "There is no connection.", false);
    return;
  }
  if (name === "stop") letGo();
  const id = ++asked;
  waiting.set(id, { name, button });
  if (button) button.setAttribute("aria-busy", "true");
  socket.send(JSON.stringify({ id, do: name, with: values }));
  if (name === "stop") setTimeout(() => { if (waiting.has(id)) unanswered(id, name, "The console does not answer."); }, STOP_MS);
}

// What a dying connection would keep and send late counts no more at the server, but it fills up.
const MOST_KEPT = 1000;
sendPadBy((word) => {
  if (socket.readyState !== WebSocket.OPEN || socket.bufferedAmount > MOST_KEPT) return false;
  socket.send(JSON.stringify({ pad: word }));
  return true;
});

function unanswered(id, name, why) {
  answered({ answer: id, ok: false, text: name === "stop" ? `PERHAPS NOT STOPPED: ${why} Cut the power.` : why });
}

function answered({ answer, ok, text }) {
  if (answer === null) letGo(); // the server has ended the press, or takes none
  waiting.get(answer)?.button?.removeAttribute("aria-busy");
  waiting.delete(answer);
  toast(text || (ok ? "Done." : "It failed."), ok);
}

// What the fields add to a request, by its name.
const FIELDS = {
  "record.start": recording,
  "record.redo": recording,
  "policy.run": () => ({ task: byId("instruction").value.trim() }),
};

function recording() {
  return { task: byId("task").value.trim(), duration_s: Number(byId("duration").value) || 0 };
}

function press(button) {
  const name = button.dataset.do;
  ask(name, { ...JSON.parse(button.dataset.with ?? "{}"), ...(FIELDS[name]?.() ?? {}) }, button);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-do]");
  if (button && !button.disabled) press(button);
});
byId("stop").addEventListener("click", () => ask("stop"));
byId("examine").addEventListener("click", () => examine());

// -- keys ----------------------------------------------------------------------------------------

// Those of `koch record`; its space bar is ours for STOP.
const KEYS = {
  n: "record.start", ArrowRight: "record.start", r: "record.redo", ArrowLeft: "record.redo",
  s: "success", f: "failure", d: "record.discard", u: "record.undo",
};

/** Whether a key writes into a field; the slider of the player has no use for the space bar. */
function isTyping(event) {
  return event.target.matches("input:not([type=range]), textarea, select");
}

document.addEventListener("keydown", (event) => {
  const typing = isTyping(event);
  if (event.key === "Escape" && typing) event.target.blur();
  if (typing || event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.code === "Space") {
    event.preventDefault(); // nor may it press the button that has the focus
    if (!event.repeat) ask("stop");
    return;
  }
  if (!byId("episodes").hidden && (event.key === "i" || event.key === "o")) (event.key === "i" ? beginHere : endHere)();
  const name = KEYS[event.key];
  // Who looks at recordings moves their time with the arrows: those keys belong to the live page.
  if (!name || event.repeat || byId("live").hidden || !role.operates) return;
  event.preventDefault();
  if (name === "success" || name === "failure") ask("record.stop", { outcome: name });
  else if (name === "record.start" && state.episode?.phase === "recording") ask("record.stop");
  else ask(name, FIELDS[name]?.() ?? {});
});
document.addEventListener("keyup", (event) => {
  if (event.code === "Space" && !isTyping(event)) event.preventDefault();
});

connect();
