// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// The live page: cameras, checks, arms, episode, policy, log.

import { buildPad, drawPads } from "./pad.js";
import { Place, byId, element, look, post, role, toast } from "./page.js";

const degrees = (radians) => (radians * 180) / Math.PI;
const OLD_S = 1; // an image that is older is greyed
const HOT_C = 60; // an XL330 shuts down at 70

export function build(hello) {
  byId("rig").textContent = hello.rig;
  document.title = `${hello.rig} · koch console`;
  byId("task").value ||= hello.task;
  byId("instruction").value ||= hello.task;
  byId("world").hidden = !hello.simulated;
  byId("cameras").replaceChildren(...hello.cameras.map(cameraTile));
  byId("arms").replaceChildren(...hello.arms.map(armCard));
}

function cameraTile(camera) {
  const image = element("img", { alt: `camera ${camera.name}`, "data-src": `/cameras/${encodeURIComponent(camera.name)}` });
  const caption = element("figcaption", {}, element("span", { className: "dot" }), element("b", { textContent: camera.name }),
    element("span", { className: "rate" }), element("span", { className: "why" }));
  return element("figure", { id: `camera-${camera.name}`, className: "stale" }, image, element("span", { className: "none", textContent: "no image" }), caption);
}

function armCard(arm, _, arms) {
  const follows = arm.role === "follower";
  const button = (text, name, more = {}) =>
    element("button", { textContent: text, "data-do": name, "data-with": JSON.stringify({ arm: arm.name, ...more }) });
  const buttons = follows ? [
    button("Resume", "resume"), button("Home", "home"),
    button("Torque on", "torque", { on: true }), button("Torque off", "torque", { on: false }),
  ] : [];
  if (follows) {
    const isLed = arms.some((other) => other.drives === arm.name);
    for (const on of [true, false]) {
      const made = button(`Enable switch ${on ? "on" : "off"}`, "teleop", { on });
      if (!isLed) made.className = "of-pad"; // only a jog node has one
      buttons.push(made);
    }
  }
  const pad = follows ? [buildPad(arm.name)] : [];
  return element("article", { id: `arm-${arm.name}` },
    element("h2", { textContent: `${arm.name} (${arm.role})` }),
    ...pad, // above what changes its height
    element("div", { className: "facts guard" }),
    element("div", { className: "row buttons" }, ...buttons),
    ...arm.joints.map((joint) => jointRow(joint)));
}

function jointRow(joint) {
  const track = element("div", { className: "track", title: `${degrees(joint.low).toFixed(0)}° to ${degrees(joint.high).toFixed(0)}°` },
    element("i"), element("i", { className: "goal" }));
  const row = element("div", { className: "joint", "data-joint": joint.name },
    element("span", { textContent: joint.name }), track,
    element("span", { className: "angle" }), element("span", { className: "current" }), element("span", { className: "heat" }));
  row.place = (radians) => `${(100 * Math.min(1, Math.max(0, (radians - joint.low) / (joint.high - joint.low)))).toFixed(1)}%`;
  return row;
}

export function draw(state, changed, lines) {
  if (!state.hello) return;
  if (changed.cameras) drawCameras(changed.cameras);
  if (changed.joints) for (const [arm, joints] of Object.entries(changed.joints)) drawJoints(arm, joints);
  if (changed.guards) drawGuards(changed.guards);
  if (changed.pads || "holder" in changed) drawPads(state.pads ?? {}, state.holder ?? "");
  if (changed.checks) drawChecks(changed.checks);
  if ("episode" in changed) drawEpisode(changed.episode);
  if ("policy" in changed || "running" in changed) drawPolicy(state.policy, state.running);
  if (lines.length) drawLog(lines);
}

function drawCameras(cameras) {
  for (const [name, camera] of Object.entries(cameras)) {
    const tile = byId(`camera-${name}`);
    if (!tile) continue;
    tile.querySelector(".dot").className = `dot ${camera.light}`;
    // A browser keeps the last image of a stream that has ended: it must not look like the present.
    const isOld = camera.age_s === undefined ? camera.light === "red" : camera.age_s > OLD_S;
    tile.classList.toggle("stale", isOld);
    tile.querySelector(".none").textContent = camera.age_s === undefined ? "no image" : `no image for ${camera.age_s.toFixed(0)} s`;
    const rate = camera.rate_hz === undefined ? "" : `${camera.rate_hz.toFixed(0)}/s`;
    const age = camera.age_s > 0.5 ? ` · ${camera.age_s.toFixed(1)} s old` : "";
    tile.querySelector(".rate").textContent = rate + age;
    const why = tile.querySelector(".why");
    why.textContent = camera.light === "green" ? "" : camera.text;
    why.title = camera.text;
  }
}

function drawJoints(arm, joints) {
  byId(`arm-${arm}`)?.classList.toggle("stale", !joints.measured);
  for (const row of document.querySelectorAll(`#arm-${CSS.escape(arm)} .joint`)) {
    const name = row.dataset.joint;
    const [measured, goal] = row.querySelectorAll(".track i");
    const angle = joints.measured?.[name];
    measured.hidden = angle === undefined;
    goal.hidden = joints.goal?.[name] === undefined;
    if (angle !== undefined) measured.style.left = row.place(angle);
    if (!goal.hidden) goal.style.left = row.place(joints.goal[name]);
    row.querySelector(".angle").textContent = angle === undefined ? "–" : `${degrees(angle).toFixed(1)}°`;
    const current = joints.current?.[name];
    row.querySelector(".current").textContent = current === undefined ? "" : `${(1000 * current).toFixed(0)} mA`;
    const heat = joints.temperature?.[name];
    const shown = row.querySelector(".heat");
    shown.textContent = heat === undefined ? "" : `${heat.toFixed(0)} °C`;
    shown.className = heat > HOT_C ? "heat hot" : "heat";
  }
}

function drawGuards(guards) {
  for (const [arm, guard] of Object.entries(guards)) drawGuard(arm, guard);
  const stopped = Object.keys(guards).filter((arm) => guards[arm]?.mode === "stopped");
  byId("stopped").hidden = !stopped.length;
  byId("stopped").textContent = `${stopped.join(", ")} stopped`;
}
byId("stopped").addEventListener("click", () => {
  document.querySelector("[data-tab=live]").click();
  byId(`arm-${byId("stopped").textContent.split(/,| /)[0]}`)?.scrollIntoView({ block: "center" });
});

function drawGuard(arm, guard) {
  const place = document.querySelector(`#arm-${CSS.escape(arm)} .guard`);
  if (!place) return;
  if (!guard) { place.replaceChildren(element("span", { className: "dot red" }), " says nothing"); return; }
  const light = { driving: "green", holding: "green", blending: "green", stopped: "red", disconnected: "red" }[guard.mode] ?? "amber";
  const parts = [element("span", { className: `dot ${light}` }), " ", element("b", { textContent: guard.mode })];
  if (guard.source) parts.push(` · commanded by ${guard.source}`);
  parts.push(guard.torque ? " · torque on" : " · torque off");
  for (const stop of guard.stops) parts.push(element("div", { className: "hot", textContent: `${stop.joint} ${stop.text}`.trim() }));
  if (guard.reason && !guard.stops.length) parts.push(element("div", { textContent: guard.reason }));
  for (const item of guard.refusals) {
    parts.push(element("div", { textContent: `refused ${item.count} from ${item.source}: ${item.text}` }));
  }
  const changes = guard.changes.map((item) => `${item.rule} ${item.joint} ×${item.count}`);
  if (changes.length) {
    const more = changes.length > 3 ? ` and ${changes.length - 3} more` : "";
    parts.push(element("div", { textContent: `held within limits: ${changes.slice(0, 3).join(", ")}${more}`, title: changes.join("\n") }));
  }
  place.replaceChildren(...parts);
}

function checkLine(check) {
  const line = element("li", {}, element("span", { className: `dot ${check.light}` }),
    element("span", {}, element("b", { textContent: check.what }), ` ${check.text}`));
  if (check.fix) line.append(element("span", { className: check.light ? "fix" : "fix calm", textContent: `→ ${check.fix}` }));
  return line;
}

/** What `koch doctor` says of the computer that serves this page; what is not well is listed. */
export async function examine(again = true) {
  const button = byId("examine");
  button.disabled = true;
  button.textContent = "Looking …";
  try {
    const answer = await look(`/machine${again ? "?again" : ""}`);
    const found = answer.found ?? [{ what: "machine", light: "amber", text: answer.problem }];
    const [red, amber, green] = ["red", "amber", "green"].map((light) => found.filter((item) => item.light === light));
    byId("machine").replaceChildren(...[...red, ...amber, ...green].map(checkLine));
    const card = byId("machine-card");
    card.hidden = false;
    card.querySelector("summary").replaceChildren(
      element("span", { className: `dot ${red.length ? "red" : amber.length ? "amber" : "green"}` }), " ",
      `this computer: ${red.length + amber.length} of ${found.length} need a look${red.length ? `, ${red[0].what} first` : ""}`);
    if (again) card.open = true; // somebody asked
  } finally {
    button.disabled = false;
    button.textContent = "Check this computer";
  }
}

function drawChecks(checks) {
  byId("checks").replaceChildren(...checks.map(checkLine));
  const worst = checks.some((check) => check.light === "red") ? "red" : checks.some((check) => check.light === "amber") ? "amber" : "green";
  const open = checks.filter((check) => check.light === "red" || check.light === "amber").length;
  const card = byId("checks-card");
  card.querySelector(".dot").className = `dot ${worst}`;
  byId("checks-sum").textContent = open ? `${open} of ${checks.length} need a look` : "all is well";
  // It opens when something turns bad and closes when all is well; between, a person decides.
  if (card.dataset.worst !== worst) card.open = worst === "red";
  card.dataset.worst = worst;
}

function drawEpisode(episode) {
  const pill = byId("phase");
  const bar = byId("countdown");
  if (!episode) {
    pill.textContent = "";
    bar.hidden = true;
    byId("episode").textContent = "No recorder runs: koch up --record.";
    return;
  }
  const left = episode.remaining_s;
  const time = left >= 0 ? `${left.toFixed(0)} s left` : `${episode.elapsed_s.toFixed(0)} s`;
  pill.textContent = episode.phase === "idle" ? `${episode.saved} saved` : `${episode.phase} ${time}`;
  pill.className = `pill ${episode.phase === "recording" ? "red" : ""}`;
  bar.hidden = left < 0;
  if (left >= 0) bar.value = episode.elapsed_s / (episode.elapsed_s + left || 1);
  const disk = episode.disk_minutes < 0 ? "" : ` · disk for ${episode.disk_minutes} min`;
  const parts = [element("span", { className: `dot ${episode.light}` }), " ",
    element("b", { textContent: `episode ${episode.index}` }), ` ${episode.phase} · ${episode.saved} saved${disk}`];
  if (episode.reason) parts.push(element("div", { textContent: episode.reason }));
  if (episode.verdict) parts.push(element("div", { textContent: `last: ${episode.verdict}` }));
  byId("episode").replaceChildren(...parts);
}

function drawPolicy(policy, running) {
  const place = byId("policy");
  byId("policy-load").dataset.busy = ["running", "paused"].includes(policy?.state) ? policy.state : "";
  if (!policy) { place.textContent = "No policy is loaded. Choose a checkpoint, or start koch up --policy DIR."; return; }
  const parts = [element("b", { textContent: policy.state }), ` · ${policy.runtime} · ${policy.strategy}`];
  if (policy.state === "running") parts.push(` · ${policy.rate_hz}/s · ${policy.delay_ms} ms · ${policy.steps} actions`);
  if (policy.way.length) {
    const [last, total] = policy.way.slice(-2);
    parts.push(element("div", {
      textContent: `camera to ${last.stage} ${total.p50_ms} ms, 95 % within ${total.p95_ms} ms`,
      title: policy.way.map((way) => `${way.stage} ${way.p50_ms} / ${way.p95_ms} ms`).join("\n"),
    }));
  }
  if (policy.reason) parts.push(element("div", { textContent: policy.reason }));
  if (running) parts.push(element("div", { textContent: running }));
  place.replaceChildren(...parts);
}

// -- which policy --------------------------------------------------------------------------------

let picks = "";
const pickPlace = new Place(fillPicks);
/** Fill the choice of checkpoints, the newest run first. */
export async function fillPicks() {
  const answer = await pickPlace.look("/runs");
  if (!answer?.found) return;
  const found = answer.found.filter((run) => !run.problem)
    .flatMap((run) => run.checkpoints.map((checkpoint) => ({ run: run.name, checkpoint })));
  const now = JSON.stringify(found);
  if (now === picks) return;
  picks = now;
  const pick = byId("policy-pick");
  const before = pick.value;
  pick.replaceChildren(...(found.length ? found : [null]).map((item) => element("option", {
    value: item ? JSON.stringify(item) : "", textContent: item ? `${item.run} · ${item.checkpoint}` : "none trained yet" })));
  if ([...pick.options].some((item) => item.value === before)) pick.value = before;
}

let loaded = null;
/** The policy that was loaded here, as its job stands. */
export function drawLoaded(job) {
  loaded = job && (job.state === "running" || job.state === "starting") ? job : null;
  byId("policy-unload").disabled = !loaded || !role.operates;
  byId("policy-load").disabled = Boolean(loaded) || !role.operates;
  const name = job ? `${job.run} · ${job.checkpoint}` : "";
  byId("policy-job").textContent = loaded ? `loaded: ${name}` : job?.state === "failed" ? `${name} could not be loaded: ${job.text}` : "";
}

byId("policy-load").addEventListener("click", async () => {
  const pick = byId("policy-pick").value;
  if (!pick) { toast("No run below --runs has a checkpoint; train one first.", false); return; }
  if (await post("/policy", JSON.parse(pick))) toast("The policy is being loaded; that takes some seconds.", true);
});
byId("policy-unload").addEventListener("click", async () => {
  const busy = byId("policy-load").dataset.busy;
  if (busy) { toast(`The policy is ${busy}; end the run first.`, false); return; }
  if (loaded && await post(`/jobs/${encodeURIComponent(loaded.id)}/stop`, {})) toast("The policy is being unloaded.", true);
});

function drawLog(lines) {
  const log = byId("log");
  const atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 30;
  for (const line of lines) {
    const time = new Date(1000 * line.time_s).toLocaleTimeString();
    log.append(element("li", { className: line.level }, element("time", { textContent: time }), `${line.node}: ${line.text}`));
  }
  while (log.children.length > 300) log.firstChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}
