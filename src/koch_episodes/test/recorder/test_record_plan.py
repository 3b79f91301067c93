# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What koch record does next, which keys it knows, and what it shows."""

from __future__ import annotations

import math
import os
from types import SimpleNamespace
from typing import Any

import pytest
from narrow_terminal import Glass

from koch_episodes.recorder.keys import Lines, parse
from koch_episodes.recorder.plan import (
    Key,
    PlanSettings,
    Presses,
    RecordCommand,
    RecordPlan,
    RecordStep,
)
from koch_episodes.recorder.screen import Screen, big, clock
from koch_episodes.recorder.session import RecorderPhase

START = RecordStep(RecordCommand.START)


def test_timed_episodes_follow_one_another_until_all_are_saved() -> None:
    plan = RecordPlan(PlanSettings(2))
    assert plan.next(RecorderPhase.IDLE, 0, []) == START
    assert plan.next(RecorderPhase.RECORDING, 0, []) is None
    assert plan.next(RecorderPhase.SAVING, 0, []) is None
    assert plan.next(RecorderPhase.RESETTING, 1, []) is None
    assert plan.next(RecorderPhase.IDLE, 1, []) == START
    assert plan.next(RecorderPhase.RESETTING, 2, []) is None
    assert plan.done


def test_episodes_saved_before_do_not_count() -> None:
    plan = RecordPlan(PlanSettings(1), saved_before=5)
    assert plan.next(RecorderPhase.IDLE, 5, []) == START
    assert plan.recorded(6) == 1


@pytest.mark.parametrize(
    ("key", "step"),
    [
        (Key.NEXT, RecordStep(RecordCommand.STOP)),
        (Key.SUCCESS, RecordStep(RecordCommand.STOP, "success")),
        (Key.FAILURE, RecordStep(RecordCommand.STOP, "failure")),
        (Key.AGAIN, RecordStep(RecordCommand.DISCARD)),
        (Key.QUIT, RecordStep(RecordCommand.STOP)),
    ],
)
def test_keys_while_recording(key: Key, step: RecordStep) -> None:
    assert RecordPlan(PlanSettings(3)).next(RecorderPhase.RECORDING, 0, [key]) == step


def test_quit_while_recording_keeps_the_episode_and_ends() -> None:
    plan = RecordPlan(PlanSettings(3))
    plan.next(RecorderPhase.RECORDING, 0, [Key.QUIT])
    assert plan.next(RecorderPhase.IDLE, 1, []) is None
    assert plan.done


def test_next_ends_the_pause() -> None:
    plan = RecordPlan(PlanSettings(3))
    assert plan.next(RecorderPhase.RESETTING, 1, []) is None
    assert plan.next(RecorderPhase.RESETTING, 1, [Key.NEXT]) == START


@pytest.mark.parametrize("wait", [False, True])
def test_again_pauses_as_after_every_episode(wait: bool) -> None:
    plan = RecordPlan(PlanSettings(3, wait=wait))
    assert plan.next(RecorderPhase.RECORDING, 0, [Key.AGAIN]) == RecordStep(RecordCommand.DISCARD)
    assert plan.next(RecorderPhase.RESETTING, 0, []) is None
    assert plan.next(RecorderPhase.IDLE, 0, [Key.NEXT] if wait else []) == START


@pytest.mark.parametrize("key", [each for each in Key if each is not Key.QUIT])
@pytest.mark.parametrize(
    "phase", [RecorderPhase.IDLE, RecorderPhase.WAITING, RecorderPhase.SAVING]
)
def test_keys_while_a_request_is_under_way_mean_nothing_afterwards(
    key: Key, phase: RecorderPhase
) -> None:
    plan = RecordPlan(PlanSettings(3))
    assert plan.next(RecorderPhase.IDLE, 0, []) == START
    assert plan.meanwhile(phase, [key, key]) is None
    assert plan.next(RecorderPhase.RECORDING, 0, []) is None
    assert plan.next(RecorderPhase.RESETTING, 1, []) is None


def test_quit_cancels_a_start_that_waits() -> None:
    plan = RecordPlan(PlanSettings(3))
    plan.next(RecorderPhase.IDLE, 0, [])
    assert plan.meanwhile(RecorderPhase.IDLE, [Key.QUIT]) is None  # the request is not there yet
    assert plan.meanwhile(RecorderPhase.WAITING, []) == RecordStep(RecordCommand.STOP)
    assert plan.meanwhile(RecorderPhase.WAITING, []) is None
    assert plan.next(RecorderPhase.IDLE, 0, []) is None
    assert plan.done


def test_quit_discards_an_episode_that_began_in_the_meantime() -> None:
    plan = RecordPlan(PlanSettings(3))
    plan.next(RecorderPhase.IDLE, 0, [])
    assert plan.meanwhile(RecorderPhase.IDLE, [Key.QUIT]) is None
    assert plan.next(RecorderPhase.RECORDING, 0, []) == RecordStep(RecordCommand.DISCARD)
    assert plan.next(RecorderPhase.IDLE, 0, []) is None
    assert plan.done


def test_quit_while_saving_does_not_touch_the_next_request() -> None:
    plan = RecordPlan(PlanSettings(3))
    assert plan.next(RecorderPhase.RECORDING, 0, [Key.NEXT]) == RecordStep(RecordCommand.STOP)
    assert plan.meanwhile(RecorderPhase.SAVING, [Key.QUIT]) is None
    assert plan.next(RecorderPhase.RESETTING, 1, []) is None
    assert plan.done


@pytest.mark.parametrize(("apart_s", "counts"), [(0.1, False), (0.45, False), (0.6, True)])
def test_a_second_tap_does_not_reach_the_next_phase(apart_s: float, counts: bool) -> None:
    presses = Presses()
    assert presses.meant([Key.NEXT], RecorderPhase.RECORDING, 10.0) == [Key.NEXT]
    second = presses.meant([Key.NEXT], RecorderPhase.RESETTING, 10.0 + apart_s)
    assert second == ([Key.NEXT] if counts else [])


def test_a_held_key_counts_in_its_own_phase_only() -> None:
    presses = Presses()
    found = [presses.meant([Key.AGAIN], RecorderPhase.RECORDING, 0.03 * k) for k in range(10)]
    assert found == [[Key.AGAIN]] * 10
    for k in range(10, 100):
        assert presses.meant([Key.AGAIN], RecorderPhase.RESETTING, 0.03 * k) == []
    assert presses.meant([Key.UNDO], RecorderPhase.RESETTING, 3.0) == [Key.UNDO]


@pytest.mark.parametrize(
    ("key", "step"),
    [
        (Key.AGAIN, RecordStep(RecordCommand.DISCARD)),
        (Key.UNDO, RecordStep(RecordCommand.UNDO)),
        (Key.SUCCESS, RecordStep(RecordCommand.LABEL, "success")),
    ],
)
def test_keys_in_the_pause_mean_the_last_episode(key: Key, step: RecordStep) -> None:
    assert RecordPlan(PlanSettings(3)).next(RecorderPhase.RESETTING, 1, [key]) == step


def test_again_never_touches_episodes_of_an_earlier_run() -> None:
    plan = RecordPlan(PlanSettings(3, wait=True), saved_before=4)
    assert plan.next(RecorderPhase.IDLE, 4, [Key.AGAIN]) is None


def test_wait_holds_each_episode_until_a_key() -> None:
    plan = RecordPlan(PlanSettings(2, wait=True))
    assert plan.next(RecorderPhase.IDLE, 0, []) is None
    assert plan.waits_for_key
    assert plan.next(RecorderPhase.IDLE, 0, [Key.NEXT]) == START
    plan.next(RecorderPhase.RECORDING, 0, [])
    assert plan.next(RecorderPhase.IDLE, 1, []) is None


def test_failed_start_waits_for_a_key_where_somebody_is() -> None:
    plan = RecordPlan(PlanSettings(1))
    plan.start_failed()
    assert plan.next(RecorderPhase.IDLE, 0, []) is None
    assert plan.next(RecorderPhase.IDLE, 0, [Key.NEXT]) == START


def test_failed_starts_end_a_run_that_nobody_watches() -> None:
    plan = RecordPlan(PlanSettings(1, retry=True, tries=2))
    plan.start_failed()
    assert plan.next(RecorderPhase.IDLE, 0, []) == START
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
        "phase": int(RecorderPhase.RECORDING),
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


@pytest.mark.parametrize("columns", [30, 56, 80, 120])
@pytest.mark.parametrize("lines", [12, 24, 50])
@pytest.mark.parametrize("streams", [1, 7, 14])
def test_drawing_fits_the_terminal_in_place(
    monkeypatch: pytest.MonkeyPatch, columns: int, lines: int, streams: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("LINES", str(lines))
    status = _status(task="x" * 500, reason="a long reason " * 9)
    status.streams = status.streams * streams
    screen = Screen(1)
    for index in range(9):
        screen.remember(f"episode_{index:06d}: red: {'lost ' * 30}")
    screen.message = "refused: " + "too long for a line " * 20
    glass = Glass(columns, lines)
    for _ in range(3):
        drawn = screen.draw(status, 0, waits=False)
        assert drawn.startswith("\033[H")
        glass.write(drawn)
    assert glass.wrapped == []
    assert glass.scrolled == []
    assert "RECORDING" in glass.lines[0]
    if streams == 7 and lines == 24:
        assert any("s success" in line for line in glass.lines), "the keys stay"
        assert any("refused: too long" in line for line in glass.lines), "complaints stay"


def test_lines_are_texts_or_keys_and_come_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    reads, writes = os.pipe()
    with os.fdopen(reads) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        lines = Lines()
        assert lines.read() == []
        os.write(writes, "Put the gr\u00fcn".encode()[:12])
        assert lines.read() == []
        os.write(writes, "Put the gr\u00fcn".encode()[12:] + b" one away.\n\nS\nq")
        assert lines.read() == ["Put the gr\u00fcn one away.", Key.SUCCESS]
        os.close(writes)
        assert lines.read() == []
