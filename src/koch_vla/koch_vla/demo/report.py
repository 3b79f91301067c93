# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: what came out, as a table and as one HTML page with its pictures inside."""

from __future__ import annotations

import base64
import html
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_rig.files import write_whole
from koch_rig.terminal import duration
from koch_vla.demo.step import DemoContext, Results
from koch_vla.machine import machine, versions

SHEET = "contact_sheet.png"
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 1em 0; } td, th { padding: .25em .8em; text-align: left;
border-bottom: 1px solid #ddd; } img { max-width: 100%; border: 1px solid #ddd; }
figure { margin: 1.5em 0; } figcaption { color: #555; } .good { color: #1a7f37; }
.bad { color: #c0392b; }
"""


@dataclass(frozen=True)
class Picture:
    """A PNG and what it shows."""

    title: str
    path: Path


def rows(results: Mapping[str, Results]) -> list[tuple[str, str]]:
    """Turn the results of the steps into lines of a table, in the order of the loop."""
    found: list[tuple[str, str]] = []
    drive = results.get("drive", {})
    if drive:
        found.append(
            (
                "arm rates",
                "leader {leader_rate_hz:.0f} Hz, follower {follower_rate_hz:.0f} Hz".format(
                    **drive
                ),
            )
        )
        found.append(
            (
                "follower behind leader",
                "{lag_ms:.0f} ms, then within {worst_error_deg:.1f} deg".format(**drive),
            )
        )
    record = results.get("record", {})
    if record:
        found.append(
            (
                "demonstrations",
                "{episodes} kept of {attempts} tried, {megabytes:.0f} MB".format(**record),
            )
        )
    convert = results.get("convert", {})
    if convert:
        found.append(
            (
                "dataset",
                "{episodes} episodes, {frames} frames at {fps}/s, "
                "{megabytes:.0f} MB with video".format(**convert),
            )
        )
    found += _training(results.get("train", {}))
    found += _rollouts(results.get("rollouts", {}))
    spent = {name: step["seconds"] for name, step in results.items() if "seconds" in step}
    if spent:
        parts = ", ".join(f"{name} {duration(seconds)}" for name, seconds in spent.items())
        found.append(("time", f"{duration(sum(spent.values()))} ({parts})"))
    return found


def _training(train: Results) -> list[tuple[str, str]]:
    found = []
    for key, label in (("loss", "training loss"), ("validation_loss", "validation loss")):
        if key in train:
            found.append((label, f"{train[key]:.4f} after {train.get('step', 0):.0f} steps"))
    if "error" in train:
        found.append(("open-loop action error", f"{train['error']:.2f} (mean over joints)"))
    return found


def _rollouts(rollouts: Results) -> list[tuple[str, str]]:
    """Lines about what `koch eval` wrote."""
    if not rollouts:
        return []
    low, high = rollouts["success_interval"]
    text = "{successes} of {rollouts}".format(**rollouts)
    found = [("success of the policy", f"{text} (95 % interval {low:.0%} to {high:.0%})")]
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


def write_html(
    path: Path,
    title: str,
    table: list[tuple[str, str]],
    pictures: Iterable[Picture],
    files: Mapping[str, str],
) -> None:
    """Write the page; pictures stand inside it, so that it can be passed on as one file."""

    def cells(pairs: Iterable[tuple[str, str]]) -> str:
        lines = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in pairs
        )
        return "<table>" + "\n".join(lines) + "</table>"

    figures = []
    for picture in pictures:
        data = base64.b64encode(picture.path.read_bytes()).decode()
        caption = html.escape(picture.title)
        figures.append(
            f'<figure><img alt="{caption}" src="data:image/png;base64,{data}">'
            f"<figcaption>{caption}</figcaption></figure>"
        )
    text = "\n".join(
        [
            "<!doctype html>",
            f'<html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>',
            f"<style>{STYLE}</style><h1>{html.escape(title)}</h1>",
            f"<p>{time.strftime('%Y-%m-%d %H:%M')}</p>",
            cells(table),
            *figures,
            "<h2>Files</h2>",
            cells(files.items()),
            "<h2>Machine</h2>",
            cells([*machine().items(), *versions().items()]),
            "</html>\n",
        ]
    )
    write_whole(path, text)


def text_table(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """The same table for a terminal."""
    listed = list(pairs)
    width = max((len(name) for name, _ in listed), default=0)
    return [f"  {name:<{width}}  {value}" for name, value in listed]


def report(context: DemoContext) -> Results:
    """Write the page and print the table."""
    settings, results = context.settings, context.results
    table = rows(results)
    candidates = [
        Picture("A demonstration under way", _path(results, "pictures", "scene")),
        Picture("One recorded episode", _path(results, "pictures", "episode")),
        Picture("Loss over the training", _path(results, "train", "folder", "loss.png")),
        Picture("The end of each rollout", _path(results, "rollouts", "folder", SHEET)),
    ]
    pictures = [picture for picture in candidates if picture.path.is_file()]
    files = {
        "episodes": str(results.get("record", {}).get("folder", "")),
        "dataset": str(results.get("convert", {}).get("dataset", "")),
        "checkpoint": str(results.get("train", {}).get("checkpoint", "")),
        "rollouts": str(results.get("rollouts", {}).get("folder", "")),
        "logs": str(settings.folder / "logs"),
    }
    page = settings.folder / f"report_{settings.variant}.html"
    write_html(page, f"koch_vla demo: {settings.variant}", table, pictures, files)
    for line in text_table([*table, *((k, v) for k, v in files.items() if v)]):
        context.say(line)
    context.say(f"  report: {page}")
    return {"page": str(page)}


def _path(results: Mapping[str, Results], step: str, key: str, name: str = "") -> Path:
    value: Any = results.get(step, {}).get(key)
    return Path(value) / name if value else Path("nowhere")
