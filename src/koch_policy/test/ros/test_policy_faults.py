# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node over DDS when the world around it goes wrong: clocks, twins, tasks."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from koch_interfaces.action import RunPolicy

from koch_policy.nodes.policy import load_from
from koch_policy.train.setup import make_trainer

pytestmark = pytest.mark.ros
Result = RunPolicy.Result
NS = 1_000_000_000


class MovableClock:
    """The computer's time and an offset that a test changes [ns]."""

    def __init__(self) -> None:
        self.offset_ns = 0

    def __call__(self) -> int:
        return time.time_ns() + self.offset_ns


@pytest.fixture
def clockwork(ros: None, kit: Any, rig: Path) -> Iterator[tuple[Any, Any, MovableClock]]:
    """A node that lives by /clock, its world and the clock."""
    clock = MovableClock()
    world = kit.spinner(kit.probe("/clockwork", clock))
    node = kit.spinner(kit.make_node(kit.brain(), rig, "/clockwork", use_sim_time=True))
    assert kit.wait_for(lambda: abs(node.node.now_ns() - clock()) < NS)
    yield world.node, node.node, clock
    node.node.close()
    node.close()
    world.node.close()
    world.close()


@pytest.mark.parametrize("jump_s", [-60.0, 60.0])
def test_a_clock_that_jumps_ends_the_run_and_the_next_one_works(
    clockwork: Any, kit: Any, jump_s: float
) -> None:
    world, node, clock = clockwork
    handle = world.start()
    assert kit.wait_for(lambda: len(world.commands) >= 10)
    clock.offset_ns += round(jump_s * NS)
    jumped_ns = clock()
    result = world.result(handle)
    assert result.code == Result.STALE_STREAM
    said = re.search(r"the clock jumped by ([-+.\d]+) s", result.reason)
    assert said is not None, result.reason
    assert float(said[1]) == pytest.approx(jump_s, abs=1.0)
    assert kit.wait_for(lambda: abs(node.now_ns() - clock()) < NS)
    world.forget()
    again = world.start()
    assert kit.wait_for(lambda: len(world.commands) >= 10)
    stamps = [kit.ns(message.header.stamp) for message in world.commands]
    assert min(stamps) >= jumped_ns
    assert max(stamps) <= clock()
    world.finish(again.cancel_goal_async())
    assert world.result(again).code == Result.CANCELLED


def test_two_nodes_that_started_at_once_both_refuse(ros: None, kit: Any, rig: Path) -> None:
    """Neither could hear the other while both were loading."""
    brains = [kit.brain(), kit.brain()]
    loading = threading.Barrier(len(brains))
    made: list[Any] = []

    def start(brain: Any) -> None:
        def load(_: Any) -> Any:
            loading.wait(kit.patience_s)
            return brain.policy

        made.append(kit.make_node(load, rig, "/twins"))

    threads = [threading.Thread(target=start, args=(brain,)) for brain in brains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * kit.patience_s)
    world = kit.spinner(kit.probe("/twins"))
    nodes = [kit.spinner(node) for node in made]
    try:
        assert len(nodes) == 2
        topic = "/twins/follower/command/policy"
        assert kit.wait_for(lambda: all(node.count_publishers(topic) == 2 for node in made))
        result = world.node.result(world.node.start(1.0))
        assert result.code == Result.REFUSED
        assert f"two policy nodes command {topic}; stop one" in result.reason
        assert not world.node.commands
        nodes[1].node.close()
        nodes.pop().close()
        assert kit.wait_for(lambda: made[0].count_publishers(topic) == 1)
        handle = world.node.start()
        assert kit.wait_for(lambda: len(world.node.commands) >= 5), "one alone works"
        world.node.finish(handle.cancel_goal_async())
        world.node.result(handle)
    finally:
        for spinner in nodes:
            spinner.node.close()
            spinner.close()
        world.node.close()
        world.close()


@pytest.fixture(scope="module")
def told(ros: None, kit: Any, make: Any, tmp_path_factory: Any) -> Iterator[Any]:
    """The world of a real flow policy that is told its task; the rig's is another."""
    data = make.demonstrations(images=True)
    seen = {key: data.vectors[key] for key in ("observation.state", "action")}
    recipe = make.recipe("flow").with_overrides({"policy": {"task_encoder": "learned"}}, "test")
    out = tmp_path_factory.mktemp("flow")
    make_trainer(replace(data, vectors=seen), recipe, out, show_progress=False).save()
    rig = kit.rig_file(tmp_path_factory.mktemp("rig"))
    world = kit.spinner(kit.probe("/told"))
    chosen = {"checkpoint": str(out), "runtime": "torch", "device": "cpu", "strategy": "queue"}
    node = kit.spinner(kit.make_node(load_from, rig, "/told", **chosen))
    yield world.node
    node.node.close()
    node.close()
    world.node.close()
    world.close()


@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("", "'Move the arm.'; expected one of ['reach left', 'reach right']"),  # the rig's task
        ("  ", "told what to do by language"),
        ("dance", "'dance'; expected one of ['reach left', 'reach right']"),
    ],
)
def test_a_language_policy_without_a_task_it_knows_moves_nothing(
    told: Any, task: str, words: str
) -> None:
    told.forget()
    result = told.result(told.start(0.0, task=task))
    assert result.code == Result.POLICY_ERROR
    assert words in result.reason
    assert result.steps == 0
    assert not told.commands


def test_a_language_policy_with_its_task_runs(told: Any, kit: Any) -> None:
    told.forget()
    handle = told.start(0.0, task="reach left")
    assert kit.wait_for(lambda: len(told.commands) >= 5)
    told.finish(handle.cancel_goal_async())
    assert told.result(handle).code == Result.CANCELLED
