// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// Training runs and their evaluations, to be read; koch train and koch eval make them.

import { element } from "./live.js";

const byId = (id) => document.getElementById(id);
const Z95 = 1.96;

export async function showRuns() {
  const answer = await fetch("/runs");
  if (!answer.ok) { // rather no list than an old one
    byId("runs-title").textContent = await answer.text();
    byId("runs").replaceChildren();
    return;
  }
  const runs = await answer.json();
  byId("runs-title").textContent = runs.length ? "Training runs" : "No training runs: koch train makes them, koch console --runs DIR finds them";
  byId("runs").replaceChildren(...runs.map((run) => line(run)));
  byId("losses").hidden = !runs.length;
  const first = runs.find((run) => !run.problem);
  if (first) open(first);
}

function line(run) {
  const facts = run.problem ? [run.problem]
    : [run.policy, `step ${run.step}${run.steps ? ` of ${run.steps}` : ""}`, run.figures.loss === undefined ? "" : `loss ${run.figures.loss.toPrecision(3)}`,
      run.episodes ? `${run.episodes} episodes` : "", run.dataset];
  const words = element("span", {}, element("b", { textContent: run.name }), element("small", { textContent: facts.filter(Boolean).join(" · ") }),
    ...(run.evaluations ?? []).map((item) => element("small", { textContent: judged(item) })));
  const button = element("button", { className: "run", "data-run": run.name }, words);
  if (!run.problem) button.addEventListener("click", () => open(run));
  return element("li", {}, button);
}

/** Successes with the 95 % interval of Wilson's score. */
function judged({ name, successes, trials }) {
  if (!trials) return `${name}: no trials`;
  const rate = successes / trials;
  const square = (Z95 * Z95) / trials;
  const middle = (rate + square / 2) / (1 + square);
  const half = (Z95 * Math.sqrt((rate * (1 - rate)) / trials + square / (4 * trials))) / (1 + square);
  const percent = (value) => `${(100 * value).toFixed(0)} %`;
  return `${name}: ${successes}/${trials} = ${percent(rate)} (95 %: ${percent(Math.max(0, middle - half))} to ${percent(Math.min(1, middle + half))})`;
}

function open(run) {
  for (const button of byId("runs").querySelectorAll("button")) button.toggleAttribute("aria-current", button.dataset.run === run.name);
  const commands = byId("run-commands");
  commands.hidden = false;
  commands.textContent = [`koch up --policy ${run.folder}`, `koch run --policy ${run.folder}`, `koch eval --policy ${run.folder}`].join("\n");
  drawLosses(run.curve);
}

/** Loss (amber) and validation loss (blue) over steps, the loss on a logarithmic axis. */
function drawLosses(curve) {
  const canvas = byId("losses");
  canvas.width = canvas.clientWidth;
  const paint = canvas.getContext("2d");
  const points = Object.values(curve).flat().filter(([, value]) => value > 0);
  if (!points.length) return;
  const logs = points.map(([, value]) => Math.log10(value));
  const [low, high] = [Math.min(...logs), Math.max(...logs)];
  const last = Math.max(...points.map(([step]) => step));
  const x = (step) => 8 + (step / (last || 1)) * (canvas.width - 16);
  const y = (value) => canvas.height - 20 - ((Math.log10(value) - low) / (high - low || 1)) * (canvas.height - 50);
  for (const [index, [name, list]] of Object.entries(curve).entries()) {
    paint.strokeStyle = paint.fillStyle = index ? "#5aa2f0" : "#e0a030";
    paint.fillText(name.replace("_", " "), 10 + 90 * index, 14);
    paint.beginPath();
    for (const [step, value] of list) if (value > 0) paint.lineTo(x(step), y(value));
    paint.stroke();
  }
  paint.fillStyle = "#9aa7b4";
  paint.fillText(`${(10 ** high).toPrecision(2)}`, 10, 30);
  paint.fillText(`${(10 ** low).toPrecision(2)}`, 10, canvas.height - 6);
  paint.fillText(`step ${last}`, canvas.width - 80, canvas.height - 6);
}
