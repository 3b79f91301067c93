# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A number of runs on the arm, judged by a person: reset, run, verdict, and a table at the end.

A policy is told apart from another only by what it does in the same set-ups. So the first image of
a set-up is kept, and while the table is laid out again `reset.png` shows it half-transparent over
what the camera sees now. Results are written after each run: a person may stop at any time.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.files import write_atomically
from koch_core.image import decode_image, save_image
from koch_core.terminal import LinePart, StatusLine, limit, say
from koch_episodes.contact_sheet import write_contact_sheet
from koch_policy.arm_trials import FAILURES, ArmEvaluation, ArmTrial, schedule
from koch_policy.watched_run import RunRequest, watched_run

if TYPE_CHECKING:
    from koch_episodes.recorder.keys import Keyboard
    from koch_policy.nodes.onlooker import Onlooker
    from koch_policy.nodes.run_client import RunClient
    from koch_policy.watched_run import RunRecord

_PERIOD_S = 0.1
_OVERLAY_S = 1.0
_VERDICTS = {"s": "success", "f": "failure", "n": ""}


@dataclass(frozen=True)
class JudgeSettings:
    """What is asked for.

    Attributes:
        setups: How many set-ups each policy tries.
        reset_time_s: Pause before each run; 0: until a key is pressed.
        out: Folder of the results.
        request: What is asked of each run.
        seed: Of the order in which policies try a set-up.
    """

    setups: int
    reset_time_s: float
    out: Path
    request: RunRequest
    seed: int = 0


class Judge:
    """Leads a person through all runs.

    Args:
        settings: What is asked for.
        client: Runs policies; a recorder's episodes beside.
        keyboard: Keys of the person.
        onlooker: Sees the table and the guard.
        load: Makes a checkpoint ready.
    """

    def __init__(
        self,
        settings: JudgeSettings,
        client: RunClient,
        keyboard: Keyboard,
        onlooker: Onlooker,
        load: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._client = client
        self._keyboard = keyboard
        self._onlooker = onlooker
        self._load = load
        self._ends: list[tuple[bytes, bool | None]] = []
        self._layouts: dict[int, bytes] = {}

    def run(self, policies: Mapping[str, str]) -> ArmEvaluation:
        """Let each policy try all set-ups, or as many as the person wants.

        Args:
            policies: Checkpoints by name.
        """
        settings, evaluation = self._settings, ArmEvaluation(policies)
        settings.out.mkdir(parents=True, exist_ok=True)
        order = schedule(list(policies), settings.setups, settings.seed)
        for number, (setup, policy) in enumerate(order, 1):
            self._load(policies[policy])
            self._onlooker.go_home()
            if not self._reset(setup, f"run {number} of {len(order)}"):
                break
            trial = self._trial(setup, policy)
            evaluation.trials.append(trial)
            self._write(evaluation)
            if trial.run.quit:
                break
        self._onlooker.go_home()
        for line in evaluation.table(limit()):
            say(line)
        say(f"written to {settings.out}")
        return evaluation

    def _reset(self, setup: int, head: str) -> bool:
        """Wait until the table is laid out; False where the person wants no more runs."""
        pause_s, layout = self._settings.reset_time_s, self._layouts.get(setup)
        what = f"{head}: lay out set-up {setup}"
        if layout is not None:
            shows = self._settings.out / "reset.png"
            what = (
                f"{head}: put everything back as it was when set-up {setup} was first tried; "
                f"{shows} shows that over what is there now"
            )
        keys = "space runs, q ends" if self._keyboard.present else ""
        self._keyboard.forget()  # before the question: an answer may come at once
        say(f"{what}. {keys}".strip())
        end_s = time.monotonic() + pause_s if pause_s or not self._keyboard.present else None
        line, shown_s = StatusLine(), 0.0
        try:
            while end_s is None or time.monotonic() < end_s:
                self._client.spin(_PERIOD_S)
                names = [name.lower() for name in self._keyboard.read_names()]
                if "q" in names or "escape" in names:
                    return False
                if " " in names or "right" in names:
                    return True
                if layout is not None and time.monotonic() - shown_s > _OVERLAY_S:
                    shown_s = time.monotonic()
                    self._overlay(layout)
                if end_s is not None:
                    line.show([LinePart(f"{max(0.0, end_s - time.monotonic()):.0f} s", 0)])
        except KeyboardInterrupt:
            return False
        finally:
            line.end()
        return True

    def _overlay(self, layout: bytes) -> None:
        """Write the set-up as it was over the one that is there now."""
        now = self._onlooker.image
        if now is None:
            return
        before, current = decode_image(layout), decode_image(now)
        if before.shape == current.shape:
            save_image(self._settings.out / "reset.png", before // 2 + current // 2)

    def _trial(self, setup: int, policy: str) -> ArmTrial:
        onlooker = self._onlooker
        if onlooker.image is not None:
            self._layouts.setdefault(setup, onlooker.image)
        onlooker.begin()
        run = watched_run(self._client, self._settings.request, self._keyboard)
        image, changes = onlooker.image, onlooker.changes()  # before a person reaches in
        try:
            run, failure = self._verdict(run)
        except KeyboardInterrupt:  # the run counts as one that no one judged
            run, failure = replace(run, quit=True), ""
        trial = ArmTrial(setup, policy, run, failure, changes)
        if image is not None:
            self._ends.append((image, trial.success))
        return trial

    def _verdict(self, run: RunRecord) -> tuple[RunRecord, str]:
        """Ask what a person has not said yet: the outcome, and of a failure its kind."""
        if not self._keyboard.present or run.quit:
            return run, ""
        if not run.outcome:
            outcome = _VERDICTS[self._ask("s success, f failure, n not judged", tuple("sfn"))]
            run = replace(run, outcome=outcome)
        failure = ""
        if run.outcome == "failure":
            kinds = ", ".join(f"{key} {kind}" for key, kind in FAILURES.items())
            key = self._ask(f"{kinds}; space: another", (*FAILURES, " "))
            failure = FAILURES.get(key, "")
        if run.episode:
            self._client.stop_episode(run.outcome)  # labels the one that has ended
        return run, failure

    def _ask(self, question: str, keys: tuple[str, ...]) -> str:
        self._keyboard.forget()
        say(question)
        while True:
            self._client.spin(_PERIOD_S)
            for name in self._keyboard.read_names():
                if name.lower() in keys:
                    return name.lower()

    def _write(self, evaluation: ArmEvaluation) -> None:
        out = self._settings.out
        text = json.dumps(evaluation.to_json(), indent=2, ensure_ascii=False)
        write_atomically(out / "trials.json", text + "\n")
        if self._ends:
            write_contact_sheet(out / "contact_sheet.png", self._ends)
