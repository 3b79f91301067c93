# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What koch record does next, which keys it knows, and what it shows."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest

from koch_episodes.recorder.keys import parse
from koch_episodes.recorder.plan import Key, PlanSettings, RecordPlan, Step, Verb
from koch_episodes.recorder.screen import Screen, big, clock
from koch_episodes.recorder.session import Phase

START = Step(Verb.START)


def test_timed_episodes_follow_one_another_until_all_are_saved() -> None:
    plan = RecordPlan(PlanSettings(2))
    assert plan.next(Phase.IDLE, 0, []) == START
    assert plan.next(Phase.RECORDING, 0, []) is None
    assert plan.next(Phase.SAVING, 0, []) is None
    assert plan.next(Phase.RESETTING, 1, []) is None
    assert plan.next(Phase.IDLE, 1, []) == START
    assert plan.next(Phase.RESETTING, 2, []) is None
    assert plan.done


def test_episodes_saved_before_do_not_count() -> None:
    plan = RecordPlan(PlanSettings(1), saved_before=5)
    assert plan.next(Phase.IDLE, 5, []) == START
    assert plan.recorded(6) == 1


@pytest.mark.parametrize(
    ("key", "step"),
    [
        (Key.NEXT, Step(Verb.STOP)),
        (Key.SUCCESS, Step(Verb.STOP, "success")),
        (Key.FAILURE, Step(Verb.STOP, "failure")),
        (Key.AGAIN, Step(Verb.DISCARD)),
        (Key.QUIT, Step(Verb.STOP)),
    ],
)
def test_keys_while_recording(key: Key, step: Step) -> None:
    assert RecordPlan(PlanSettings(3)).next(Phase.RECORDING, 0, [key]) == step


def test_quit_while_recording_keeps_the_episode_and_ends() -> None:
    plan = RecordPlan(PlanSettings(3))
    plan.next(Phase.RECORDING, 0, [Key.QUIT])
    assert plan.next(Phase.IDLE, 1, []) is None
    assert plan.done


def test_next_ends_the_pause() -> None:
    plan = RecordPlan(PlanSettings(3))
    assert plan.next(Phase.RESETTING, 1, []) is None
    assert plan.next(Phase.RESETTING, 1, [Key.NEXT]) == START


def test_again_records_without_a_pause() -> None:
    plan = RecordPlan(PlanSettings(3))
    assert plan.next(Phase.RECORDING, 0, [Key.AGAIN]) == Step(Verb.DISCARD)
    assert plan.next(Phase.RESETTING, 0, []) == START


@pytest.mark.parametrize(
    ("key", "step"),
    [
        (Key.AGAIN, Step(Verb.DISCARD)),
        (Key.UNDO, Step(Verb.UNDO)),
        (Key.SUCCESS, Step(Verb.LABEL, "success")),
    ],
)
def test_keys_in_the_pause_mean_the_last_episode(key: Key, step: Step) -> None:
    assert RecordPlan(PlanSettings(3)).next(Phase.RESETTING, 1, [key]) == step


def test_again_never_touches_episodes_of_an_earlier_run() -> None:
    plan = RecordPlan(PlanSettings(3, wait=True), saved_before=4)
    assert plan.next(Phase.IDLE, 4, [Key.AGAIN]) is None


def test_wait_holds_each_episode_until_a_key() -> None:
    plan = RecordPlan(PlanSettings(2, wait=True))
    assert plan.next(Phase.IDLE, 0, []) is None
    assert plan.waits_for_key
    assert plan.next(Phase.IDLE, 0, [Key.NEXT]) == START
    plan.next(Phase.RECORDING, 0, [])
    assert plan.next(Phase.IDLE, 1, []) is None


def test_failed_start_waits_for_a_key_where_somebody_is() -> None:
    plan = RecordPlan(PlanSettings(1))
    plan.start_failed()
    assert plan.next(Phase.IDLE, 0, []) is None
    assert plan.next(Phase.IDLE, 0, [Key.NEXT]) == START


def test_failed_starts_end_a_run_that_nobody_watches() -> None:
    plan = RecordPlan(PlanSettings(1, retry=True, tries=2))
    plan.start_failed()
    assert plan.next(Phase.IDLE, 0, []) == START
    plan.start_failed()
    assert plan.done
    assert plan.failed


def test_arrows_letters_and_escape() -> None:
    keys = parse(b"\x1b[C\x1b[DnrQ\x1bOCsf u\x1b")
    assert keys == [
        Key.NEXT,
        Key.AGAIN,
        Key.NEXT,
        Key.AGAIN,
        Key.QUIT,
        Key.NEXT,
        Key.SUCCESS,
        Key.FAILURE,
        Key.NEXT,
        Key.UNDO,
        Key.QUIT,
    ]


def test_other_arrows_and_letters_mean_nothing() -> None:
    assert parse(b"\x1b[A\x1b[Bxyz\xff") == []


def test_big_digits_are_five_lines_of_one_width() -> None:
    rows = big("0:42")
    assert len(rows) == 5
    assert rows[0] == "███     █ █  ███"


@pytest.mark.parametrize(("seconds", "text"), [(0.0, "0:00"), (59.2, "1:00"), (61.0, "1:01")])
def test_clock_counts_whole_seconds_down(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def _status(**changes: Any) -> SimpleNamespace:
    stream = SimpleNamespace(
        name="cameras/above",
        rate_hz=29.9,
        expected_hz=30.0,
        max_gap_s=0.041,
        age_s=math.inf,
        lost=3,
        light=1,
        reason="lost 3 message(s)",
    )
    values = {
        "phase": int(Phase.RECORDING),
        "episode_index": 4,
        "task": "Do it.",
        "elapsed_s": 3.0,
        "remaining_s": 7.0,
        "light": 1,
        "reason": "cameras/above: lost 3 message(s)",
        "streams": [stream],
        "disk_minutes_left": 42.3,
    }
    return SimpleNamespace(**{**values, **changes})


def test_screen_shows_phase_time_streams_and_disk() -> None:
    screen = Screen(10, colour=False)
    screen.remember("episode_000003: green")
    text = "\n".join(screen.lines(_status(), 3, waits=False))
    for part in (
        "RECORDING",
        "episode 4",
        "3/10 saved",
        "Do it.",
        "● AMBER",
        "lost 3",
        "29.9/30",
        "41 ms gap",
        "42 min of recording left",
        "episode_000003: green",
    ):
        assert part in text
    assert "\033" not in text


def test_screen_asks_for_the_key_it_waits_for() -> None:
    lines = Screen(0, colour=False).lines(_status(phase=0), 0, waits=True)
    assert "PRESS n TO RECORD" in lines[0]


def test_drawing_fits_the_terminal_in_place() -> None:
    drawn = Screen(1).draw(_status(task="x" * 500), 0, waits=False)
    assert drawn.startswith("\033[H")
    assert "x" * 200 not in drawn
