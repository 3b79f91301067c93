// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// Trainings and evaluations: curves, comparison with intervals, films, and jobs that run.

import { Place, byId, element, look, post, role, toast } from "./page.js";

const Z95 = 1.96;
const PERIOD_MS = 3000; // curves and logs of what runs are looked at so often
let runs = [];
let chosen = ""; // name of the run that is shown
let job = null; // id of the job whose log is shown
const places = { runs: new Place(showRuns), jobs: new Place(drawJobs), datasets: new Place(fillForms) };
const isSeen = () => !byId("training").hidden;
const url = (...parts) => `/${parts.map((part) => encodeURIComponent(part)).join("/")}`;

export async function showRuns() {
  drawJobs();
  const answer = await places.runs.look("/runs");
  if (!answer) return;
  if (answer.problem) { // rather no list than an old one
    byId("runs-title").textContent = answer.problem;
    byId("runs").replaceChildren();
    return;
  }
  runs = answer.found;
  byId("runs-title").textContent = runs.length ? "Training runs" : "No training runs: koch train makes them, koch console --runs DIR finds them";
  byId("runs").replaceChildren(...runs.map((run) => line(run)));
  byId("losses").hidden = !runs.length;
  byId("no-runs").hidden = runs.length > 0;
  fillForms();
  drawComparison();
  const first = runs.find((run) => run.name === chosen && !run.problem) ?? runs.find((run) => !run.problem);
  if (first) open(first);
}

setInterval(() => {
  if (isSeen() && !document.hidden && byId("jobs").querySelector(".running")) showRuns();
}, PERIOD_MS);

function line(run) {
  const facts = run.problem ? [run.problem]
    : [run.policy, `step ${run.step}${run.steps ? ` of ${run.steps}` : ""}`, run.figures.loss === undefined ? "" : `loss ${run.figures.loss.toPrecision(3)}`,
      run.episodes ? `${run.episodes} episode${run.episodes > 1 ? "s" : ""}` : "", run.dataset];
  const words = element("span", {}, element("b", { textContent: run.name }), element("small", { textContent: facts.filter(Boolean).join(" · ") }),
    ...(run.evaluations ?? []).map((item) => element("small", { textContent: `${item.name}: ${rate(item)}` })));
  const button = element("button", { className: "plain", "data-run": run.name }, words);
  if (!run.problem) button.addEventListener("click", () => open(run));
  return element("li", {}, button);
}

// -- a run ---------------------------------------------------------------------------------------

function open(run) {
  chosen = run.name;
  for (const button of byId("runs").querySelectorAll("button")) button.toggleAttribute("aria-current", button.dataset.run === run.name);
  const commands = byId("run-commands");
  commands.hidden = false;
  commands.textContent = [`koch up --policy ${run.folder}`, `koch run --policy ${run.folder}`, `koch eval --policy ${run.folder}`].join("\n");
  drawLosses(run.curve);
  drawFilms(run);
}

function drawFilms(run) {
  const place = byId("films-of-run");
  const shown = run.evaluations.flatMap((item) => [
    ...[...(item.film ? ["film"] : []), ...(item.films ?? [])].map((film) =>
      element("figure", {}, element("video", { src: url("runs", run.name, item.name, film), controls: true, muted: true, preload: "metadata" }), caption(item, film))),
    item.sheet && !item.film && !item.films?.length ? element("figure", {}, element("img", { src: url("runs", run.name, item.name, "sheet"), alt: `last images of ${item.name}`, loading: "lazy" }), caption(item)) : "",
  ]).filter(Boolean);
  const names = shown.map((figure) => figure.textContent).join();
  if (place.dataset.names === run.name + names) return; // a film that plays goes on
  place.dataset.names = run.name + names;
  place.replaceChildren(...shown);
}

const caption = (item, film = "") =>
  element("figcaption", { title: rate(item), textContent: film.startsWith("rollout_") ? `seed ${film.slice(8)} of ${item.name}` : `${item.name}: ${rate(item)}` });

/** Rate, low and high of successes with the 95 % interval of Wilson's score. */
function interval({ successes, trials }) {
  const share = successes / trials;
  const square = (Z95 * Z95) / trials;
  const middle = (share + square / 2) / (1 + square);
  const half = (Z95 * Math.sqrt((share * (1 - share)) / trials + square / (4 * trials))) / (1 + square);
  return [share, Math.max(0, middle - half), Math.min(1, middle + half)];
}

const percent = (value) => `${(100 * value).toFixed(0)} %`;

function rate(item) {
  if (!item.trials) return "no trials";
  const [share, low, high] = interval(item);
  return `${item.successes}/${item.trials} = ${percent(share)} (95 %: ${percent(low)} to ${percent(high)})`;
}

/** All evaluations of all runs, the best first, each with its interval drawn on one scale. */
function drawComparison() {
  const rows = runs.flatMap((run) => (run.evaluations ?? []).filter((item) => item.trials).map((item) => ({ run: run.name, ...item, rate: interval(item) })))
    .sort((a, b) => b.rate[0] - a.rate[0] || b.trials - a.trials);
  byId("comparison").hidden = !rows.length;
  const [head, body] = byId("comparison").querySelectorAll("thead, tbody");
  head.replaceChildren(element("tr", {}, ...["run", "evaluation", "success", "0 to 100 %", "95 %", "films"].map((text) => element("th", { textContent: text }))));
  body.replaceChildren(...rows.map((row) => {
    const bar = element("i", {});
    const dot = element("b", {});
    Object.assign(bar.style, { left: percent(row.rate[1]).replace(" ", ""), width: percent(row.rate[2] - row.rate[1]).replace(" ", "") });
    dot.style.left = percent(row.rate[0]).replace(" ", "");
    return element("tr", {}, element("td", { textContent: row.run }), element("td", { textContent: row.name }),
      element("td", { textContent: `${row.successes}/${row.trials}` }), element("td", {}, element("div", { className: "scale" }, bar, dot)),
      element("td", { textContent: `${percent(row.rate[1])} to ${percent(row.rate[2])}` }), element("td", {}, filmsButton(row)));
  }));
}

/** Opens the run of a row of the table at its films. */
function filmsButton(row) {
  const count = (row.films?.length ?? 0) + (row.film ? 1 : 0);
  if (!count) return "–";
  const button = element("button", { className: "films", textContent: `▶ ${count}`, title: `Show the films of ${row.run}` });
  button.addEventListener("click", () => {
    open(runs.find((run) => run.name === row.run));
    byId("films-of-run").scrollIntoView({ behavior: "smooth", block: "center" });
  });
  return button;
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
    for (const [step, value] of list.length < 3 ? list : []) paint.fillRect(x(step) - 2, y(value) - 2, 5, 5); // no line yet
  }
  paint.fillStyle = "#9aa7b4";
  paint.fillText(`${(10 ** high).toPrecision(2)}`, 10, 30);
  paint.fillText(`${(10 ** low).toPrecision(2)}`, 10, canvas.height - 6);
  paint.fillText(`step ${last}`, canvas.width - 80, canvas.height - 6);
}

// -- jobs ----------------------------------------------------------------------------------------

const LIGHTS = { starting: "amber", running: "amber", finished: "green", failed: "red", killed: "red", stopped: "" };
const KINDS = { train: "training on", eval: "evaluation of", dataset: "edits of", policy: "policy of" };

let underWay = new Set();
const isUnderWay = (item) => item.state === "running" || item.state === "starting";

export async function drawJobs() {
  const answer = await places.jobs.look("/jobs");
  if (!answer) return;
  if (answer.problem) { byId("jobs").replaceChildren(element("li", { className: "empty", textContent: answer.problem })); return; }
  const { found } = answer;
  byId("jobs").replaceChildren(...(found.length ? found.slice(0, 12).map(jobLine) : [element("li", { className: "empty", textContent: "None was started here." })]));
  const shown = found.find((item) => item.id === job);
  if (shown) showLog(shown);
  const before = underWay;
  underWay = new Set(found.filter(isUnderWay).map((item) => item.id));
  if ([...before].some((id) => !underWay.has(id))) showRuns(); // what it saved as it ended
}

function jobLine(item) {
  const isOpen = isUnderWay(item);
  const words = element("button", { className: "plain", title: item.command }, element("span", {}, element("span", { className: `dot ${LIGHTS[item.state]}` }), " ",
    element("b", { textContent: `${KINDS[item.kind] ?? item.kind} ${item.about}` }),
    element("small", { textContent: `${item.state} · ${new Date(1000 * item.began_s).toLocaleString()}` })));
  words.addEventListener("click", () => { job = item.id; showLog(item); });
  const line = element("li", { className: item.state }, words);
  if (isOpen) {
    const stop = element("button", { textContent: "Stop", disabled: !role.operates });
    stop.addEventListener("click", async () => {
      stop.disabled = true;
      if (await post(`${url("jobs", item.id)}/stop`, {})) toast("It was asked to end; a training saves first.", true);
    });
    line.append(stop);
  }
  return line;
}

async function showLog(item) {
  byId("job-card").hidden = false;
  byId("job-title").textContent = `${item.command} — ${item.state}`;
  const { found, problem } = await look(`${url("jobs", item.id)}/log`);
  if (item.id !== job) return; // another one was chosen meanwhile
  const log = byId("job-log");
  const atEnd = log.scrollTop + log.clientHeight > log.scrollHeight - 30;
  log.textContent = found ? found.log || "It has said nothing yet." : problem;
  if (atEnd) log.scrollTop = log.scrollHeight;
}

// -- forms ---------------------------------------------------------------------------------------

async function fillForms() {
  const evaluate = byId("evaluate-form").elements;
  const names = runs.filter((run) => !run.problem && run.checkpoints.length).map((run) => run.name);
  options(evaluate.run, names);
  fillCheckpoints();
  const answer = await places.datasets.look("/datasets");
  if (answer?.found) options(byId("train-form").elements.dataset, answer.found.datasets.filter((item) => !item.problem).map((item) => item.name));
}

/** Fill a choice where it has changed: an open one would close. */
function options(select, names) {
  if (select.dataset.names === names.join("\n")) return;
  const before = select.value;
  select.dataset.names = names.join("\n");
  select.replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
  if (names.includes(before)) select.value = before;
}

function fillCheckpoints() {
  const { run, checkpoint } = byId("evaluate-form").elements;
  options(checkpoint, runs.find((item) => item.name === run.value)?.checkpoints ?? []);
}
byId("evaluate-form").elements.run.addEventListener("change", fillCheckpoints);

function start(form, path) {
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const asked = {};
    for (const field of form.elements) {
      if (field.name && field.value !== "") asked[field.name] = field.type === "number" ? Number(field.value) : field.value;
    }
    const started = await post(path, asked);
    if (!started) return;
    job = started.id;
    toast(`Started: ${started.command}`, true);
    drawJobs();
  });
}
start(byId("train-form"), "/train");
start(byId("evaluate-form"), "/evaluate");
