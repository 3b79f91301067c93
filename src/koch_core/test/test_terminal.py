# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Lines that fit a terminal: what is shortened, what is dropped, what is cut."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import struct
import termios

import pytest
from narrow_terminal import Glass

from koch_core.command_line import CommandLine
from koch_core.terminal import (
    Column,
    Interjections,
    LinePart,
    StatusLine,
    clip,
    columns,
    fit,
    fold,
    interject,
    paint,
    table,
    width_of,
)

PARTS = [
    LinePart("arm 100 Hz"),
    LinePart("behind by 1.2 deg (elbow_flex)", 2, "1.2 deg"),
    LinePart("guard changed 7", 3),
]


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (None, "arm 100 Hz  behind by 1.2 deg (elbow_flex)  guard changed 7"),
        (59, "arm 100 Hz  behind by 1.2 deg (elbow_flex)  guard changed 7"),
        (58, "arm 100 Hz  behind by 1.2 deg (elbow_flex)"),
        (41, "arm 100 Hz  1.2 deg"),
        (18, "arm 100 Hz"),
        (9, "arm 100 …"),
        (1, "…"),
    ],
)
def test_what_ranks_highest_goes_first_and_is_shortened_before(width, line):
    assert fit(PARTS, width) == line


@pytest.mark.parametrize("width", range(1, 70))
def test_no_width_is_ever_exceeded(width):
    assert width_of(fit(PARTS, width)) <= width
    assert width_of(clip(paint("x" * 30 + "漢字" * 9, "red", enabled=True), width)) <= width


def test_of_equal_ranks_the_last_goes_first():
    assert fit([LinePart("a"), LinePart("bb", 1), LinePart("cc", 1)], 5) == "a  bb"


def test_escape_sequences_take_no_room_and_are_closed_where_a_text_is_cut():
    red = paint("warning", "red", enabled=True)
    assert clip(red, 7) == red
    assert clip(red, 5) == "\033[31mwarn…\033[0m"


def test_a_table_leaves_out_what_can_be_spared_from_all_its_lines():
    heads = [Column("topic"), Column("Hz", 1, right=True), Column("type", 2)]
    cells = [["/arm/joint_states", "100.0", "JointState"], ["/a", "9.5", "X"]]
    assert table(heads, cells, None) == [
        "topic                 Hz  type",
        "/arm/joint_states  100.0  JointState",
        "/a                   9.5  X",
    ]
    assert table(heads, cells, 30)[0] == "topic                 Hz"
    assert table(heads, cells, 20) == ["topic", "/arm/joint_states", "/a"]
    assert table(heads, cells, 8)[1] == "/arm/jo…"


def test_lines_break_between_words_and_keep_their_indentation():
    text = "one two three four five\n  six /a/very/long/path/that/stays/whole seven"
    assert fold(text, 14) == (
        "one two three\nfour five\n  six\n  /a/very/long/path/that/stays/whole\n  seven"
    )
    assert fold("12:00:00 arm one two", 16, " " * 4) == "12:00:00 arm one\n    two"


def test_the_width_is_that_of_the_terminal_behind_the_stream(monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as stream:
        assert columns(stream) == 80  # it does not know its size
        fcntl.ioctl(stream, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 57, 0, 0))
        assert columns(stream) == 57
        monkeypatch.setenv("COLUMNS", "40")
        assert columns(stream) == 40
    os.close(master)
    monkeypatch.delenv("COLUMNS")
    assert columns(io.StringIO()) == 80


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_status_line_is_written_over_itself_and_a_pipe_gets_one_now_and_then(monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    stream, now = Terminal(), [0.0]
    line = StatusLine(stream, clock=lambda: now[0])
    line.show(PARTS)
    line.show([LinePart("short")])
    line.end()
    assert stream.getvalue() == "\r\033[Karm 100 Hz\r\033[Kshort\n"
    pipe = io.StringIO()
    line = StatusLine(pipe, every_s=2.0, clock=lambda: now[0])
    for now[0] in (0.0, 1.0, 2.5, 3.0):
        line.show([LinePart(f"at {now[0]}")])
    line.end()
    assert pipe.getvalue() == "at 0.0\nat 2.5\n"


def test_what_a_node_or_a_library_says_gets_lines_of_its_own_above_a_status_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    line, logger = StatusLine(screen), logging.Logger("library")
    logger.addHandler(Interjections())
    line.show([LinePart("running  30.0 Hz")])
    interject("[INFO] [1795998665.538979446] [policy]: run ended: asked to end")
    line.show([LinePart("idle")])
    logger.warning("%s cannot be loaded: camera images take longer than they need to", "fastconv")
    line.end()
    glass = Glass(40, 24)
    glass.write(screen.getvalue())
    assert not glass.wrapped
    assert [text.rstrip() for text in glass.lines if text.strip()] == [
        "[INFO] [1795998665.538979446] [policy]:",
        "    run ended: asked to end",
        "fastconv cannot be loaded: camera images",
        "    take longer than they need to",
    ]


def test_a_mistake_on_the_command_line_fits_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    parser = CommandLine(prog="koch thing")
    parser.add_subparsers().add_parser("part").add_argument("--n", type=int)
    for words in (["part", "--n", "x" * 10], ["part", *["a-stray-word"] * 6]):
        with pytest.raises(SystemExit) as end:
            parser.parse_args(words)
        assert end.value.code == 2
        said = capsys.readouterr().err
        assert "error:" in said
        assert max(map(len, said.splitlines())) <= 40


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-episode=3"], "Did you mean `--num-episodes`?"),
        (["--batch_size=3"], "Did you mean `--set train.batch_size=VALUE`?"),
        (["trim", "--sart", "3"], "Did you mean `--start`?"),
        (["--nothing-like-it"], "unrecognized arguments: --nothing-like-it\n"),
    ],
)
def test_a_wrong_flag_names_the_one_that_was_meant(words, said, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    parser = CommandLine("koch thing", allow_abbrev=False)
    parser.elsewhere = {"--batch-size": "--set train.batch_size=VALUE"}
    parser.add_argument("--num-episodes")
    parser.add_subparsers().add_parser("trim").add_argument("--start")
    with pytest.raises(SystemExit):
        parser.parse_args(words)
    assert said in capsys.readouterr().err
