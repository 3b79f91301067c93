# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A sign of life within two seconds, and none from what is quick."""

from __future__ import annotations

import io
import time

import pytest

from koch_core import working
from koch_core.working import Working


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second passes in 20 ms."""
    for name in ("_FIRST_S", "_TERMINAL_S", "_PLAIN_S", "_PATIENT_S"):
        monkeypatch.setattr(working, name, getattr(working, name) / 50)


def test_what_is_quick_says_nothing() -> None:
    screen = Screen()
    with Working("reading", screen):
        pass
    assert screen.getvalue() == ""


def test_what_will_take_long_is_said_at_once() -> None:
    screen = Screen()
    with Working("reading", screen, at_once=True):
        assert "reading (0 s)" in screen.getvalue()
    assert screen.getvalue().endswith("\r\033[K")


def test_a_log_can_be_left_alone() -> None:
    log, screen = io.StringIO(), Screen()
    for stream in (log, screen):
        with Working("reading", stream, in_logs=False):
            time.sleep(0.1)
    assert log.getvalue() == ""
    assert "reading" in screen.getvalue()


def test_a_terminal_has_one_line_that_goes_away() -> None:
    screen = Screen()
    with Working("reading", screen) as work:
        time.sleep(0.2)
        work.say("a line that stays")
        work.now(lambda: "step 3 " + "x" * 500)
        time.sleep(0.2)
    text = screen.getvalue()
    assert "reading (0 s)" in text
    assert "a line that stays\n" in text
    assert "step 3" in text
    assert text.count("\n") == 1
    assert text.endswith("\r\033[K")
    assert max(map(len, text.split("\r\033[K"))) <= 80


@pytest.mark.parametrize("words", [1, 14, 40])
def test_a_line_that_stays_fits_a_terminal_and_is_whole_in_a_log(words: int) -> None:
    line = "inputs   " + " ".join(["observation"] * words)
    for stream in (Screen(), io.StringIO()):
        with Working("reading", stream) as work:
            work.say(line, indent=" " * 9)
        lines = stream.getvalue().replace("\r\033[K", "").splitlines()
        assert " ".join("\n".join(lines).split()) == " ".join(line.split())
        if stream.isatty():
            assert max(map(len, lines)) <= 80
            assert all(rest.startswith(" " * 9 + "obs") for rest in lines[1:])
        else:
            assert lines == [line]


def test_a_log_has_lines_less_often_later() -> None:
    log = io.StringIO()
    with Working("reading", log):
        time.sleep(0.6)
    early = log.getvalue().count("reading")
    assert early >= 3
    with Working("reading", log):
        time.sleep(1.2)
    assert log.getvalue().count("reading") - early < 2 * early + 8


def test_an_error_ends_it_too() -> None:
    screen = Screen()

    def fail() -> None:
        with Working("reading", screen):
            time.sleep(0.1)
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    length = len(screen.getvalue())
    time.sleep(0.1)
    assert len(screen.getvalue()) == length
