# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Options declared once: command line, files, checks and documents from one model."""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koch_core.command_line import (
    command_line,
    command_words,
    from_command_line,
    markdown,
    parsed_subcommand,
    subcommands,
)
from koch_core.options import (
    OptionError,
    OptionModel,
    UnknownKey,
    declared,
    option,
    read,
    read_some,
    same_as,
)


class Pace(enum.Enum):
    """How fast."""

    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Wave(OptionModel):
    """One option of each kind."""

    inputs: tuple[Path, ...] = option(..., "what", flags=("inputs",), metavar="IN")
    out: Path = option(..., "where to", metavar="DIR")
    times: int = option(3, "how often", low=1, high=9)
    rate: float = option(0.5, "part [0 to 1]", low=0.0, below=1.0)
    norm: float | None = option(None, "a norm", above=0.0, flags=("--norm", "-n"))
    pace: Pace = option(Pace.SLOW, "how fast", flags=("--speed-kind",))
    engine: str = option("auto", "what computes", choices=("auto", "gpu"))
    rest: float | None = option(None, "pause; 100% of it", bare=0.2, metavar="S")
    loud: bool = option(False, "say so")
    split: bool = option(True, "cut")
    sim: bool | None = option(None, "simulated or not")
    labels: tuple[str, ...] = option((), "keep", flags=("--label",))


def parse(*words: str) -> Wave:
    parser = command_line("koch wave", "Wave.", Wave)
    return Wave.of(parser.parse_args(["--out", "o", *words, "a"]))


def test_a_command_line_makes_the_model() -> None:
    assert parse() == Wave(inputs=(Path("a"),), out=Path("o"))
    words = "--times 9 --rate 0 -n 2 --speed-kind fast --engine gpu --rest --loud --no-split"
    assert parse(*words.split(), "--no-sim", "--label", "x", "--label", "y", "b") == Wave(
        inputs=(Path("b"), Path("a")), out=Path("o"), times=9, rate=0.0, norm=2.0, pace=Pace.FAST,
        engine="gpu", rest=0.2, loud=True, split=False, sim=False, labels=("x", "y"),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--times 0", "--times: got 0, expected 1 to 9."),
        ("--times 10", "--times: got 10, expected 1 to 9."),
        ("--rate 1", "--rate: got 1.0, expected 0 or more, below 1."),
        ("--rate nan", "--rate: got nan, expected a finite number, 0 or more, below 1."),
        ("--norm 0", "--norm: got 0.0, expected above 0."),
    ],
)
def test_a_value_out_of_its_range_is_named_by_its_flag(words: str, said: str) -> None:
    with pytest.raises(OptionError) as caught:
        parse(*words.split())
    assert str(caught.value) == said


@pytest.mark.parametrize(
    "values", [{"times": 2.0}, {"times": True}, {"rate": math.inf}, {"loud": 1}, {"pace": "fas"}]
)
def test_a_model_made_in_python_is_checked_too(values: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        Wave(inputs=(), out=Path(), **values)


def test_what_must_be_given_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command_line("koch wave", "Wave.", Wave).parse_args(["a"])
    assert "--out" in capsys.readouterr().err


@dataclass(frozen=True, kw_only=True)
class Look(OptionModel):
    """Look at things.

    At all of them where none is named.
    """

    things: tuple[str, ...] = option(("sea", "sky"), "which", flags=("things",), metavar="THING")
    far: float = option(1.0, "how far", low=0.0)
    size: tuple[int, int] | None = option(None, "of the image", metavar="WIDTH HEIGHT")


@dataclass(frozen=True, kw_only=True)
class Take(OptionModel):
    """Take one thing."""

    thing: str | None = option(None, "which", flags=("thing",))


KINDS = {"look": Look, "take": Take}


@pytest.mark.parametrize(
    ("words", "otherwise", "chosen"),
    [
        ("look", "", ("look", Look())),
        ("", "look", ("look", Look())),
        ("--far 2", "look", ("look", Look(far=2.0))),
        ("look a b --far 3", "", ("look", Look(things=("a", "b"), far=3.0))),
        ("look --size 3 4", "", ("look", Look(size=(3, 4)))),
        ("take", "", ("take", Take())),
        ("take x", "", ("take", Take(thing="x"))),
    ],
)
def test_a_word_chooses_the_model(words: str, otherwise: str, chosen: tuple[str, Any]) -> None:
    parser = subcommands("koch see", "See.", KINDS, otherwise)
    assert parsed_subcommand(parser, words.split(), KINDS) == chosen


def test_a_subcommand_is_helped_by_its_model(capsys: pytest.CaptureFixture[str]) -> None:
    parser = subcommands("koch see", "See.", KINDS)
    assert re.search(r"look +Look at things\n +take +Take one thing\n", parser.format_help())
    for words in ([], ["look", "--far", "-1"], ["leap"]):
        with pytest.raises(SystemExit):
            parsed_subcommand(parser, words, KINDS)
    said = capsys.readouterr().err
    assert "required: {look,take}" in said
    assert "--far: got -1.0, expected 0 or more." in said
    assert "'leap'" in said


def test_help_names_choices_and_defaults() -> None:
    text = " ".join(command_line("koch wave", "Wave.", Wave).format_help().split())
    assert "--speed-kind {slow,fast} how fast (default: slow)" in text
    assert "how often (default: 3)" in text
    assert "pause; 100% of it" in text


@dataclass(frozen=True, kw_only=True)
class Inner(OptionModel):
    """A part of a file."""

    gain: float = option(1.0, "factor", low=0.0)


@dataclass(frozen=True, kw_only=True)
class Recipe(OptionModel):
    """What a file holds."""

    steps: int = option(10, "steps", low=1)
    size: tuple[int, int] | None = option(None, "height and width", low=1)
    angles: Mapping[str, float] = option({}, "periods", above=0.0)
    inner: Inner = option(Inner(), "more")
    pace: Pace = option(Pace.SLOW, "how fast")
    home: Path | None = option(None, "folder")


class FileError(Exception):
    """As a reader of files would raise it."""


def refuse(key: str, got: object, expected: str, hint: str) -> Exception:
    return FileError(f"f.yaml:7: {key}: got {got!r}, expected {expected}. {hint}".strip())


def test_plain_values_become_what_the_model_says() -> None:
    values = {"steps": 5, "size": [2, 3], "angles": {"yaw": 3}, "inner": {"gain": 2}, "home": "x"}
    made = read(Recipe, {**values, "pace": "fast"}, refuse)
    assert made == Recipe(
        steps=5, size=(2, 3), angles={"yaw": 3.0}, inner=Inner(gain=2.0), pace=Pace.FAST,
        home=Path("x"),
    )  # fmt: skip
    assert isinstance(made.angles["yaw"], float)
    assert read_some(Recipe, {"size": None}, refuse) == {"size": None}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"step": 5}, "step: got an unknown key, expected one of steps, size, angles, inner, "
         "pace, home. Did you mean 'steps'?"),
        ({"steps": "5"}, "steps: got '5', expected a whole number, 1 or more."),
        ({"steps": 0}, "steps: got 0, expected 1 or more."),
        ({"size": [2]}, "size: got (2,), expected a list of 2 whole numbers."),
        ({"size": [2, 0]}, "size[1]: got 0, expected 1 or more."),
        ({"angles": {"yaw": 0}}, "angles.yaw: got 0, expected above 0."),
        ({"angles": 3}, "angles: got 3, expected a mapping (key: value)."),
        ({"inner": {"gain": "1e-3"}}, "inner.gain: got '1e-3', expected a finite number, 0 or "
         "more. In YAML write 1.0e-4, not 1e-4."),
        ({"pace": "fats"}, "pace: got 'fats', expected one of slow, fast. Did you mean 'fast'?"),
        ([1], ": got [1], expected a mapping (key: value)."),
    ],
)  # fmt: skip
def test_the_error_of_a_file_says_where_what_and_what_was_meant(values: Any, said: str) -> None:
    with pytest.raises(FileError) as caught:
        read(Recipe, values, refuse)
    assert str(caught.value).startswith(f"f.yaml:7: {said}")


def test_a_key_that_must_be_there_is_asked_for() -> None:
    with pytest.raises(FileError, match=r"inputs: got None, expected what\. This key is required"):
        read(Wave, {"out": "o"}, refuse)


def test_two_models_share_a_declaration() -> None:
    @dataclass(frozen=True)
    class Node(OptionModel):
        fast: int = same_as(declared(Recipe)["steps"].option, 20, flags=("--fast",))

    item = declared(Node)["fast"]
    assert (item.default, item.option.text, item.option.low) == (20, "steps", 1)
    with pytest.raises(OptionError, match="--fast: got 0"):
        Node(0)


def test_a_table_lists_each_option_with_default_and_range() -> None:
    lines = markdown(Wave).splitlines()
    assert "| `--times` | `3` | how often; 1 to 9 |" in lines
    assert "| `--speed-kind` | `slow` | how fast; `slow`, `fast` |" in lines
    assert "| `--norm, -n` |  | a norm; above 0 |" in lines
    assert "| `times` | `3` | how often; 1 to 9 |" in markdown(Wave, parameters=True)


def test_an_unknown_key_is_told_from_a_value() -> None:
    found: list[object] = []

    def note(key: str, got: object, expected: str, hint: str) -> Exception:
        found.append(got)
        return FileError(key)

    with pytest.raises(FileError):
        read(Recipe, {"x": 1}, note)
    assert isinstance(found[0], UnknownKey)


def test_a_model_says_the_words_that_make_it_again() -> None:
    @dataclass(frozen=True)
    class Walk(OptionModel):
        pace: Pace = option(Pace.SLOW, "how fast", flags=("--how",))
        far_m: float = option(1.0, "how far [m]")
        tired: bool = option(False, "is")
        rested: bool = option(True, "was")
        stops: tuple[str, ...] = option((), "where")

    assert command_words(Walk()) == []
    walk = Walk(Pace.FAST, 0.1 + 0.2, True, False, ("a b", "c"))
    assert from_command_line(Walk, "walk", "Walk.", command_words(walk)) == walk
