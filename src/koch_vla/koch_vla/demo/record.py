# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: the scripted hand demonstrates, the real recorder records."""

from __future__ import annotations

import json
from pathlib import Path

from koch_episodes.errors import RefusedError
from koch_episodes.nodes.session import Session
from koch_episodes.recorder.nodes.client import EpisodeControl
from koch_rig.load import load_rig
from koch_rig.terminal import Progress
from koch_vla.background import BackgroundGraph
from koch_vla.demo.step import DemoContext, Results
from koch_vla.errors import DemoError
from koch_vla.graph import GraphOptions, build_graph
from koch_vla.nodes.clients import WorldClient

DEMONSTRATION_S = 60.0
START_S = 60.0
STREAM_TIMEOUT_S = 20.0
FAILURES_ALLOWED = 10
PARTIAL = ".partial"


def finished_episodes(folder: Path) -> list[Path]:
    """List the whole episodes of a folder, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(
        path.parent for path in folder.glob("*/metadata.yaml") if PARTIAL not in path.parent.name
    )


class Attempts:
    """Counts the seeds that were tried, across interruptions.

    Args:
        path: Where the count is kept.
        first: First seed.
    """

    def __init__(self, path: Path, first: int) -> None:
        self._path = path
        try:
            self.count = int(json.loads(path.read_text())["attempts"])
        except (OSError, ValueError, KeyError, TypeError):
            self.count = 0
        self._first = first

    def next_seed(self) -> int:
        """Take the next seed; it is not used again, whatever becomes of it."""
        seed = self._first + self.count
        self.count += 1
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(json.dumps({"attempts": self.count}))
        return seed


def record(context: DemoContext) -> Results:
    """Record as many successful demonstrations as were asked for.

    Raises:
        DemoError: The hand failed too often.
    """
    settings = context.settings
    folder = settings.folder / "episodes"
    wanted = settings.episodes
    attempts = Attempts(settings.folder / "attempts.json", 1000 * settings.seed)
    kept = finished_episodes(folder)
    if len(kept) < wanted:
        _record_missing(context, folder, attempts)
        kept = finished_episodes(folder)
    size_mb = sum(p.stat().st_size for e in kept for p in e.rglob("*") if p.is_file()) / 1e6
    context.say(f"      {len(kept)} episodes, {size_mb:.0f} MB, {attempts.count} attempts")
    return {
        "episodes": len(kept),
        "attempts": attempts.count,
        "megabytes": round(size_mb, 1),
        "folder": str(folder),
    }


def _record_missing(context: DemoContext, folder: Path, attempts: Attempts) -> None:
    settings = context.settings
    rig = load_rig(settings.rig)
    specs = build_graph(rig, GraphOptions(record=True, record_root=str(folder)))
    log = settings.folder / "logs/record.log"
    failures = 0
    with BackgroundGraph(specs, log) as graph, Session("demo") as opened:
        world, recorder = WorldClient(opened, graph.check), EpisodeControl(opened, graph.check)
        if not world.wait(lambda task: True, START_S):
            raise DemoError(f"the simulated world did not start. Look into {log}.")
        done = len(finished_episodes(folder))
        progress = Progress(context.say, "episodes", settings.episodes, done)
        while done < settings.episodes:
            if failures > FAILURES_ALLOWED:
                raise DemoError(f"{failures} demonstrations failed. Look into {log}.")
            try:
                world.reset(attempts.next_seed())
                recorder.start(rig.task, STREAM_TIMEOUT_S)
            except RefusedError as error:
                context.say(f"      {error}")
                failures += 1
                continue
            verdict = _demonstrate(world, recorder)
            if verdict is None:
                failures += 1
                continue
            done = len(finished_episodes(folder))
            progress.show(done, verdict if len(verdict) < 60 else f"{verdict[:57]}...")


def _demonstrate(world: WorldClient, recorder: EpisodeControl) -> str | None:
    """One demonstration; the recorder's verdict, None when the block is not in the cup."""
    try:
        world.demonstrate()
        ended = world.wait(lambda task: task.detail in ("done", "failed"), DEMONSTRATION_S)
    except RefusedError:
        ended = False
    success = bool(ended and world.task is not None and world.task.success)
    _, verdict = recorder.stop("success" if success else "failure", keep=success)
    return verdict if success else None
