# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch record`: records episodes from the keyboard, or a given number by itself."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import command_line, parsed
from koch_core.errors import KochError
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import say
from koch_core.working import Working
from koch_episodes.recorder import screen as view
from koch_episodes.recorder.keys import Keyboard
from koch_episodes.recorder.plan import (
    Key,
    PlanSettings,
    Presses,
    RecordCommand,
    RecordPlan,
    RecordStep,
)
from koch_episodes.recorder.session import RecorderPhase
from koch_ros.shared_options import (
    EPISODE_ROOT,
    RESET_TIME,
    RIG,
    START_TIMEOUT,
    TASK,
)

if TYPE_CHECKING:
    from koch_episodes.recorder.nodes.client import RecorderClient

_FIND_S = 6.0  # discovery took more than 3 s in one of three tries on a machine at load 10
_OWN_START_S = 20.0
_PERIOD_S = 0.1


class RigNeededError(KochError):
    """No recorder runs and no rig is known to start one with."""

    def __init__(self) -> None:
        super().__init__(
            "No episode recorder runs. Start one with 'koch up --record', or give --rig FILE."
        )


@dataclass(frozen=True, kw_only=True)
class RecordOptions(OptionModel):
    """What `koch record` is asked for."""

    num_episodes: int = option(
        0, "stop after so many saved episodes (default: until q)", low=0, metavar="N"
    )
    episode_time_s: float = option(
        0.0, "end each episode after this time (default: by key)", low=0.0, metavar="S"
    )
    reset_time_s: float = same_as(RESET_TIME, 0.0)
    task: str | None = same_as(TASK, None)
    wait: bool = option(False, "wait for a key before each episode")
    start_timeout_s: float = same_as(START_TIMEOUT, 10.0)
    rig: Path | None = same_as(
        RIG, None, text="start a recorder for this rig when none runs (default: $KOCH_RIG)"
    )
    root: Path | None = same_as(EPISODE_ROOT, None, parse=None)
    plain: bool = option(False, "lines instead of a screen")
    beep: bool = option(False, "beep when the phase changes")


def main(argv: list[str]) -> int:
    """Run the subcommand; 0 when all episodes asked for are saved, 1 when it ended before."""
    options = parse(argv)
    from koch_episodes.recorder.nodes.client import RecorderClient

    with contextlib.ExitStack() as stack:
        client = RecorderClient()
        stack.callback(client.close)
        with Working("koch record: looking for a recorder") as work:
            _find_recorder(client, options, stack, work)
        return record_with(options, client)


def parse(argv: Sequence[str]) -> RecordOptions:
    """Parse the arguments."""
    options: RecordOptions = parsed(_parser(), argv, RecordOptions)
    return options


def _parser() -> argparse.ArgumentParser:
    return command_line(
        "koch record",
        "Record episodes with the arms and cameras that are running (koch up).",
        RecordOptions,
        epilog=f"Keys: {view.KEYS}. Without a terminal it runs by itself.",
    )


def record_with(options: RecordOptions, client: RecorderClient) -> int:
    """Record with a recorder that was found; returns what `main` does."""
    client.set_number("reset_time_s", options.reset_time_s)
    with Keyboard() as keyboard:
        if not keyboard.present and not options.num_episodes:
            _parser().error("without a terminal, say how many: --num-episodes N")
        if not keyboard.present and not options.episode_time_s:
            _parser().error("without a terminal, say how long: --episode-time-s S")
        screen = keyboard.present and sys.stdout.isatty() and not options.plain
        return Recording(options, client, keyboard, on_screen=screen).run()


def _find_recorder(
    client: RecorderClient,
    options: RecordOptions,
    stack: contextlib.ExitStack,
    work: Working,
) -> None:
    """Wait for the running recorder, or start one."""
    from koch_episodes.recorder.nodes.client import OwnRecorder, RecorderGoneError
    from koch_rig.model import named_rig

    if client.wait(_FIND_S):
        return
    rig = named_rig(options.rig)
    if rig is None:
        raise RigNeededError
    work.now("koch record: starting a recorder")
    # The search has met the other nodes: a recorder must take its time from where they do.
    clock = client.follow_graph_clock()
    own = stack.enter_context(OwnRecorder(rig, options.root, use_sim_time=clock))
    if not client.wait(_OWN_START_S, own.check):
        raise RecorderGoneError("it did not start")


class Recording:
    """One run of the subcommand."""

    def __init__(
        self,
        options: RecordOptions,
        client: RecorderClient,
        keyboard: Keyboard,
        *,
        on_screen: bool,
    ) -> None:
        assert client.status is not None
        self._options = options
        self._client = client
        self._keyboard = keyboard
        self._on_screen = on_screen
        settings = PlanSettings(options.num_episodes, options.wait, retry=not keyboard.present)
        self._plan = RecordPlan(settings, client.status.episodes_saved)
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        self._screen = view.Screen(options.num_episodes, colour=colour)
        self._phase = RecorderPhase(client.status.phase)
        self._presses = Presses()
        self._verb = RecordCommand.START

    def run(self) -> int:
        """Record until the plan is done."""
        client, plan = self._client, self._plan
        with self._terminal():
            while not plan.done:
                pressed = self._keyboard.read()
                keys = self._presses.meant(pressed, self._phase, time.monotonic())
                self._highlight(Key.HIGHLIGHT in keys)
                self._next([key for key in keys if key is not Key.HIGHLIGHT])
                client.spin(_PERIOD_S)
                client.check()
                self._show()
        saved = self._saved()
        self._say(f"{saved} episode(s) saved")
        return 0 if not plan.failed and saved >= self._options.num_episodes else 1

    def _saved(self) -> int:
        assert self._client.status is not None
        return self._plan.recorded(self._client.status.episodes_saved)

    def _highlight(self, pressed: bool) -> None:
        """Save the last seconds beside whatever else is going on."""
        highlight = self._client.highlight
        if told := (highlight.ask() if pressed else "") or highlight.answer():
            self._note(told)

    def _next(self, keys: list[Key]) -> None:
        """Do what the plan and the keys ask for, which were pressed in the phase on the screen."""
        status = self._client.status
        assert status is not None
        if self._client.busy:
            step = self._plan.meanwhile(RecorderPhase(status.phase), keys)
            if step is None:
                self._take_answer()
        else:
            step = self._plan.next(RecorderPhase(status.phase), status.episodes_saved, keys)
        if step is not None:
            self._ask(step)

    def _ask(self, step: RecordStep) -> None:
        options = self._options
        self._verb = step.verb
        self._client.ask(
            step,
            task=options.task or "",
            duration_s=options.episode_time_s,
            start_timeout_s=options.start_timeout_s,
        )

    def _take_answer(self) -> None:
        reply = self._client.answer()
        if reply is None:
            return
        self._screen.message = "" if reply.success else reply.message
        if not reply.success:
            self._note(f"{self._verb.value}: {reply.message}")
            if self._verb is RecordCommand.START:
                self._plan.start_failed()
        elif self._verb is not RecordCommand.START:
            self._note(reply.message)
        self._client.spin(0.2)  # the status that follows a reply

    def _show(self) -> None:
        status = self._client.status
        assert status is not None
        phase = RecorderPhase(status.phase)
        if phase is not self._phase:
            self._changed(phase)
        if self._on_screen:
            waits = self._plan.waits_for_key
            sys.stdout.write(self._screen.draw(status, self._saved(), waits=waits))
            sys.stdout.flush()

    def _changed(self, phase: RecorderPhase) -> None:
        status = self._client.status
        assert status is not None
        if self._phase is RecorderPhase.SAVING:
            self._note(f"{Path(status.path).name}: {status.last_verdict}")
        self._phase = phase
        if self._options.beep:
            sys.stdout.write("\a")
        if not self._on_screen and phase in (
            RecorderPhase.WAITING,
            RecorderPhase.RECORDING,
            RecorderPhase.RESETTING,
        ):
            self._say(f"{phase.name.lower()} (episode {status.episode_index})")

    def _note(self, line: str) -> None:
        self._screen.remember(line)
        if not self._on_screen:
            self._say(line)

    def _say(self, line: str) -> None:
        say(line)

    @contextlib.contextmanager
    def _terminal(self) -> Iterator[None]:
        """Use the terminal's other screen, and leave the first one as it was."""
        if not self._on_screen:
            yield
            return
        sys.stdout.write(view.OTHER_SCREEN + view.HIDE_CURSOR + view.CLEAR)
        try:
            yield
        finally:
            sys.stdout.write(view.SHOW_CURSOR + view.FIRST_SCREEN)
            for line in self._screen.history:
                self._say(line)
