# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the guard says ends a run, forbids the next one, and decides who drives."""

from __future__ import annotations

import pytest

from koch_policy.execution.takeover import SOURCE_TIMEOUT_S, GuardWatch, GuardWord, Takeover


class Stage:
    """A watch on a clock, and the reasons for which it ended runs."""

    def __init__(self) -> None:
        self.now = 10.0
        self.ended: list[str] = []
        self.watch = GuardWatch("follower", self.ended.append, lambda: self.now)

    def receive(self, still: str = "", count: int = 0, refused: int = 0) -> None:
        words = (("no stamp", refused),) if refused else ()
        self.watch.take(GuardWord(still, count, words))


def test_a_stop_ends_the_run_and_forbids_the_next_until_it_is_lifted() -> None:
    stage = Stage()
    stage.receive(count=7)
    assert (stage.ended, stage.watch.blocked) == ([], "")
    stage.receive("stopped: by hand", 8)
    assert stage.ended == ["follower: stopped: by hand"]
    assert "by hand" in stage.watch.blocked
    stage.receive(count=8)
    assert (len(stage.ended), stage.watch.blocked) == (1, "")


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_stop_that_was_lifted_between_two_words_ends_the_run_as_well(count: int) -> None:
    stage = Stage()
    stage.receive(count=3)
    stage.receive(count=3 + count)
    assert len(stage.ended) == 1
    assert "stopped" in stage.ended[0]
    assert stage.watch.blocked == ""


def test_a_policy_node_that_comes_later_takes_the_count_as_it_is() -> None:
    stage = Stage()
    stage.receive(count=12)
    assert stage.ended == []


@pytest.mark.parametrize(("each", "every_s", "ends"), [(3, 0.2, True), (1, 0.2, False)])
def test_refused_commands_end_a_run_when_they_are_many(
    each: int, every_s: float, ends: bool
) -> None:
    stage, total = Stage(), 100
    for _ in range(20):
        stage.receive(refused=total)
        stage.now, total = stage.now + every_s, total + each
    assert bool(stage.ended) is ends
    if ends:
        assert "no stamp" in stage.ended[0]


def test_the_guards_word_counts_while_it_is_there_and_topics_do_without_it() -> None:
    now = [0.0]
    takeover = Takeover(monotonic=lambda: now[0])
    takeover.heard("teleop", 5)
    assert takeover.driver() == ("teleop", 5)
    takeover.guard_says("", 6)  # it refuses what was heard
    assert takeover.driver() is None
    takeover.guard_says("trajectory", 7)
    assert takeover.driver() == ("trajectory", 7)
    takeover.guard_says("policy", 8)
    assert takeover.driver() is None
    now[0] = 3.5  # the driver has died
    takeover.heard("replay", 9)
    assert takeover.driver() == ("replay", 9)
    now[0] += SOURCE_TIMEOUT_S + 0.1
    assert takeover.driver() is None
