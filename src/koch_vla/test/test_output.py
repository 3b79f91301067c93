# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Prefixed lines, the status line, and the figures in it."""

from __future__ import annotations

import io
import math

import pytest

from koch_vla.node_spec import NodeSpec
from koch_vla.output import CLEAR_LINE, PrefixedOutput
from koch_vla.teleop_figures import ArmFigures, status_line, tracking_error

NODES = [NodeSpec("p", "x", "driver", "/arm"), NodeSpec("p", "y", "world")]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_lines_carry_their_nodes_name_at_one_width():
    stream, log = io.StringIO(), io.StringIO()
    output = PrefixedOutput(NODES, stream, log)
    output(NODES[0], "one")
    output(NODES[1], "two")
    assert stream.getvalue() == "arm/driver | one\nworld      | two\n"
    assert log.getvalue() == stream.getvalue()


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
    output = PrefixedOutput(NODES, stream)
    output.status("100 Hz")
    output(NODES[1], "two")
    output.status("")
    assert stream.getvalue() == (
        f"{CLEAR_LINE}100 Hz{CLEAR_LINE}world      | two\n100 Hz{CLEAR_LINE}"
    )


def test_a_pipe_gets_each_new_status_once():
    stream = io.StringIO()
    output = PrefixedOutput(NODES, stream)
    for text in ("a", "a", "b", ""):
        output.status(text)
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
    line = status_line({"follower": follower, "leader": ArmFigures(states=202)}, 2.0)
    assert line == (
        "follower 100 Hz, commands 50 Hz, behind by 3.0 deg (b), guard changed 7, "
        "! bus: unplugged  |  leader 101 Hz"
    )
    follower.take_status("bus", 0, "running")
    assert "unplugged" not in status_line({"follower": follower}, 1.0)
    assert follower.states == 0  # each line counts anew


@pytest.mark.parametrize(("goals", "joint"), [({}, ""), ({"x": 1.0}, ""), ({"a": 2.0}, "a")])
def test_tracking_error_needs_a_joint_that_both_know(goals, joint):
    worst, distance = tracking_error(goals, {"a": 0.0})
    assert worst == joint
    assert math.isnan(distance) is (joint == "")
