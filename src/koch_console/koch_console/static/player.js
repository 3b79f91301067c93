// SPDX-FileCopyrightText: 2026 The koch_vla authors
// SPDX-License-Identifier: Apache-2.0
// The player: images or videos of all cameras, curves, film strip and 3D view under one time.

import { byId, element } from "./page.js";

const BLOCK = 45; // images that are fetched at once
const STRIP = 12; // images of the film strip
const APART_S = 0.12; // a video that is off by more is put right while it plays
const COLOURS = ["#e5484d", "#e0a030", "#3fb868", "#5aa2f0", "#b07cf0", "#50c8c8"];
let shown = null;
let view = null;

/**
 * Show an episode.
 *
 * films: of `Film` or `Video`. curves: {names, times, values, isGoal}. angles(time): joints by arm
 * for the 3D view, or null where the units are not known to be radians.
 */
export function show({ films, curves, length, angles = null }) {
  pause();
  shown = { films, curves, length, angles, bounds: boundsOf(curves), time: 0, keep: null };
  byId("player").hidden = false;
  byId("films").replaceChildren(...films.map((film) => film.place));
  byId("time").max = length;
  byId("view3d-episode").hidden = !angles;
  seek(0);
  if (angles) openView();
  drawStrip();
}

export function close() {
  pause();
  shown = null;
  byId("films").replaceChildren();
  byId("player").hidden = true;
}

export function time() { return shown?.time ?? 0; }

/** Show which part would be kept: [from, to] in seconds, or null for all. */
export function keep(span) {
  if (!shown) return;
  shown.keep = span;
  drawCurves();
}

function boundsOf(curves) {
  const values = curves.flatMap((curve) => curve.values).flat();
  const low = values.reduce((a, b) => Math.min(a, b), 0);
  return [low, Math.max(low + 0.1, values.reduce((a, b) => Math.max(a, b), 0))];
}

/** Index of the last item that is not later than a time. */
export function placeOf(items, time, timeOf) {
  let low = 0;
  let high = items.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (timeOf(items[middle]) <= time) low = middle + 1;
    else high = middle;
  }
  return Math.max(0, low - 1);
}

// -- cameras -------------------------------------------------------------------------------------

/** The images of one camera of a recording; blocks of them are fetched by ranges of bytes. */
export class Film {
  constructor(url, camera, images) {
    this.url = url;
    this.images = images;
    this.blocks = new Map();
    this.place = element("canvas", { width: 640, height: 480, title: camera });
  }

  bytes(first, end) {
    return fetch(this.url, { headers: { Range: `bytes=${first}-${end - 1}` } }).then((answer) => answer.arrayBuffer());
  }

  block(number) {
    if (number * BLOCK >= this.images.length) return null;
    if (!this.blocks.has(number)) {
      const part = this.images.slice(number * BLOCK, (number + 1) * BLOCK);
      const [, last, length] = part.at(-1);
      this.blocks.set(number, this.bytes(part[0][1], last + length));
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
    if (this.place.width !== bitmap.width) Object.assign(this.place, { width: bitmap.width, height: bitmap.height });
    this.place.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap.close();
  }

  halt() {}

  /** Images at some times, one after the other. */
  async *grab(times) {
    for (const time of times) {
      const [, begin, length] = this.images[placeOf(this.images, time, (image) => image[0])];
      yield createImageBitmap(new Blob([await this.bytes(begin, begin + length)], { type: "image/jpeg" }));
    }
  }
}

/** The stretch of a video file that shows one episode; the browser fetches ranges of it. */
export class Video {
  constructor(url, camera, from) {
    Object.assign(this, { url, from });
    this.video = element("video", { src: url, muted: true, playsInline: true, preload: "auto", title: camera });
    this.place = element("div", { className: "video" }, this.video);
    this.video.addEventListener("error", () => {
      this.place.textContent = `${camera}: this browser cannot show the video's codec.`;
    });
  }

  show(time, isPlaying) {
    // Half a frame on: at its very time a frame may not be there yet.
    const wanted = this.from + time + 0.005;
    if (isPlaying && this.video.paused) this.video.play().catch(() => {}); // it was paused meanwhile
    if (!isPlaying || Math.abs(this.video.currentTime - wanted) > APART_S) this.video.currentTime = wanted;
  }

  halt() { this.video.pause(); }

  async *grab(times) {
    const video = element("video", { src: this.url, muted: true, preload: "auto" });
    for (const time of times) {
      await new Promise((done, failed) => {
        video.onseeked = done;
        video.onerror = failed;
        video.currentTime = this.from + time + 0.005;
      });
      yield video;
    }
    video.removeAttribute("src");
  }
}

async function drawStrip() {
  const strip = byId("strip");
  const mine = shown;
  const film = mine.films[0];
  strip.replaceChildren();
  strip.hidden = !film || film.images?.length === 0;
  if (strip.hidden) return;
  const times = Array.from({ length: STRIP }, (_, index) => (index * mine.length) / STRIP);
  let index = 0;
  try {
    for await (const image of film.grab(times)) {
      if (shown !== mine) return;
      const at = times[index++];
      const small = element("canvas", { width: 96, height: 72, title: `${at.toFixed(1)} s` });
      small.getContext("2d").drawImage(image, 0, 0, 96, 72);
      small.addEventListener("click", () => { pause(); seek(at); });
      strip.append(small);
    }
  } catch {
    strip.hidden = true; // the film itself says why
  }
}

// -- playing -------------------------------------------------------------------------------------

let playing = 0;

export function seek(time) {
  shown.time = Math.min(shown.length, Math.max(0, time));
  byId("time").value = shown.time;
  byId("clock").textContent = `${shown.time.toFixed(2)} / ${shown.length.toFixed(1)} s`;
  for (const film of shown.films) film.show(shown.time, Boolean(playing));
  drawCurves();
  moveView();
}

function play() {
  let last = performance.now();
  shown.time = shown.time >= shown.length ? 0 : shown.time;
  byId("play").textContent = "Pause";
  const step = (now) => {
    seek(shown.time + (now - last) / 1000);
    last = now;
    if (shown.time >= shown.length) pause();
    else playing = requestAnimationFrame(step);
  };
  playing = requestAnimationFrame(step);
}

export function pause() {
  cancelAnimationFrame(playing);
  playing = 0;
  byId("play").textContent = "Play";
  for (const film of shown?.films ?? []) film.halt();
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
  const y = (value) => canvas.height - 6 - ((value - low) / (high - low)) * (canvas.height - 44);
  for (const curve of shown.curves) {
    paint.setLineDash(curve.isGoal ? [3, 4] : []);
    curve.names.forEach((_, joint) => {
      paint.strokeStyle = COLOURS[joint % COLOURS.length];
      paint.beginPath();
      curve.times.forEach((time, index) => paint.lineTo(x(time), y(curve.values[index][joint])));
      paint.stroke();
    });
  }
  paint.setLineDash([]);
  if (shown.keep) {
    paint.fillStyle = "#0009";
    paint.fillRect(0, 0, x(shown.keep[0]), canvas.height);
    paint.fillRect(x(shown.keep[1]), 0, width, canvas.height);
  }
  drawLegend(paint, width);
  paint.strokeStyle = "#e6ebf0";
  paint.strokeRect(x(shown.time), 0, 0.5, canvas.height);
}

function drawLegend(paint, width) {
  const names = (shown.curves.find((curve) => !curve.isGoal) ?? shown.curves[0])?.names ?? [];
  let [left, top] = [8, 12];
  names.forEach((name, joint) => {
    const wide = paint.measureText(name).width + 14;
    if (left + wide > width) [left, top] = [8, top + 14];
    paint.fillStyle = COLOURS[joint % COLOURS.length];
    paint.fillText(name, left, top);
    left += wide;
  });
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
  if (view && shown?.angles) view.show(shown.angles(shown.time));
}
