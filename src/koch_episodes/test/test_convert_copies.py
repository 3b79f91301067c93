# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags that hold what another one holds: sorted, cut, recorded again; and honest ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.cli import main
from koch_episodes.errors import EpisodeError

WriteBag = Callable[..., Path]
Message = tuple[str, str, int, int, Any]
Change = Callable[[list[Message]], list[Message]]
START_NS = 1_790_000_000_000_000_000


def by_topic(messages: list[Message]) -> list[Message]:
    return sorted(messages, key=lambda message: message[0])


def logged_later(messages: list[Message]) -> list[Message]:
    return [(m[0], m[1], m[2] + 3_600_000_000_000, m[3], m[4]) for m in messages]


def without_every_ninth(messages: list[Message]) -> list[Message]:
    return [m for number, m in enumerate(messages) if number % 9]


@pytest.mark.parametrize("change", [by_topic, logged_later, without_every_ninth])
@pytest.mark.parametrize("jobs", [1, 2])
def test_a_copy_with_a_metadata_of_its_own_counts_once_and_is_named(
    write_bag: WriteBag, tmp_path: Path, change: Change, jobs: int
) -> None:
    copy = write_bag("again", seconds=2.0, start_ns=START_NS, change=change)
    bag = write_bag("episode", seconds=2.0, start_ns=START_NS)
    result = convert([copy, bag], tmp_path / "out", ConvertOptions(), jobs=jobs)
    assert result.info.total_episodes == 1
    if change is without_every_ninth:  # the one that has more counts
        assert result.reports[0]["bag"] == "episode"
    assert len(result.skipped) == 1
    (line,) = result.passed_over
    assert "again" in line
    assert "episode: its messages are in" in line or "episode too" in line


def test_a_copy_is_not_appended_later(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag("episode", seconds=1.5, start_ns=START_NS)
    copy = write_bag("again", seconds=1.5, start_ns=START_NS, change=by_topic)
    convert([bag, copy], tmp_path / "out", ConvertOptions())
    other = write_bag("other", seconds=1.5)
    result = convert([bag, copy, other], tmp_path / "out", ConvertOptions(), append=True)
    assert result.info.total_episodes == 2


def test_bags_that_share_a_part_are_refused_unless_told_otherwise(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def part(low: float, high: float) -> Change:
        def keep(messages: list[Message]) -> list[Message]:
            return [m for m in messages if low <= (m[3] - START_NS) / 1e9 < high]

        return keep

    bags = [
        write_bag("early", seconds=6.0, start_ns=START_NS, change=part(0.0, 4.0)),
        write_bag("late", seconds=6.0, start_ns=START_NS, change=part(2.0, 6.0)),
    ]
    with pytest.raises(EpisodeError, match=r"early and .*late hold the same \d+ messages over 2"):
        convert(bags, tmp_path / "out", ConvertOptions())
    assert not (tmp_path / "out").exists()
    argv = [*map(str, bags), "--out", str(tmp_path / "out"), "--jobs", "1"]
    assert main(argv) == 2
    assert "--allow-overlap" in capsys.readouterr().err
    assert main([*argv, "--allow-overlap"]) == 0


def moved(offset: float) -> Change:
    def move(messages: list[Message]) -> list[Message]:
        for message in messages:
            if message[0] == "/follower/joint_states":
                message[4].position = message[4].position + offset
        return messages

    return move


def test_bags_of_one_time_with_other_content_are_all_converted(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    """Simulations begin at zero each time; two arms are recorded at once."""
    bags = [
        write_bag(f"run_{n}", seconds=1.5, start_ns=START_NS, change=moved(0.01 * n))
        for n in range(3)
    ]
    result = convert(bags, tmp_path / "out", ConvertOptions())
    assert result.info.total_episodes == 3
    assert not result.passed_over


def test_a_message_at_the_seam_in_common_is_no_copy(write_bag: WriteBag, tmp_path: Path) -> None:
    def part(low: float, high: float) -> Change:
        def keep(messages: list[Message]) -> list[Message]:
            return [m for m in messages if low <= (m[3] - START_NS) / 1e9 <= high]

        return keep

    bags = [
        write_bag("one", seconds=4.0, start_ns=START_NS, change=part(0.0, 2.0)),
        write_bag("two", seconds=4.0, start_ns=START_NS, change=part(1.9, 4.0)),
    ]
    assert convert(bags, tmp_path / "out", ConvertOptions()).info.total_episodes == 2
