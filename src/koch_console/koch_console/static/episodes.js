// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// Recordings and datasets: a list of episodes, the player, and edits that wait to be applied.

import { Place, byId, element, look, post, role, toast } from "./page.js";
import { Film, Video, close, keep, pause, placeOf, show, time } from "./player.js";

let source = ""; // a dataset's name; empty: the recordings
let dataset = null; // as the server describes it
let recordings = [];
let episode = null; // number of the one that is shown, or name of a recording
let root = "";
let span = [0, 0]; // what a trim would keep
let edited = 0;
const places = { sources: new Place(showEpisodes), list: new Place(refresh) };

const url = (...parts) => `/${parts.map((part) => encodeURIComponent(part)).join("/")}`;

export async function showEpisodes() {
  const answer = await places.sources.look("/datasets");
  if (!answer) return;
  const { datasets } = answer.found ?? { datasets: [] };
  const name = (item) => `${item.name}${item.pending ? ` · ${item.pending} edits wait` : ""}${item.problem ? " · cannot be read" : ""}`;
  byId("source").replaceChildren(
    element("option", { value: "", textContent: "Recordings" }),
    ...datasets.map((item) => element("option", { value: item.name, textContent: `Dataset ${name(item)}`, disabled: Boolean(item.problem) })),
  );
  if (!datasets.some((item) => item.name === source && !item.problem)) source = "";
  byId("source").value = source;
  await refresh();
}

export function hideEpisodes() { pause(); }

/** Another page may have edited: look again. */
export function heardOfEdits(count) {
  const isNew = count !== edited;
  edited = count;
  if (isNew && !byId("episodes").hidden) refresh();
}

byId("source").addEventListener("change", (event) => {
  source = event.target.value;
  episode = dataset = null;
  close();
  byId("edit-card").hidden = true;
  byId("ranking").replaceChildren();
  showEpisodes();
});

function failed(problem) {
  byId("root").textContent = problem;
  byId("list").replaceChildren(); // rather no list than an old one
}

/** The episode that is shown, as the list has it. */
const current = () => (source ? dataset?.episodes.find((each) => each.number === episode) : recordings.find((each) => each.name === episode));

function mark(name) {
  for (const button of byId("list").querySelectorAll("button")) button.toggleAttribute("aria-current", button.dataset.episode === name);
}

// -- recordings ----------------------------------------------------------------------------------

async function showRecordings() {
  const answer = await places.list.look("/episodes");
  if (!answer) return;
  if (answer.problem) { failed(answer.problem); return; }
  const { found } = answer;
  root = found.root;
  const shown = current();
  recordings = found.episodes;
  if (shown && current()) Object.assign(current(), { length_s: shown.length_s, change: { delete: current().deleted } });
  byId("root").textContent = found.episodes.length ? root : `No episodes in ${root}`;
  byId("list").replaceChildren(...found.episodes.map(recordingLine));
  if (episode !== null) mark(String(episode));
  byId("rank").hidden = !recordings.length;
  byId("pending-apply").hidden = true;
  drawEdit();
}

function recordingLine(item) {
  const image = element("img", { alt: "", loading: "lazy", src: `${url("episodes", item.name, "first")}?${item.began_s}` });
  const light = (item.verdict ?? "").split(/\W/)[0];
  const length = item.length_s === undefined ? "" : `${item.length_s.toFixed(1)} s`;
  const facts = [length, item.outcome, item.began_s ? new Date(1000 * item.began_s).toLocaleString() : ""];
  const words = element("span", { className: item.deleted ? "gone" : "" }, element("span", { className: `dot ${light}`, title: item.reasons?.join("\n") ?? "" }), " ",
    element("b", { textContent: item.name }), item.marked?.length ? element("span", { className: "tag", textContent: item.deleted ? "left out" : "marked" }) : "",
    element("small", { textContent: facts.filter(Boolean).join(" · ") }),
    element("small", { textContent: item.problem ?? item.task }));
  const button = element("button", { "data-episode": item.name }, image, words);
  button.addEventListener("click", () => openRecording(item.name));
  return element("li", {}, button);
}

/** On a narrow screen the list is below the player, which would not be seen to change. */
function toPlayer() {
  if (byId("player").getBoundingClientRect().bottom < 0) window.scrollTo({ top: 0 });
}

async function openRecording(name) {
  pause();
  await showRecordings();
  mark(name);
  const answer = await look(url("episodes", name));
  if (answer.problem) {
    close();
    toast(`${name} cannot be read; koch inspect ${root}/${name} says why.`, false);
    return;
  }
  const { curves, films, kept } = answer.found;
  episode = name;
  const ends = [...Object.values(curves).map((curve) => curve.times.at(-1) ?? 0), ...Object.values(films).map((images) => images.at(-1)?.[0] ?? 0)];
  show({
    films: Object.entries(films).map(([camera, images]) => new Film(url("episodes", name, "film", camera), camera, images)),
    curves: Object.entries(curves).filter(([topic]) => `${topic.slice(0, topic.lastIndexOf("/"))}/joint_command` in curves) // no leader
      .map(([topic, curve]) => ({ ...curve, isGoal: topic.endsWith("joint_command") })),
    length: Math.max(0.1, ...ends),
    angles: (at) => anglesAt(curves, at),
  });
  byId("commands").textContent = [
    `koch inspect ${root}/${name}`, `koch replay ${root}/${name}`, `koch convert ${root} --out outputs/dataset`,
  ].join("\n");
  const item = current();
  if (!item) return;
  Object.assign(item, { length_s: Math.max(0.1, ...ends), change: { delete: item.deleted } });
  span = [kept[0] ?? 0, kept[1] ?? item.length_s];
  byId("edit-task").value = item.task;
  drawEdit();
  toPlayer();
}

function anglesAt(curves, at) {
  const angles = {};
  for (const [topic, curve] of Object.entries(curves)) {
    if (!topic.endsWith("/joint_states") || !curve.times.length) continue;
    const values = curve.values[placeOf(curve.times, at, (item) => item)];
    angles[topic.split("/").at(-2)] = Object.fromEntries(curve.names.map((name, index) => [name, values[index]]));
  }
  return angles;
}

// -- datasets ------------------------------------------------------------------------------------

async function showDataset() {
  const answer = await places.list.look(url("datasets", source));
  if (answer?.problem) failed(answer.problem);
  else if (answer) drawDataset(answer.found);
}

/** Draw the list and what waits again, and leave the player as it is. */
function refresh() { return source ? showDataset() : showRecordings(); }

function drawDataset(found) {
  dataset = found;
  byId("root").textContent = dataset.root;
  byId("list").replaceChildren(...dataset.episodes.map(episodeLine));
  byId("rank").hidden = byId("pending-apply").hidden = false;
  byId("pending-card").hidden = false;
  drawPending();
  if (episode === null) return;
  mark(String(episode));
  drawEdit();
}

function episodeLine(item) {
  const change = item.change ?? {};
  const outcome = change.outcome ?? item.outcome;
  const light = outcome === "success" ? "green" : outcome === "failure" ? "red" : "";
  const length = change.trim ? `${change.trim[0]} to ${change.trim[1]} s of ${item.length_s} s` : `${item.length_s} s`;
  const words = element("span", { className: change.delete ? "gone" : "" },
    element("span", { className: `dot ${light}` }), " ", element("b", { textContent: `episode ${item.number}` }),
    item.change ? element("span", { className: "tag", textContent: change.delete ? "to be deleted" : "edited" }) : "",
    element("small", { textContent: [length, outcome].filter(Boolean).join(" · ") }),
    element("small", { textContent: change.task ?? item.task }));
  const button = element("button", { className: "plain", "data-episode": String(item.number) }, words);
  button.addEventListener("click", () => openEpisode(item.number));
  return element("li", {}, button);
}

async function openEpisode(number) {
  pause();
  const answer = await look(url("datasets", source, "episodes", number));
  if (answer.problem) { toast(answer.problem, false); return; }
  const { curves, videos, length_s: length } = answer.found;
  episode = number;
  mark(String(number));
  show({
    films: Object.entries(videos).map(([camera, place]) => new Video(url("datasets", source, "episodes", number, camera), camera, place.from_s)),
    curves: Object.entries(curves).map(([key, curve]) => ({ ...curve, isGoal: key === "action" })),
    length,
  });
  const item = current();
  span = item.change?.trim ?? [0, item.length_s];
  byId("edit-task").value = item.change?.task ?? item.task;
  byId("commands").textContent = `koch inspect ${dataset.root}\nkoch replay ${dataset.root} --episode ${number}`;
  drawEdit();
  toPlayer();
}

// -- edits ---------------------------------------------------------------------------------------

function drawEdit() {
  const item = current();
  byId("edit-card").hidden = !item?.change && !(source && item);
  if (!source) drawMarks(item);
  if (byId("edit-card").hidden) return;
  const isWhole = span[0] <= 0 && span[1] >= item.length_s;
  byId("edit-title").textContent = source ? `Edit episode ${episode}` : `Mark ${episode}`;
  byId("edit-trim").textContent = isWhole ? "Trim" : `Trim to ${span[0].toFixed(2)} – ${span[1].toFixed(2)} s`;
  byId("edit-trim").disabled = isWhole || !role.operates;
  byId("edit-delete").textContent = item.change?.delete ? "Keep episode" : source ? "Delete episode" : "Leave out";
  keep(isWhole ? null : span);
}

function drawPending() {
  const { pending, commands, new: next } = dataset;
  byId("pending-title").textContent = pending.length ? `${pending.length} ${pending.length > 1 ? "edits wait" : "edit waits"}` : "No edits wait";
  byId("pending").replaceChildren(...pending.map((edit) => element("li", { textContent: told(edit) })));
  byId("pending-undo").disabled = byId("pending-apply").disabled = !pending.length || !role.operates;
  byId("pending-apply").textContent = `Apply as ${next}`;
  byId("pending-commands").hidden = !commands.length;
  byId("pending-commands").textContent = commands.join("\n");
}

/** Marks of a recording: they hold at once, and the recording stays as it is. */
function drawMarks(item) {
  const marked = item?.marked ?? [];
  byId("pending-card").hidden = !item?.change;
  byId("pending-title").textContent = marked.length ? `${marked.length} mark${marked.length > 1 ? "s" : ""}, which koch convert obeys` : "No marks";
  byId("pending").replaceChildren(...marked.map((text) => element("li", { textContent: text })));
  byId("pending-undo").disabled = !marked.length || !role.operates;
  byId("pending-commands").hidden = !item?.change;
  const bag = `${root}/${episode}`;
  byId("pending-commands").textContent = [
    `koch dataset trim ${bag} --keep 0:${span[0]}-${span[1]}`, `koch dataset relabel ${bag} --outcome success`, `koch dataset delete ${bag}`, `koch dataset undo ${bag}`,
  ].join("\n");
}

function told({ episode: number, trim, outcome, task, delete: isGone }) {
  const what = trim ? `keep ${trim[0]} to ${trim[1]} s` : outcome !== undefined ? `outcome ${outcome || "none"}`
    : task !== undefined ? `task “${task}”` : isGone ? "delete" : "keep after all";
  return `episode ${number}: ${what}`;
}

async function change(edit) {
  if (episode === null) return;
  const found = source ? await post(`${url("datasets", source)}/edit`, { episode, ...edit }) : await post(`${url("episodes", episode)}/edit`, edit);
  if (found) await (source ? drawDataset(found) : showRecordings());
}

function setSpan(from, to) {
  if (byId("edit-card").hidden) return;
  const item = current();
  const seconds = (value) => Math.min(item.length_s, Math.max(0, Math.round(value * 100) / 100));
  span = [seconds(from), seconds(to)];
  if (span[0] >= span[1]) span = from === time() ? [span[0], item.length_s] : [0, span[1]];
  drawEdit();
}

export function beginHere() { setSpan(time(), span[1]); }
export function endHere() { setSpan(span[0], time()); }
byId("edit-in").addEventListener("click", beginHere);
byId("edit-out").addEventListener("click", endHere);
byId("edit-trim").addEventListener("click", () => change({ trim: span }));
byId("edit-delete").addEventListener("click", () => {
  change({ delete: !current().change?.delete });
});
byId("edit-relabel").addEventListener("click", () => change({ task: byId("edit-task").value.trim() }));
for (const button of document.querySelectorAll("[data-outcome]")) {
  button.addEventListener("click", () => change({ outcome: button.dataset.outcome }));
}
byId("pending-undo").addEventListener("click", async () => {
  const found = await post(`${source ? url("datasets", source) : url("episodes", episode)}/undo`, {});
  if (found && source) drawDataset(found);
  else if (found) await openRecording(episode);
});
byId("pending-apply").addEventListener("click", async (event) => {
  event.target.disabled = true;
  const job = await post(`${url("datasets", source)}/apply`, {});
  if (job) toast(`Making ${job.out}; Training lists the job.`, true);
  drawPending();
});

/** A job has ended: a new revision may be there. */
export function heardOfJobs() {
  if (!byId("episodes").hidden) showEpisodes();
}

// -- quality -------------------------------------------------------------------------------------

byId("rank").addEventListener("click", async (event) => {
  event.target.disabled = true;
  event.target.textContent = "Ranking …";
  try {
    const of = source;
    const { found, problem } = await look(of ? `${url("datasets", of)}/quality` : "/quality");
    if (problem) toast(problem, false);
    else if (of === source) drawRanking(found);
  } finally {
    event.target.disabled = false;
    event.target.textContent = "Rank by quality";
  }
});

function drawRanking(rows) {
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  const head = ["episode", "jerk", "idle", "offset", "gap", "complaints"];
  const table = element("table", { className: "figures" },
    element("thead", {}, element("tr", {}, ...head.map((name) => element("th", { textContent: name })))),
    element("tbody", {}, ...rows.map((row) => {
      const cells = [row.name ?? `${row.episode}`, `×${row.jerk.toFixed(1)}`, percent(row.idle_fraction), percent(row.offset_fraction), row.gap_s ? `${row.gap_s.toFixed(1)} s` : "–", row.complaints.map((text) => text.split(":")[0]).join(", ") || "–"];
      const line = element("tr", { title: row.complaints.join("\n"), className: row.complaints.length ? "doubtful" : "" }, ...cells.map((text) => element("td", { textContent: text })));
      line.addEventListener("click", () => (source ? openEpisode(row.episode) : openRecording(row.name)));
      return line;
    })));
  byId("ranking").replaceChildren(
    element("div", { className: "scroll" }, table), element("small", { textContent: `With images too: koch dataset doctor ${source ? dataset.root : root}` }));
}
