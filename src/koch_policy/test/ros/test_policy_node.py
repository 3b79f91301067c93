# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node from outside: action, services, topics, and what it does when things break."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import EpisodeEvent, PolicyStatus

from koch_policy.nodes.policy import SecondNodeError
from koch_rig.joints import JOINT_NAMES

pytestmark = [pytest.mark.ros, pytest.mark.timing]
Result = RunPolicy.Result


def ns(message: Any) -> int:
    return message.header.stamp.sec * 10**9 + message.header.stamp.nanosec


def running(probe: Any, kit: Any, count: int = 10) -> None:
    assert kit.wait_for(lambda: len(probe.commands) >= count)


def test_a_run_commands_stamps_and_finishes(probe, brain, kit, node) -> None:
    handle = probe.start(1.5, task="wave")
    result = probe.result(handle)
    assert (result.success, result.code) == (True, Result.FINISHED)
    assert "1.5 s are over" in result.reason
    assert result.steps > 5
    assert 0.3 < result.duration_s < 4.0
    assert kit.wait_for(lambda: len(probe.commands) == result.steps)
    assert all(list(message.name) == list(JOINT_NAMES) for message in probe.commands)
    gaps = np.diff([ns(message) for message in probe.commands]) * 30 / 1e9
    np.testing.assert_allclose(gaps, np.round(gaps), atol=1e-6)  # all on one grid of 1/30 s
    assert kit.wait_for(lambda: probe.statuses[-1].state == PolicyStatus.IDLE)


def test_chunks_tell_from_which_observation_they_came(probe, brain, kit, node) -> None:
    probe.result(probe.start(1.0))
    assert kit.wait_for(lambda: len(probe.chunks) >= 2)
    rows = {}
    for chunk in probe.chunks:
        assert chunk.strategy == "queue"
        assert chunk.steps == 30
        table = np.array(chunk.positions).reshape(30, 6)
        first = chunk.first_step_time.sec * 10**9 + chunk.first_step_time.nanosec
        assert first == ns(chunk)
        for step in range(chunk.entry_index, 30):
            rows[round((first + step * chunk.step_s * 1e9) / 1e6)] = table[step]
    known = [message for message in probe.commands if round(ns(message) / 1e6) in rows]
    assert len(known) > 10
    for message in known:
        np.testing.assert_allclose(message.position, rows[round(ns(message) / 1e6)], atol=1e-9)
    assert probe.ghosts
    lead = np.array(probe.ghosts[5].position) - np.array(probe.commands[5].position)
    np.testing.assert_allclose(lead, 0.015, atol=0.011)  # half a second ahead, or the chunk's end


def test_cancel(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    probe.finish(handle.cancel_goal_async())
    answer = probe.finish(handle.get_result_async())
    assert answer.status == GoalStatus.STATUS_CANCELED
    assert answer.result.code == Result.CANCELLED
    count = len(probe.commands)
    assert not kit.wait_for(lambda: len(probe.commands) > count + 1, 0.3)


def test_a_camera_that_dies_ends_the_run_by_name(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    probe.camera_alive = False
    result = probe.result(handle)
    assert result.code == Result.STALE_STREAM
    assert "cameras/above" in result.reason
    assert "joint_states" not in result.reason
    assert kit.wait_for(lambda: probe.statuses[-1].state == PolicyStatus.ABORTED)
    assert "cameras/above" in probe.statuses[-1].reason


def test_a_driver_that_restarts_ends_the_run_and_the_next_one_works(
    probe, brain, kit, node
) -> None:
    handle = probe.start()
    running(probe, kit)
    probe.arm_alive = False
    result = probe.result(handle)
    assert result.code == Result.STALE_STREAM
    assert "follower/joint_states" in result.reason
    probe.arm_alive = True
    assert probe.result(probe.start(0.7)).code == Result.FINISHED


def test_nan_on_the_50th_call(probe, brain, kit, node) -> None:
    def behave(call: int, observation: Any) -> Any:
        rows = brain.wave(call, observation)
        if call == 49:
            rows[0, 0] = np.nan
        return rows

    brain.behave = behave
    settings = node.settings
    node.settings = replace(settings, execution_steps=1)  # one per tick: the 50th comes soon
    try:
        result = probe.result(probe.start())
    finally:
        node.settings = settings
    assert result.code == Result.POLICY_ERROR
    assert "NaN or infinite" in result.reason
    assert brain.policy.calls == 50
    assert all(np.isfinite(message.position).all() for message in probe.commands)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA error: the launch timed out and was terminated"), "CUDA error"),
        (ValueError("surprise"), "ValueError: surprise"),
    ],
)
def test_an_exception_in_the_policy_is_the_runs_end_not_the_nodes(
    probe, brain, kit, node, error, words
) -> None:
    def behave(call: int, observation: Any) -> Any:
        if call >= 2:
            raise error
        return brain.wave(call, observation)

    brain.behave = behave
    result = probe.result(probe.start())
    assert result.code == Result.POLICY_ERROR
    assert words in result.reason
    brain.reset()
    assert probe.result(probe.start(0.5)).success


def test_a_policy_slower_than_its_chunk(probe, brain, kit, node) -> None:
    brain.delay_s = 1.2  # 30 steps are 1.0 s
    result = probe.result(probe.start())
    assert result.code == Result.POLICY_ERROR
    assert "overrun" in result.reason
    assert not probe.commands


def test_a_human_takes_over_and_gives_back(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    probe.human_drives = True
    assert kit.wait_for(lambda: probe.events)
    assert probe.events[0].kind == EpisodeEvent.INTERVENTION_BEGIN
    assert kit.wait_for(lambda: probe.statuses[-1].state == PolicyStatus.PAUSED)
    assert "human" in probe.statuses[-1].reason
    count = len(probe.commands)
    assert not kit.wait_for(lambda: len(probe.commands) > count, 0.3)
    probe.human_drives = False
    assert kit.wait_for(lambda: len(probe.commands) > count + 5)
    assert probe.events[1].kind == EpisodeEvent.INTERVENTION_END
    first = ns(probe.commands[count])
    source = [chunk for chunk in probe.chunks if ns(chunk) <= first][-1]
    assert ns(source) > ns(probe.events[0]), "the chunk is newer than the intervention"
    probe.finish(handle.cancel_goal_async())
    probe.result(handle)


def test_pause_and_resume(probe, brain, kit, node) -> None:
    assert not probe.ask(probe.pause).success  # nothing runs
    handle = probe.start()
    running(probe, kit)
    assert probe.ask(probe.pause).success
    kit.wait_for(lambda: False, 0.1)
    count = len(probe.commands)
    assert not kit.wait_for(lambda: len(probe.commands) > count, 0.3)
    assert probe.ask(probe.resume).success
    assert kit.wait_for(lambda: len(probe.commands) > count + 5)
    silence = ns(probe.commands[count]) - ns(probe.commands[count - 1])
    assert silence >= 0.39e9  # the guard starts softly after 0.3 s without commands
    probe.finish(handle.cancel_goal_async())
    probe.result(handle)


def test_a_second_goal_is_refused_with_a_sentence(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    result = probe.result(probe.start(1.0))
    assert result.code == Result.REFUSED
    assert "under way" in result.reason
    probe.finish(handle.cancel_goal_async())
    assert probe.result(handle).code == Result.CANCELLED


@pytest.mark.parametrize(
    ("strategy", "words"), [("magic", "one of queue"), ("rtc ", "one of queue")]
)
def test_an_unknown_strategy_is_refused_with_the_choices(
    probe, brain, node, strategy, words
) -> None:
    result = probe.result(probe.start(1.0, strategy=strategy))
    assert result.code == Result.MISMATCH
    assert words in result.reason


@pytest.mark.parametrize("strategy", ["temporal_ensemble", "blend"])
def test_other_strategies_run(probe, brain, kit, node, strategy) -> None:
    result = probe.result(probe.start(1.0, strategy=strategy))
    assert result.success
    assert kit.wait_for(lambda: any(chunk.strategy == strategy for chunk in probe.chunks))
    steps = [np.abs(np.subtract(b.position, a.position)).max()
             for a, b in itertools.pairwise(probe.commands)]  # fmt: skip
    assert max(steps) < 0.05


def test_a_second_policy_node_says_who_is_there(probe, brain, kit, node, rig) -> None:
    with pytest.raises(SecondNodeError, match="another policy node runs already"):
        kit.make_node(kit.brain(), rig)
    assert probe.result(probe.start(0.5)).success  # the first one is unharmed


def test_shadow_in_a_namespace_compares_and_commands_nothing(probe, kit, rig, brain, node) -> None:
    """A node moved whole by its namespace, beside a human who drives."""
    world = kit.spinner(kit.probe("/other"))
    beside = kit.brain()
    shadow = kit.spinner(kit.make_node(beside, rig, "/other", shadow=True))
    try:
        inner = world.node
        inner.human_drives = True
        handle = inner.start(1.5)
        assert kit.wait_for(
            lambda: any(message.state == PolicyStatus.SHADOW for message in inner.statuses)
        )
        result = inner.result(handle)
        assert result.success
        assert "mean (p95) error in degrees over" in result.reason
        assert "shoulder_pan" in result.reason
        assert result.steps > 10
        assert not inner.commands
        assert not inner.events
        assert inner.ghosts
        assert not probe.commands
    finally:
        shadow.node.close()
        shadow.close()
        inner.close()
        world.close()
