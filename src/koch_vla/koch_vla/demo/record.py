# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: the scripted expert demonstrates, the real recorder records."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from koch_core.busy import busy_words
from koch_core.terminal import Progress
from koch_episodes.recorder.nodes.client import EpisodeControl
from koch_rig.load import load_rig
from koch_ros.errors import NoAnswerError, RefusedError
from koch_ros.session import GraphSession
from koch_vla.background import BackgroundGraph
from koch_vla.demo.step import DemoContext, Results
from koch_vla.errors import DemoError
from koch_vla.graph import GraphOptions, build_graph
from koch_vla.learning_steps import Attempts, finished_episodes, record_missing
from koch_vla.nodes.clients import WorldClient
from koch_vla.settings import parse_setting

DEMONSTRATION_S = 60.0
START_S = 240.0  # on a machine at load 33 the nodes' imports took more than a minute
STREAM_TIMEOUT_S = 60.0
SPOILED_ALLOWED = 2  # in a row
REFUSED_S = 2.0  # until a node that refused is asked again
SLOWEST = 0.5  # simulated seconds per second
ON_THE_GRAPH = 2  # demonstrations through all nodes, where the others are recorded in lockstep


class SpoiledError(DemoError):
    """Too many recordings in a row were not to be used: this machine is too slow for the graph.

    Attributes:
        words: What happened, shortly.
    """

    def __init__(self, count: int, verdict: str) -> None:
        self.words = f"{count} recordings in a row were not to be used"
        super().__init__(
            f"{self.words}, the last one: {verdict}. "
            f"{busy_words()} Close other programs, or let the simulation take its time: "
            "--speed 0.5."
        )


class WorldSilentError(DemoError):
    """The simulated world says nothing."""

    def __init__(self, waited_s: float, log: Path) -> None:
        super().__init__(
            f"the simulated world did not start within {waited_s:.0f} s. Look into {log}."
        )


class Tally:
    """What became of the attempts: demonstrations that failed, recordings that were spoiled.

    A recording is spoiled when its verdict is red, which the recorder's `discard_red` throws
    away, or when a node refuses to begin: gaps in a stream or bus cycles without an answer, nearly
    always because the machine had too much to do. That says nothing about the demonstration, so
    the same seed is recorded again. The scripted expert fails rarely; several failures in a row
    come from drivers that lost their servos, on a machine that is busier still.
    """

    def __init__(self) -> None:
        self.spoiled = self._in_a_row = 0

    def kept(self) -> None:
        """A recording was kept."""
        self._in_a_row = 0

    def slowed(self) -> None:
        """The simulation takes more time from now on: what was spoiled before proves nothing."""
        self._in_a_row = 0

    def failed(self) -> None:
        """The block did not get into the cup.

        Raises:
            SpoiledError: As for `was_spoiled`.
        """
        self._count("the block did not get into the cup")

    def was_spoiled(self, verdict: str) -> None:
        """A recording was red, or could not begin.

        Raises:
            SpoiledError: It happened too often without a good one between.
        """
        self.spoiled += 1
        self._count(verdict)

    def _count(self, verdict: str) -> None:
        self._in_a_row += 1
        if self._in_a_row > SPOILED_ALLOWED:
            raise SpoiledError(self._in_a_row, verdict)


def record(context: DemoContext) -> Results:
    """Record as many successful demonstrations as were asked for.

    Raises:
        StepError: The lockstep simulation failed as well.
    """
    settings = context.settings
    folder = settings.folder / "episodes"
    attempts = Attempts(settings.folder / "attempts.json", 1000 * settings.seed)
    tally = Tally()
    kept = finished_episodes(folder)
    if len(kept) < settings.episodes:
        if settings.language:  # the nodes' world has one block
            _record_in_lockstep(context, folder, attempts)
        elif settings.vision:
            _record_both_ways(context, folder, attempts, tally)
        else:
            _record_at_some_speed(context, folder, attempts, tally)
        kept = finished_episodes(folder)
    size_mb = sum(p.stat().st_size for e in kept for p in e.rglob("*") if p.is_file()) / 1e6
    again = f", {tally.spoiled} recorded again" if tally.spoiled else ""
    context.say(f"      {len(kept)} episodes, {size_mb:.0f} MB, {attempts.count} attempts{again}")
    return {
        "episodes": len(kept),
        "attempts": attempts.count,
        "spoiled": tally.spoiled,
        "speed": context.settings.speed,
        "lockstep": context.settings.lockstep or settings.language,
        "megabytes": round(size_mb, 1),
        "folder": str(folder),
    }


def _record_both_ways(
    context: DemoContext, folder: Path, attempts: Attempts, tally: Tally
) -> None:
    """The first demonstrations through all nodes, the others without a clock.

    All that cameras need would take a quarter of an hour in the graph's own time.
    """
    first = min(ON_THE_GRAPH, context.settings.episodes)
    beginning = replace(context, settings=replace(context.settings, episodes=first))
    if len(finished_episodes(folder)) < first:
        _record_at_some_speed(beginning, folder, attempts, tally)
        # A slower pace goes no further: two recordings do not show that rollouts need it as well.
        context.settings = replace(context.settings, lockstep=beginning.settings.lockstep)
    if len(finished_episodes(folder)) < context.settings.episodes:
        context.say(f"      {first} through all nodes; the others in lockstep")
        _record_in_lockstep(context, folder, attempts)


def _record_in_lockstep(context: DemoContext, folder: Path, attempts: Attempts) -> None:
    settings = context.settings
    words = ["--rig", str(settings.rig), "--jobs", str(os.cpu_count() or 1)]
    words += ["--even"]  # a policy fails where few demonstrations begin: docs/learning.md
    words += settings.scene("train")
    log = settings.folder / "logs/record.log"
    record_missing(folder, settings.episodes, attempts, words, log, context.say)


def _record_at_some_speed(
    context: DemoContext, folder: Path, attempts: Attempts, tally: Tally
) -> None:
    """Record; let the simulation take twice its time when this machine cannot keep up with it.

    The figures are those of simulated time, and a policy is measured by them: only the wall clock
    shows the difference. When that does not help, no clock is kept at all.
    """
    while True:
        try:
            _record_on_the_graph(context, folder, attempts, tally)
        except (SpoiledError, NoAnswerError, WorldSilentError) as error:
            speed = context.settings.speed / 2.0
            why = error.words if isinstance(error, SpoiledError) else str(error).partition(". ")[0]
            if speed < SLOWEST:
                context.say(f"      {why}: going on in lockstep. {busy_words()}".rstrip())
                context.settings = replace(context.settings, lockstep=True)
                _record_in_lockstep(context, folder, attempts)
                return
            context.say(f"      {why}: going on at {speed:g} x")
            context.settings = replace(context.settings, speed=speed)
            tally.slowed()
        else:
            return


def _record_on_the_graph(
    context: DemoContext, folder: Path, attempts: Attempts, tally: Tally
) -> None:
    settings = context.settings
    rig = load_rig(settings.rig)
    options = GraphOptions(
        record=True,
        record_root=str(folder),
        speed=settings.speed,
        settings=(parse_setting("recorder.discard_red=true"),),
    )
    log = settings.folder / "logs/record.log"
    with (
        BackgroundGraph(build_graph(rig, options), log) as graph,
        GraphSession("demo") as opened,
    ):
        world = WorldClient(opened, graph.check, settings.speed)
        recorder = EpisodeControl(opened, graph.check)
        if not world.wait(lambda task: True, START_S):
            raise WorldSilentError(START_S, log)
        _record_the_missing(context, folder, attempts, tally, rig.task, world, recorder)


def _record_the_missing(
    context: DemoContext,
    folder: Path,
    attempts: Attempts,
    tally: Tally,
    task: str,
    world: WorldClient,
    recorder: EpisodeControl,
) -> None:
    """Demonstrate until there are enough; a table is tried again after a refused or red one."""
    episodes = context.settings.episodes
    done = len(finished_episodes(folder))
    progress = Progress(context.say, "episodes", episodes, done)
    seed = attempts.next_seed()
    while done < episodes:
        try:
            world.reset(seed)
            recorder.start(task, world.patience_s(STREAM_TIMEOUT_S))
        except RefusedError as error:
            context.say(f"      {error} {busy_words()}".rstrip())
            tally.was_spoiled(str(error))
            world.wait(lambda task: False, REFUSED_S)
            continue
        verdict = _demonstrate(world, recorder)
        before, done = done, len(finished_episodes(folder))
        if verdict is None:
            tally.failed()
        elif done == before:
            context.say(f"      again, {_shortened(verdict)} {busy_words()}".rstrip())
            tally.was_spoiled(verdict)
            continue
        else:
            tally.kept()
            progress.show(done, _shortened(verdict))
        if done < episodes:
            seed = attempts.next_seed()


def _shortened(verdict: str) -> str:
    return verdict if len(verdict) < 60 else f"{verdict[:57]}..."


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
