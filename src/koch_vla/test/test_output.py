# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixed lines, the status line, and the figures in it."""

from __future__ import annotations

import io
import math
import time

import pytest

from koch_core.terminal import (
    CLEAR_LINE,
    LinePart,
    fit,
    width_of,
)
from koch_vla.log_line import last_message, parse
from koch_vla.node_spec import NodeSpec
from koch_vla.output import PrefixedOutput
from koch_vla.teleop_figures import ArmFigures, status_line, tracking_error

NODES = [NodeSpec("p", "x", "driver", "/arm"), NodeSpec("p", "y", "world")]
NOON = 1764504000.0
ROS = "[{}] [1764504221.123456789] [arm.driver]: {}"


@pytest.fixture(autouse=True)
def utc(monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_carry_their_nodes_name_at_one_width():
    stream, log = io.StringIO(), io.StringIO()
    output = PrefixedOutput(NODES, stream, log, clock=lambda: NOON)
    output(NODES[0], "one")
    output(NODES[1], "two")
    output.say("three")
    assert stream.getvalue() == (
        "12:00:00 arm/driver one\n12:00:00 world      two\n12:00:00 koch up    three\n"
    )
    assert log.getvalue() == stream.getvalue()


@pytest.mark.parametrize(
    ("level", "words"),
    [("INFO", "fault: x"), ("WARN", "WARN fault: x"), ("ERROR", "ERROR fault: x"),
     ("FATAL", "FATAL fault: x")],
)  # fmt: skip
def test_ros_own_prefix_becomes_time_and_level(level, words):
    stream = io.StringIO()
    output = PrefixedOutput(NODES, stream, clock=lambda: NOON)
    output(NODES[0], ROS.format(level, "fault: x"))
    output(NODES[0], f"\033[31m{ROS.format(level, 'fault: x')}\033[0m")
    assert stream.getvalue() == f"12:03:41 arm/driver {words}\n" * 2


def test_what_only_looks_like_a_prefix_stays():
    for line in ("[INFO] no time", "[WARN] [x] [y]: z", "", "[3/5] episodes"):
        assert parse(line).words == line


def test_long_lines_break_between_words_on_a_terminal_only(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    terminal, pipe = Terminal(), io.StringIO()
    for stream in (terminal, pipe):
        PrefixedOutput(NODES, stream, clock=lambda: NOON)(NODES[0], "word " * 12)
    assert all(width_of(line) <= 40 for line in terminal.getvalue().splitlines())
    assert terminal.getvalue().splitlines()[1].startswith(" " * 9 + "word")
    assert len(pipe.getvalue().splitlines()) == 1


def test_the_last_message_is_whole_and_without_prefix():
    lines = [ROS.format("INFO", "a"), ROS.format("ERROR", "not connected: try"), "  one", "  two"]
    assert last_message(lines) == "not connected: try\n  one\n  two"
    trace = ["Traceback (most recent call last):", '  File "x"', "ValueError: bad", ""]
    assert last_message([*lines, *trace]) == "ValueError: bad"
    assert last_message([]) == ""


def test_a_terminal_gets_colours_and_a_log_does_not(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    stream, log = Terminal(), io.StringIO()
    PrefixedOutput(NODES, stream, log)(NODES[1], "two")
    assert "\033[" in stream.getvalue()
    assert "\033[" not in log.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    PrefixedOutput(NODES, plain)(NODES[1], "two")
    assert "\033[" not in plain.getvalue()


def test_the_status_stays_the_last_line_of_a_terminal(monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    output = PrefixedOutput(NODES, stream, clock=lambda: NOON)
    output.status([LinePart("100 Hz")])
    output(NODES[1], "two")
    output.status(())
    assert stream.getvalue() == (
        f"{CLEAR_LINE}100 Hz{CLEAR_LINE}12:00:00 world      two\n100 Hz{CLEAR_LINE}"
    )


def test_a_pipe_gets_each_new_status_once():
    stream = io.StringIO()
    output = PrefixedOutput(NODES, stream)
    for text in ("a", "a", "b", ""):
        output.status([LinePart(text)] if text else ())
    assert stream.getvalue() == "a\nb\n"


def test_the_status_line_tells_rates_tracking_guard_and_complaints():
    follower = ArmFigures(
        states=200,
        positions={"a": 0.0, "b": 1.0},
        commands=100,
        goals={"a": 0.0, "b": 1.0 + math.radians(3.0)},
    )
    follower.guard_changes = 7
    follower.take_status("guard", 0, "ready")
    follower.take_status("bus", 2, "unplugged")
    parts = status_line({"follower": follower, "leader": ArmFigures(states=202)}, 2.0)
    assert fit(parts, None) == (
        "follower 100 Hz  ! bus: unplugged  behind by 3.0 deg (b)  guard changed 7  "
        "commands 50 Hz  | leader 101 Hz"
    )
    narrow = fit(parts, 79)
    assert narrow == ("follower 100 Hz  ! bus: unplugged  behind by 3.0 deg (b)  | leader 101 Hz")
    follower.take_status("bus", 0, "running")
    assert "unplugged" not in fit(status_line({"follower": follower}, 1.0), None)
    assert follower.states == 0  # each line counts again


@pytest.mark.parametrize(("goals", "joint"), [({}, ""), ({"x": 1.0}, ""), ({"a": 2.0}, "a")])
def test_tracking_error_needs_a_joint_that_both_know(goals, joint):
    worst, distance = tracking_error(goals, {"a": 0.0})
    assert worst == joint
    assert math.isnan(distance) is (joint == "")
