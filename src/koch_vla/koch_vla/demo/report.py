# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: what came out, as a table and as one HTML page with its images inside."""

from __future__ import annotations

import base64
import html
import os
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from koch_core.files import write_atomically
from koch_core.terminal import duration
from koch_rig.load import load_rig
from koch_vla.demo.step import DemoContext, DemoSettings, Results
from koch_vla.machine import machine, versions

SHEET, FILM = "contact_sheet.png", "rollouts.mp4"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .8em; text-align: left;
border-bottom: 1px solid #ddd; } img { max-width: 100%; border: 1px solid #ddd; }
video { width: 100%; max-width: 640px; } td { overflow-wrap: anywhere; } code { font-size: .9em; }
figure { margin: 1.5em 0; } figcaption { color: #555; } .good { color: #1a7f37; }
.bad { color: #c0392b; }
"""


@dataclass(frozen=True)
class ReportImage:
    """A PNG or MP4 file and what it shows."""

    title: str
    path: Path

    @property
    def is_film(self) -> bool:
        """It moves."""
        return self.path.suffix == ".mp4"


def rows(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """Turn the results of the steps into lines of a table, in the order of the loop."""
    found = _driving(results.get("drive", {}))
    found += _recording(results.get("record", {}))
    if convert := results.get("convert"):
        text = "{episodes} episodes, {frames} frames at {fps}/s, {megabytes:.0f} MB with video"
        found.append(("dataset", text.format(**convert)))
    found += _training(results.get("train", {}))
    found += _rollouts(results.get("rollouts", {}))
    found += _sentences(results.get("rollouts", {}))
    spent = {name: step["seconds"] for name, step in results.items() if "seconds" in step}
    if spent:
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent.items())
        found.append(("time", f"{duration(sum(spent.values()))} ({parts})"))
    return found


def _driving(drive: Results) -> list[tuple[str, str]]:
    if not drive:
        return []
    rates = "leader {leader_rate_hz:.0f} Hz, follower {follower_rate_hz:.0f} Hz"
    lag = "{lag_ms:.0f} ms, then within {worst_error_deg:.1f} deg"
    return [
        ("arm rates", rates.format(**drive)),
        ("follower behind leader", lag.format(**drive)),
    ]


def _recording(record: Results) -> list[tuple[str, str]]:
    if not record:
        return []
    kept = "{episodes} kept of {attempts} tried, {megabytes:.0f} MB".format(**record)
    again = f"; {record['spoiled']} recorded again" if record.get("spoiled") else ""
    share = record["episodes"] / max(1, record["attempts"])
    success = "{episodes} of {attempts}".format(**record) + f" ({share:.0%})"
    return [("demonstrations", kept + again), ("success of the scripted expert", success)]


def _training(train: Results) -> list[tuple[str, str]]:
    found = []
    for key, label in (("loss", "training loss"), ("validation_loss", "validation loss")):
        if key in train:
            found.append((label, f"{train[key]:.4f} after {train.get('step', 0):.0f} steps"))
    if "error" in train:
        found.append(
            ("open-loop action error", f"{train['error']:.2f} (LeRobot's units, mean over joints)")
        )
    return found


def _rollouts(rollouts: Results) -> list[tuple[str, str]]:
    """Lines about what `koch eval` wrote."""
    if not rollouts:
        return []
    low, high = rollouts["success_interval"]
    text = "{successes} of {rollouts}".format(**rollouts)
    found = [("success of the policy", f"{text} (95 % interval {low:.0%} to {high:.0%})")]
    if rollouts.get("void"):
        found.append(
            ("void rollouts, not counted", f"{len(rollouts['void'])} (streams were late)")
        )
    if rollouts.get("median_success_s") is not None:
        found.append(("time of a successful rollout", f"{rollouts['median_success_s']:.1f} s"))
    policy = rollouts.get("policy", {})
    if "delay_p50_s" in policy:
        delay = "median {:.0f} ms, 95th percentile {:.0f} ms ({})".format(
            1e3 * policy["delay_p50_s"], 1e3 * policy["delay_p95_s"], policy.get("runtime", "?")
        )
        found.append(("inference delay", delay))
    guard = rollouts.get("guard", {})
    most = sorted(guard.items(), key=lambda item: -item[1])[:3]
    named = ", ".join(f"{name} {count}" for name, count in most)
    changes = f"{sum(guard.values())} bus cycles{f' ({named}, ...)' if named else ''}"
    found.append(("changed by the guard", changes))
    return found


def _sentences(rollouts: Results) -> list[tuple[str, str]]:
    """What the policy did for each sentence, where it was told several."""
    told: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for trial in rollouts.get("trials", []):
        told.setdefault((trial.get("asked", ""), trial.get("sentence", "")), []).append(trial)
    if len({asked for asked, _ in told}) < 2:
        return []
    found = []
    for (asked, sentence), trials in sorted(told.items()):
        done = sum(trial["success"] for trial in trials)
        lifted = Counter(trial["lifted"] for trial in trials if trial["lifted"])
        named = ", ".join(f"{thing.replace('_', ' ')} {n}" for thing, n in lifted.most_common())
        text = f"{done} of {len(trials)} succeeded; lifted first: {named or 'nothing'}"
        found.append((f'"{sentence or asked}"', text))
    return found


@dataclass(frozen=True)
class Page:
    """A report for people, as one HTML file with its images and films inside.

    Attributes:
        title: Also the name of the window.
        headline: What came out, in one sentence.
        lead: What was done.
        table: Names and values.
        images: PNG and MP4 files.
        files: What lies where; linked.
        commands: What one may want to do next, and the command.
    """

    title: str
    headline: str
    lead: str
    table: Sequence[tuple[str, str]]
    images: Sequence[ReportImage] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    commands: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the page; it can be passed on as one file."""
        links = [(name, _link(value, path.parent)) for name, value in self.files.items() if value]
        commands = [(k, f"<code>{html.escape(v)}</code>") for k, v in self.commands.items()]
        machine_rows = [*machine().items(), *versions().items()]
        text = "\n".join(
            [
                "<!doctype html>",
                '<html lang="en"><meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                f"<title>{html.escape(self.title)}</title>",
                f"<style>{STYLE}</style>",
                f"<p>{html.escape(self.title)}, {time.strftime('%Y-%m-%d %H:%M')}</p>",
                f"<h1>{html.escape(self.headline)}</h1>",
                f"<p>{html.escape(self.lead)}</p>",
                *map(_figure, (item for item in self.images if item.is_film)),
                _rows(_escaped(self.table)),
                *map(_figure, (item for item in self.images if not item.is_film)),
                "<h2>Go on</h2>",
                _rows(commands),
                "<h2>Files</h2>",
                _rows(links),
                "<h2>Machine</h2>",
                _rows(_escaped(machine_rows)),
                "</html>\n",
            ]
        )
        write_atomically(path, text)


def _escaped(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name, html.escape(value)) for name, value in pairs]


def _rows(pairs: Iterable[tuple[str, str]]) -> str:
    """A table of names, which are texts, and cells, which are HTML."""
    lines = (f"<tr><th>{html.escape(name)}</th><td>{cell}</td></tr>" for name, cell in pairs)
    return "<table>" + "\n".join(lines) + "</table>"


def _link(target: str, folder: Path) -> str:
    reference = quote(os.path.relpath(target, folder))
    return f'<a href="{reference}">{html.escape(target)}</a>'


def _figure(image: ReportImage) -> str:
    data = base64.b64encode(image.path.read_bytes()).decode()
    caption = html.escape(image.title)
    if image.is_film:
        shown = (
            "<video controls autoplay muted loop playsinline "
            f'src="data:video/mp4;base64,{data}"></video>'
        )
    else:
        shown = f'<img alt="{caption}" src="data:image/png;base64,{data}">'
    return f"<figure>{shown}<figcaption>{caption}</figcaption></figure>"


def headline(results: Mapping[str, Results], task: str) -> str:
    """What came out, in one sentence."""
    rollouts = results.get("rollouts", {})
    if not rollouts.get("rollouts"):
        return f"{task} No rollout counted."
    return (
        "The policy succeeded in {successes} of {rollouts} runs on tables that it had not "
        "seen.".format(**rollouts)
    )


def lead(settings: DemoSettings, results: Mapping[str, Results], task: str) -> str:
    """What was done, for someone who has not read anything else."""
    steps = results.get("train", {}).get("step", 0)
    sees = "camera images" if settings.vision else "joint angles and the places of block and cup"
    if settings.language:
        sees += ", and is told which block to take in words that no demonstration used"
    return (
        f"Task: {task} A scripted expert moved the leader arm in {settings.episodes} "
        f"demonstrations; a policy ({settings.policy}) learned from them in {steps:.0f} steps and "
        f"then drove the follower by itself. It sees {sees}. Everything is simulated but the "
        "software: emulated servos, rendered cameras, the nodes of the real arms."
    )


def text_table(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The same table for a terminal."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in listed]


def report(context: DemoContext) -> Results:
    """Write the page and print the table."""
    settings, results = context.settings, context.results
    task = load_rig(settings.rig).task
    if settings.language:
        task = "Put the one of three blocks that a sentence names into the cup."
    files = {
        "episodes": str(results.get("record", {}).get("folder", "")),
        "dataset": str(results.get("convert", {}).get("dataset", "")),
        "checkpoint": str(results.get("train", {}).get("checkpoint", "")),
        "rollouts": str(results.get("rollouts", {}).get("folder", "")),
        "logs": str(settings.folder / "logs"),
    }
    checkpoint = files["checkpoint"]
    more = "".join(f" {word}" for word in ["--lockstep", *settings.scene("train")])
    more = more if settings.language else ""
    page = Page(
        title=f"koch_vla demo: {settings.variant}",
        headline=headline(results, task),
        lead=lead(settings, results, task),
        table=rows(results),
        images=[image for image in _images(results) if image.path.is_file()],
        files=files,
        commands={
            "run the policy on more tables": f"./koch eval --policy {checkpoint} -n 50{more}",
            "look into the dataset": f"./koch inspect {files['dataset']}",
            "another policy": "./koch demo --policy flow",
            "told the true poses": "./koch demo --quick",
            "told by a sentence what to do": "./koch demo --language",
        },
    )
    path = settings.folder / f"report_{settings.variant}.html"
    page.write(path)
    context.say(f"  {page.headline}")
    for line in text_table([*page.table, *((k, v) for k, v in files.items() if v)]):
        context.say(line)
    context.say(f"  report: {path}")
    return {"page": str(path)}


def _images(results: Mapping[str, Results]) -> list[ReportImage]:
    """What the page shows, as far as its files are there."""
    return [
        ReportImage("A demonstration by the scripted expert", _path(results, "images", "film")),
        ReportImage(
            "The policy's rollouts, one after the other",
            _path(results, "rollouts", "folder", FILM),
        ),
        ReportImage(
            "The end of each rollout: green is a success",
            _path(results, "rollouts", "folder", SHEET),
        ),
        ReportImage("A demonstration under way", _path(results, "images", "scene")),
        ReportImage("One recorded episode", _path(results, "images", "episode")),
        ReportImage("Loss over the training", _path(results, "train", "folder", "loss.png")),
    ]


def _path(results: Mapping[str, Results], step: str, key: str, name: str = "") -> Path:
    value: Any = results.get(step, {}).get(key)
    return Path(value) / name if value else Path("nowhere")
