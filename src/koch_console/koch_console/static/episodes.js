// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// Recorded episodes: a list, and a player with images, curves and the 3D view under one time.

import { element } from "./live.js";

const byId = (id) => document.getElementById(id);
const BLOCK = 45; // images that are fetched at once
const COLOURS = ["#e5484d", "#e0a030", "#3fb868", "#5aa2f0", "#b07cf0", "#50c8c8"];
let shown = null;
let view = null;

export async function showEpisodes() {
  const answer = await fetch("/episodes");
  if (!answer.ok) { // rather no list than an old one
    byId("root").textContent = await answer.text();
    byId("list").replaceChildren();
    return;
  }
  const { root, episodes } = await answer.json();
  byId("root").textContent = episodes.length ? root : `No episodes in ${root}`;
  byId("list").replaceChildren(...episodes.map((episode) => line(episode, root)));
}

export function hideEpisodes() { pause(); }

function line(episode, root) {
  const image = element("img", { alt: "", loading: "lazy", src: `/episodes/${encodeURIComponent(episode.name)}/first?${episode.began_s}` });
  const light = (episode.verdict ?? "").split(/\W/)[0];
  const length = episode.length_s === undefined ? "" : `${episode.length_s.toFixed(1)} s`;
  const facts = [length, episode.outcome, episode.began_s ? new Date(1000 * episode.began_s).toLocaleString() : ""];
  const words = element("span", {}, element("span", { className: `dot ${light}`, title: episode.reasons?.join("\n") ?? "" }), " ",
    element("b", { textContent: episode.name }), element("small", { textContent: facts.filter(Boolean).join(" · ") }),
    element("small", { textContent: episode.problem ?? episode.task }));
  const button = element("button", { "data-episode": episode.name }, image, words);
  button.addEventListener("click", () => open(episode.name, root));
  return element("li", {}, button);
}

async function open(name, root) {
  pause();
  for (const button of byId("list").querySelectorAll("button")) button.toggleAttribute("aria-current", button.dataset.episode === name);
  const answer = await fetch(`/episodes/${encodeURIComponent(name)}`);
  byId("player").hidden = false;
  if (!answer.ok) { byId("commands").textContent = `${name} cannot be read; koch inspect ${root}/${name} says why.`; return; }
  const episode = await answer.json();
  const films = Object.entries(episode.films).map(([camera, images]) => new Film(name, camera, images));
  shown = { episode, films, length: lengthOf(episode), bounds: boundsOf(episode), time: 0 };
  byId("films").replaceChildren(...films.map((film) => film.canvas));
  byId("time").max = shown.length;
  byId("commands").textContent = [
    `koch inspect ${root}/${name}`, `koch replay ${root}/${name}`, `koch convert ${root} --out outputs/dataset`,
  ].join("\n");
  seek(0);
  openView();
}

function lengthOf({ curves, films }) {
  const ends = [...Object.values(curves).map((curve) => curve.times.at(-1) ?? 0), ...Object.values(films).map((images) => images.at(-1)?.[0] ?? 0)];
  return Math.max(0.1, ...ends);
}

function boundsOf({ curves }) {
  const values = Object.values(curves).flatMap((curve) => curve.values).flat();
  const low = values.reduce((a, b) => Math.min(a, b), 0);
  return [low, Math.max(low + 0.1, values.reduce((a, b) => Math.max(a, b), 0))];
}

/** The images of one camera; blocks of them are fetched by ranges of bytes. */
class Film {
  constructor(episode, camera, images) {
    this.url = `/episodes/${encodeURIComponent(episode)}/film/${encodeURIComponent(camera)}`;
    this.images = images;
    this.blocks = new Map();
    this.canvas = element("canvas", { width: 640, height: 480, title: camera });
  }

  block(number) {
    if (number * BLOCK >= this.images.length) return null;
    if (!this.blocks.has(number)) {
      const part = this.images.slice(number * BLOCK, (number + 1) * BLOCK);
      const [, first] = part[0];
      const [, last, length] = part.at(-1);
      const range = `bytes=${first}-${last + length - 1}`;
      this.blocks.set(number, fetch(this.url, { headers: { Range: range } }).then((answer) => answer.arrayBuffer()));
    }
    return this.blocks.get(number);
  }

  async show(time) {
    const index = placeOf(this.images, time, (image) => image[0]);
    if (index === this.index || !this.images.length) return;
    this.index = index;
    const number = Math.floor(index / BLOCK);
    const [data] = [await this.block(number), this.block(number + 1)];
    if (this.index !== index) return; // another one is wanted by now
    const [, begin, length] = this.images[index];
    const start = begin - this.images[number * BLOCK][1];
    const bitmap = await createImageBitmap(new Blob([data.slice(start, start + length)], { type: "image/jpeg" }));
    if (this.canvas.width !== bitmap.width) Object.assign(this.canvas, { width: bitmap.width, height: bitmap.height });
    this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }
}

/** Index of the last item that is not later than a time. */
function placeOf(items, time, timeOf) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(items[middle]) <= time) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

function seek(time) {
  shown.time = Math.min(shown.length, Math.max(0, time));
  byId("time").value = shown.time;
  byId("clock").textContent = `${shown.time.toFixed(2)} / ${shown.length.toFixed(1)} s`;
  for (const film of shown.films) film.show(shown.time);
  drawCurves();
  moveView();
}

// -- playing -------------------------------------------------------------------------------------

let playing = 0;
function play() {
  let last = performance.now();
  const from = shown.time >= shown.length ? 0 : shown.time;
  shown.time = from;
  byId("play").textContent = "Pause";
  const step = (now) => {
    seek(shown.time + (now - last) / 1000);
    last = now;
    if (shown.time >= shown.length) pause();
    else playing = requestAnimationFrame(step);
  };
  playing = requestAnimationFrame(step);
}

function pause() {
  cancelAnimationFrame(playing);
  playing = 0;
  byId("play").textContent = "Play";
}

byId("play").addEventListener("click", () => { if (shown) (playing ? pause : play)(); });
byId("time").addEventListener("input", (event) => { pause(); if (shown) seek(Number(event.target.value)); });
byId("curves").addEventListener("pointerdown", (event) => {
  if (!shown) return;
  pause();
  seek((event.offsetX / event.target.clientWidth) * shown.length);
});

// -- curves: measured as lines, goals dashed -----------------------------------------------------

function drawCurves() {
  const canvas = byId("curves");
  const width = canvas.clientWidth;
  if (canvas.width !== width) canvas.width = width;
  const paint = canvas.getContext("2d");
  paint.clearRect(0, 0, width, canvas.height);
  const x = (time) => (time / shown.length) * width;
  const [low, high] = shown.bounds;
  const y = (radians) => canvas.height - 6 - ((radians - low) / (high - low)) * (canvas.height - 28);
  for (const [topic, curve] of Object.entries(shown.episode.curves)) {
    if (!(`${topic.slice(0, topic.lastIndexOf("/"))}/joint_command` in shown.episode.curves)) continue; // a leader
    paint.setLineDash(topic.endsWith("joint_command") ? [3, 4] : []);
    curve.names.forEach((name, joint) => {
      paint.strokeStyle = COLOURS[joint % COLOURS.length];
      paint.beginPath();
      curve.times.forEach((time, index) => paint.lineTo(x(time), y(curve.values[index][joint])));
      paint.stroke();
      if (topic.endsWith("joint_states")) {
        paint.fillStyle = paint.strokeStyle;
        paint.fillText(name, 8 + 90 * joint, 12);
      }
    });
  }
  paint.setLineDash([]);
  paint.strokeStyle = "#e6ebf0";
  paint.strokeRect(x(shown.time), 0, 0.5, canvas.height);
}

// -- 3D view -------------------------------------------------------------------------------------

async function openView() {
  if (!view) {
    const [{ View3d }, scene] = await Promise.all([import("./view3d.js"), fetch("/scene").then((answer) => answer.json())]);
    view ??= new View3d(byId("view3d-episode"), scene);
  }
  view.clearPath();
  moveView();
}

function moveView() {
  if (!view || !shown) return;
  const angles = {};
  for (const [topic, curve] of Object.entries(shown.episode.curves)) {
    if (!topic.endsWith("/joint_states") || !curve.times.length) continue;
    const values = curve.values[placeOf(curve.times, shown.time, (time) => time)];
    angles[topic.split("/").at(-2)] = Object.fromEntries(curve.names.map((name, index) => [name, values[index]]));
  }
  view.show(angles);
}
