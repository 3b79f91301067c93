# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node from outside: action, services, topics, and what it does when things break."""

from __future__ import annotations

import itertools
import re
import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from action_msgs.msg import GoalStatus
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import ActionChunk, EpisodeEvent, PolicyStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import SetBool

from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.writer import BagWriter
from koch_policy.nodes.policy import SecondNodeError
from koch_policy.recordings import seams_of_bag
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

pytestmark = [pytest.mark.ros, pytest.mark.timing]
Result = RunPolicy.Result


def running(probe: Any, kit: Any, count: int = 10) -> None:
    assert kit.wait_for(lambda: len(probe.commands) >= count)


def stamps(probe: Any, kit: Any) -> np.ndarray:
    """Of the commands that came [ns]."""
    return np.array([kit.ns(message.header.stamp) for message in probe.commands])


def ended(probe: Any, handle: Any) -> Any:
    """Cancel and wait for the result."""
    probe.finish(handle.cancel_goal_async())
    result = probe.result(handle)
    assert result.code == Result.CANCELLED
    return result


def test_a_run_commands_stamps_and_finishes(probe, brain, kit, node) -> None:
    result = probe.result(probe.start(1.5, task="wave"))
    assert (result.success, result.code) == (True, Result.FINISHED)
    assert "1.5 s are over" in result.reason
    assert kit.wait_for(lambda: len(probe.commands) == result.steps)
    assert all(list(message.name) == list(KOCH_V1_1.joints) for message in probe.commands)
    run = node.run
    ticks = (stamps(probe, kit) - run.grid.origin_ns) * 30 / 1e9
    np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-6)  # all on one grid of 1/30 s
    assert 0.0 < ticks[0] <= ticks[-1] < 1.5 * 30 + 1
    # However busy the machine: every tick is commanded once, or counted as left out.
    between = round(ticks[-1] - ticks[0]) + 1
    assert len(ticks) + run.scheduler.skipped + run.scheduler.starved >= between
    assert len(np.unique(np.round(ticks))) == len(ticks)
    assert result.duration_s >= 1.5 - ticks[0] / 30 - 1e-3
    assert kit.wait_for(lambda: probe.state == PolicyStatus.IDLE)


def test_chunks_tell_from_which_observation_they_came(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit, 25)
    ended(probe, handle)
    assert kit.wait_for(lambda: len(probe.chunks) >= 2)
    rows = {}
    for chunk in probe.chunks:
        assert chunk.strategy == "queue"
        assert chunk.steps == 30
        table = np.array(chunk.positions).reshape(30, J)
        first, observed = kit.ns(chunk.first_step_time), kit.ns(chunk.header.stamp)
        assert observed in probe.stamps, "the stamp of a sample that was published"
        assert 0 <= first - observed <= 0.4e9, "not older than the rig allows"
        for step in range(chunk.entry_index, 30):
            rows[round((first + step * chunk.step_s * 1e9) / 1e6)] = table[step]
    known = [m for m in probe.commands if round(kit.ns(m.header.stamp) / 1e6) in rows]
    assert len(known) > 10
    for message in known:
        row = rows[round(kit.ns(message.header.stamp) / 1e6)]
        np.testing.assert_allclose(message.position, row, atol=1e-9)
    commanded = {kit.ns(message.header.stamp): message.position for message in probe.commands}
    ghosts = [ghost for ghost in probe.ghosts if kit.ns(ghost.header.stamp) in commanded]
    assert len(ghosts) > 5
    leads = [
        np.subtract(ghost.position, commanded[kit.ns(ghost.header.stamp)]) for ghost in ghosts
    ]
    # 0.5 s are 15 steps of 1 mrad; less where the chunk ends before.
    assert np.min(leads) > -1e-6
    np.testing.assert_allclose(np.max(leads), 0.015, atol=1e-6)


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
    assert kit.wait_for(lambda: probe.state == PolicyStatus.ABORTED)
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


def between(probe: Any, kit: Any, begin_ns: int, end_ns: int) -> int:
    """Count the commands for moments strictly between two."""
    return int(((stamps(probe, kit) > begin_ns) & (stamps(probe, kit) < end_ns)).sum())


def test_a_human_takes_over_and_gives_back(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    probe.human_drives = True
    assert kit.wait_for(lambda: probe.events)
    assert probe.events[0].kind == EpisodeEvent.INTERVENTION_BEGIN
    assert kit.wait_for(lambda: probe.state == PolicyStatus.PAUSED)
    paused = probe.statuses[-1]
    assert "human" in paused.reason
    time.sleep(0.3)
    probe.human_drives = False
    assert kit.wait_for(lambda: len(probe.events) == 2)
    assert probe.events[1].kind == EpisodeEvent.INTERVENTION_END
    begin, end = (kit.ns(event.header.stamp) for event in probe.events)
    assert begin < kit.ns(paused.header.stamp) < end
    assert kit.wait_for(lambda: between(probe, kit, end, 2 * end) >= 5)
    assert between(probe, kit, kit.ns(paused.header.stamp), end) == 0
    first = stamps(probe, kit)[stamps(probe, kit) > end][0]
    source = [chunk for chunk in probe.chunks if kit.ns(chunk.header.stamp) <= first][-1]
    assert kit.ns(source.header.stamp) > begin, "the chunk is newer than the intervention"
    ended(probe, handle)


def test_a_fresh_node_takes_the_arm_from_a_human_whose_switch_it_finds_late(
    brain, kit, rig, node
) -> None:
    """Commands, guard and services are found one after another; a run may begin before all are."""
    world = kit.spinner(kit.probe("/late"))
    inner = world.node
    inner.human_drives = True
    fresh = kit.spinner(kit.make_node(kit.brain(), rig, "/late"))

    def let_go(request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        inner.human_drives = request.data
        response.success = True
        return response

    def offer() -> None:
        inner.create_service(SetBool, "/late/follower/teleop/clutch", let_go)

    late = threading.Timer(0.8, offer)
    late.start()
    try:
        handle = inner.start()
        running(inner, kit)
        assert not inner.human_drives
        ended(inner, handle)
    finally:
        late.join()
        fresh.node.close()
        fresh.close()
        inner.close()
        world.close()


def test_pause_and_resume(probe, brain, kit, node) -> None:
    assert not probe.ask(probe.pause).success  # nothing runs
    handle = probe.start()
    running(probe, kit)
    assert probe.ask(probe.pause).success
    paused_ns = time.time_ns()
    time.sleep(0.3)
    resumed_ns = time.time_ns()
    assert probe.ask(probe.resume).success
    assert kit.wait_for(lambda: between(probe, kit, resumed_ns, 2 * resumed_ns) >= 5)
    tick_ns = 33_333_334  # one tick may have been under way when the answer came
    assert between(probe, kit, paused_ns + tick_ns, resumed_ns) == 0
    gaps = np.diff(stamps(probe, kit))
    assert gaps.max() >= 0.39e9  # the guard starts softly after 0.3 s without commands
    ended(probe, handle)


def test_a_run_takes_another_task(probe, brain, kit, node) -> None:
    told = []

    def hear(call, observation):
        told.append(observation["task"])
        return brain.wave(call, observation)

    brain.behave = hear
    handle = probe.start(task="left")
    running(probe, kit)
    probe.task.publish(String(data="  "))
    probe.task.publish(String(data="right"))
    assert kit.wait_for(lambda: "right" in told)
    assert set(told) == {"left", "right"}
    ended(probe, handle)


def test_a_second_goal_is_refused_with_a_sentence(probe, brain, kit, node) -> None:
    handle = probe.start()
    running(probe, kit)
    result = probe.result(probe.start(1.0))
    assert result.code == Result.REFUSED
    assert "under way" in result.reason
    ended(probe, handle)


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
    handle = probe.start(strategy=strategy)
    running(probe, kit, 20)
    ended(probe, handle)
    assert {chunk.strategy for chunk in probe.chunks} == {strategy}
    steps = [np.abs(np.subtract(b.position, a.position)).max()
             for a, b in itertools.pairwise(probe.commands)]  # fmt: skip
    assert max(steps) < 0.05


def test_seams_are_recomputed_from_a_bag(probe, brain, kit, node, tmp_path) -> None:
    """Each chunk stands still 0.02 rad above the one before: third differences of 2 x 0.02."""
    brain.behave = lambda call, _: np.full((30, J), 0.02 * (call % 20), np.float32)
    bag = BagWriter(tmp_path / "bag", {})
    heard: list[tuple[int, bytes]] = []
    ears = []
    for name, kind in (
        ("/follower/command/policy", JointState),
        ("/policy/action_chunk", ActionChunk),
    ):
        ros_type = f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
        topic, type_hash = Definitions().topic(name, ros_type)
        number = bag.add_topic(topic, type_hash=type_hash)
        ears.append(
            probe.create_subscription(
                kind, name, lambda data, n=number: heard.append((n, bytes(data))), 1000, raw=True
            )
        )
    assert kit.wait_for(lambda: all(probe.count_publishers(ear.topic_name) for ear in ears))
    handle = probe.start()
    running(probe, kit, 60)
    ended(probe, handle)
    for ear in ears:
        probe.destroy_subscription(ear)
    for order, (number, data) in enumerate(heard):
        bag.write(number, data, order, order)
    found = seams_of_bag(bag.finish({}))
    assert list(found) == ["queue"]
    assert found["queue"].seams >= 2
    assert found["queue"].seam_median == pytest.approx(2 * 0.02 * 30**3, rel=1e-3)
    assert found["queue"].inside_median == pytest.approx(0.0, abs=1e-3)


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
        handle = inner.start()
        assert kit.wait_for(
            lambda: any(message.state == PolicyStatus.SHADOW for message in inner.statuses)
        )
        assert kit.wait_for(lambda: len(inner.ghosts) >= 20)
        result = ended(inner, handle)
        found = re.search(r"mean \(p95\) error in degrees over (\d+) ticks: (.*)", result.reason)
        assert found is not None
        assert int(found[1]) > 10
        assert all(name in found[2] for name in KOCH_V1_1.joints)
        assert result.steps >= 20
        assert not inner.commands
        assert not inner.events
        assert not probe.commands
    finally:
        shadow.node.close()
        shadow.close()
        inner.close()
        world.close()


def test_each_command_tells_its_way(probe, brain, kit, node) -> None:
    from koch_interfaces.msg import NamedVector

    from koch_episodes.goal_trace import POLICY_STAGES, POLICY_TOPIC

    traces: list[NamedVector] = []
    listener = probe.create_subscription(NamedVector, POLICY_TOPIC, traces.append, 1000)
    assert kit.wait_for(lambda: node.outputs._traces.get_subscription_count() > 0)
    probe.result(probe.start(seconds=1.5))
    kit.wait_for(lambda: len(traces) >= len(probe.commands), 2.0)
    probe.destroy_subscription(listener)
    stamps = [kit.ns(trace.header.stamp) for trace in traces]
    assert stamps == [kit.ns(command.header.stamp) for command in probe.commands]
    assert len(stamps) > 10
    exposures = list(probe.stamps)  # at one moment: the probe goes on
    for trace in traces:
        said = dict(zip(trace.name, trace.value, strict=True))
        ends = [said[stage] for stage in POLICY_STAGES]
        assert ends == sorted(ends), "no stage ends before the one in front of it"
        exposed_ns = kit.ns(trace.header.stamp) + round(said["exposure"] * 1e9)
        assert min(abs(exposed_ns - stamp) for stamp in exposures) < 1000
    status = node.status.message()
    assert status.way_stages == [*list(POLICY_STAGES)[1:], "total"]
    assert 0.0 < status.way_p50_s[-1] <= status.way_p95_s[-1] < 1.0
    assert sum(status.way_p50_s[:-1]) == pytest.approx(status.way_p50_s[-1], abs=0.03)


def test_the_status_adds_what_the_driver_says_of_a_goal() -> None:
    from koch_policy.nodes.command_publisher import RecentWays

    ways = RecentWays(3)
    assert ways.quantiles_s(0.5) == {}
    for k in range(5):
        begin_ns = k * 33_000_000
        ways.add(begin_ns, {"exposure": begin_ns - 20_000_000, "command": begin_ns + 1_000_000})
    found = ways.quantiles_s(0.5)
    assert found["command"] == found["total"] == pytest.approx([0.021])
    ways.reached(0, {"bus": 9_000_000})  # forgotten: no more than three are kept
    assert list(ways.quantiles_s(0.5)) == ["command", "total"]
    late_ns = 4 * 33_000_000 + 400_000  # the driver's stamp differs by what seconds lose
    ways.reached(late_ns, {"bus": late_ns + 3_600_000})
    ways.reached(late_ns, {"bus": late_ns + 2_600_000})  # the other arm was written earlier
    found = ways.quantiles_s(0.0, 1.0)
    assert found["bus"] == pytest.approx([0.003, 0.003])
    assert found["total"] == pytest.approx([0.024, 0.024])
