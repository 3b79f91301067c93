# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One run's decisions, tick by tick, on a clock that the test turns."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.decode import NamedValues
from koch_policy.chunks import DelayQuantile, Ensemble, Fading, Grid, Request, StrategyKind
from koch_policy.errors import PolicyUnavailableError
from koch_policy.execution import (
    Answer,
    ObservationBuilder,
    PolicyRun,
    RunSettings,
    StopReason,
    Takeover,
)
from koch_policy.execution.compatibility import Actions, PlainActions, SpaceActions
from koch_policy.execution.inference import checked
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.execution.takeover import Takeovers
from koch_policy.metadata import CheckpointMetadata
from koch_rig.action_layout import ACTION_SPACES, ActionLayout
from koch_rig.action_space import ActionCodec
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.load import load_rig
from koch_rig.units import JointUnits

J = len(KOCH_V1_1.joints)

RIG = load_rig(Path(__file__).resolve().parents[3] / "config" / "rig.emulated.yaml")
NS = 1_000_000_000
ORIGIN = 1_700_000_000 * NS


class FakeWorker:
    """The inference thread on the test's clock."""

    def __init__(self, policy: FunctionPolicy, clock: Callable[[], int]) -> None:
        self.policy = policy
        self.clock = clock
        self.job: tuple[Request, Any, int] | None = None
        self.observations: list[Any] = []
        self.delay_s = 0.04

    @property
    def busy_s(self) -> float:
        if self.job is None:
            return 0.0
        return max(1e-9, (self.clock() - self.job[2]) / NS)

    def submit(self, request: Request, observation: Any, predict: Any) -> None:
        assert self.job is None, "one inference at a time"
        self.job = (request, observation, self.clock())
        self.observations.append(observation)

    def poll(self) -> Answer | None:
        if self.job is None or self.clock() - self.job[2] < self.delay_s * NS:
            return None
        request, observation, begin = self.job
        self.job = None
        raw, error = None, None
        try:
            raw = checked(self.policy, self.policy.predict(observation))
        except Exception as exc:
            error = exc
        return Answer(request, raw, error, begin + round(self.delay_s * NS), self.delay_s)


@dataclass
class Recorder:
    """The sink."""

    commands: list[tuple[int, np.ndarray]] = field(default_factory=list)
    chunks: list[tuple[Request, np.ndarray, int]] = field(default_factory=list)
    observed: list[int] = field(default_factory=list)
    events: list[tuple[int, str, bool]] = field(default_factory=list)
    shown: int = 0

    def command(self, time_ns: int, action: np.ndarray) -> None:
        self.commands.append((time_ns, action.copy()))

    def chunk(self, request: Request, rows: np.ndarray, entry: int, observed_ns: int) -> None:
        self.chunks.append((request, rows, entry))
        self.observed.append(observed_ns)

    def predicted(self, tick: int, action: np.ndarray, preview: np.ndarray | None) -> None:
        self.shown += 1

    def intervention(self, stamp_ns: int, source: str, *, begins: bool) -> None:
        self.events.append((stamp_ns, source, begins))


class Stage:
    """A run with everything around it."""

    def __init__(
        self,
        function: Any = None,
        *,
        prompt: bool = False,
        actions: Actions | None = None,
        extras: CheckpointMetadata | None = None,
        **settings: Any,
    ) -> None:
        self.now = ORIGIN
        self.states_alive = True
        self.state_age_ns = 0
        self.policy = FunctionPolicy(function or ramp, extras=extras)
        units = {
            name: JointUnits(arm, load_calibration(arm.calibration_path))
            for name, arm in RIG.arms.items()
        }
        self.builder = ObservationBuilder(self.policy, RIG, units)
        self.worker = FakeWorker(self.policy, lambda: self.now)
        self.sink = Recorder()
        self.takeover = Takeover(monotonic=lambda: self.now / NS)
        self.grid = Grid(ORIGIN, 30.0)
        self.tick = 0
        self.run = PolicyRun(
            RunSettings(task="test", **settings),
            grid=self.grid,
            strategy=Fading(StrategyKind.QUEUE, 10),
            delay=DelayQuantile(initial_s=0.05),
            clock=lambda: self.now,
            worker=self.worker,  # type: ignore[arg-type]  # the same three methods
            builder=self.builder,
            actions=actions or PlainActions(lambda raw: raw.astype(np.float64)),
            predict=lambda policy, observation, request: policy.predict(observation),
            takeover=self.takeover,
            sink=self.sink,
            **({"wait": self.wait, "nap": self.nap} if prompt else {}),
        )

    def nap(self, seconds: float) -> None:
        self.now += round(seconds * NS)

    def wait(self, seconds: float) -> Answer | None:
        assert self.worker.job is not None
        left_s = self.worker.delay_s - self.worker.busy_s
        self.nap(max(0.0, min(seconds, left_s)) + 1e-6)
        return self.worker.poll()

    def go(self, seconds: float, each: Callable[[], None] = lambda: None) -> Stage:
        """Let time pass, tick by tick, with joint states at 100 Hz."""
        for _ in range(round(seconds * 30)):
            self.tick += 1
            due = self.grid.time_ns(self.tick)
            while self.now < due:
                self.now = min(due, self.now + 10_000_000)
                if self.states_alive:
                    self.builder.push(
                        "follower/joint_states",
                        self.now - self.state_age_ns,
                        NamedValues(KOCH_V1_1.joints, [0.1] * J),
                    )
            each()
            self.run.step(self.tick)
        return self

    @property
    def stamps(self) -> list[int]:
        return [stamp for stamp, _ in self.sink.commands]


def ramp(call: int, observation: Any) -> np.ndarray:
    """30 steps that begin at 0.01 per call."""
    return np.full((30, J), 0.01 * call, np.float32) + 0.001 * np.arange(30)[:, None].astype("f4")


def test_commands_bear_the_moment_they_are_for() -> None:
    stage = Stage().go(2.0)
    gaps = {b - a for a, b in itertools.pairwise(stage.stamps)}
    assert gaps <= {33333333, 33333334}, "one command per tick, on the grid"
    assert stage.stamps[0] <= ORIGIN + 0.15 * NS
    assert stage.run.steps == len(stage.stamps) == stage.sink.shown
    assert stage.run.end is None
    assert 29.0 < stage.run.rate_hz() < 31.0
    assert 0.0 < stage.run.chunk_age_s < 0.5


def test_a_quick_chunk_moves_the_arm_at_its_own_tick() -> None:
    stage = Stage(prompt=True)
    stage.worker.delay_s = 0.004
    stage.run.scheduler.delay.add(0.004)
    sent: list[int] = []
    command = stage.sink.command

    def note(time_ns: int, action: np.ndarray) -> None:
        sent.append(stage.now - time_ns)
        command(time_ns, action)

    stage.sink.command = note  # type: ignore[method-assign]
    stage.go(2.0)
    assert len(stage.sink.chunks) > 4
    assert all(entry == 0 for _, _, entry in stage.sink.chunks)
    assert len(stage.stamps) == 60
    assert stage.stamps[0] == stage.grid.time_ns(1), "the first tick has an action already"
    assert max(sent) - min(sent) < 10_000, "those that ask for no chunk wait as well"
    assert 0.004 * NS <= min(sent) <= 0.008 * NS


def test_a_chunk_that_comes_late_once_costs_a_tick_and_no_more() -> None:
    stage = Stage(prompt=True)
    stage.worker.delay_s = 0.004
    for _ in range(20):
        stage.run.scheduler.delay.add(0.004)
    stage.go(1.0)
    stage.worker.delay_s = 0.05
    before = len(stage.sink.chunks)
    stage.go(0.4)
    late = [entry for _, _, entry in stage.sink.chunks[before:]]
    assert late[0] == 2
    assert len(stage.stamps) == 42, "the old plan goes on"


def test_a_slow_policy_is_not_waited_for() -> None:
    stage = Stage(prompt=True)
    stage.run.scheduler.delay.add(0.04)
    stage.go(2.0)
    assert all(entry >= 1 for _, _, entry in stage.sink.chunks)


def test_a_chunk_bears_the_stamp_of_the_sample_it_came_from() -> None:
    stage = Stage()
    stage.state_age_ns = 4_000_000
    stage.go(2.0)
    ticks = [stage.grid.time_ns(request.tick) for request, _, _ in stage.sink.chunks]
    assert len(ticks) > 4
    assert stage.sink.observed == [tick - 4_000_000 for tick in ticks]


def test_each_command_is_its_chunks_row_of_that_tick() -> None:
    stage = Stage().go(3.0)
    plan = {}
    for request, rows, entry in stage.sink.chunks:
        assert entry == 2  # 40 ms are two ticks
        for step in range(entry, len(rows)):
            plan[stage.grid.time_ns(request.tick + step)] = rows[step]
    for stamp, action in stage.sink.commands:
        np.testing.assert_array_equal(action, plan[stamp])
    assert len(stage.sink.chunks) >= 8


@pytest.mark.parametrize("delay_s", [0.0, 0.04, 0.2, 0.7])
@pytest.mark.parametrize("kind", [StrategyKind.QUEUE, StrategyKind.BLEND, StrategyKind.RTC])
def test_the_first_chunk_begins_with_its_first_row(delay_s: float, kind: StrategyKind) -> None:
    stage = Stage()
    stage.worker.delay_s = delay_s
    stage.run.scheduler.strategy = Fading(kind, 10, 5 if kind is StrategyKind.BLEND else 0)
    stage.go(2.0)
    executed = [action[0] for _, action in stage.sink.commands[:8]]
    np.testing.assert_allclose(executed, ramp(0, None)[:8, 0], atol=1e-7)


def test_the_chunk_after_a_pause_begins_with_its_first_row() -> None:
    stage = Stage()
    stage.worker.delay_s = 0.1
    stage.go(1.0)
    stage.run.pause()
    stage.go(0.5)
    before, chunks = len(stage.stamps), len(stage.sink.chunks)
    stage.run.resume()
    stage.go(1.0)
    _, rows, entry = stage.sink.chunks[chunks]
    np.testing.assert_array_equal(stage.sink.commands[before][1], rows[0])
    np.testing.assert_array_equal(stage.sink.commands[before + 1][1], rows[entry + 1])
    assert rows[entry + 1][0] == pytest.approx(rows[0][0] + 0.001)


def test_in_shadow_mode_the_first_chunk_keeps_its_time() -> None:
    stage = Stage(is_shadow=True).go(0.5)
    request, rows, entry = stage.sink.chunks[0]
    assert len(rows) == 30
    assert entry == 2
    assert request.tick + entry == 3


def test_a_dead_stream_stops_the_commands_at_once_and_then_ends_the_run() -> None:
    stage = Stage().go(1.0)
    stage.states_alive = False
    died = stage.now
    stage.go(1.5)
    assert max(stage.stamps) - died < 0.06 * NS  # its maximum age is 50 ms
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.STALE_STREAM
    assert "follower/joint_states" in stage.run.end.reason
    assert "allowed 50 ms" in stage.run.end.reason
    assert stage.run.refusals > 10


def test_a_short_gap_is_survived_in_step() -> None:
    stage = Stage().go(1.0)
    stage.states_alive = False
    stage.go(0.2)
    stage.states_alive = True
    stage.go(1.0)
    assert stage.run.end is None
    assert 0 < stage.run.refusals < 8
    gaps = np.diff(stage.stamps)
    assert gaps.max() > 0.1 * NS  # nothing was commanded while blind
    assert stage.stamps[-1] == stage.now


def test_streams_that_never_come_end_the_run_with_their_names() -> None:
    stage = Stage(start_timeout_s=2.0)
    stage.states_alive = False
    stage.go(1.5)
    assert stage.run.end is None
    assert stage.run.pause_reason == "waiting for follower/joint_states"
    stage.go(1.0)
    assert stage.run.end is not None
    assert "no sample" in stage.run.end.reason
    assert not stage.stamps


def nan_on_the_50th(call: int, observation: Any) -> np.ndarray:
    rows = ramp(call, observation)
    if call == 49:
        rows[3, 2] = np.nan
    return rows


def test_nan_on_the_50th_call_is_never_commanded() -> None:
    stage = Stage(nan_on_the_50th).go(25.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.POLICY_ERROR
    assert "NaN or infinite, the first in step 3, element 2" in stage.run.end.reason
    assert stage.policy.calls == 50
    assert np.isfinite([action for _, action in stage.sink.commands]).all()


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (np.zeros((30, 5), np.float32), r"shape \(30, 5\)"),
        (np.zeros((0, 6), np.float32), r"shape \(0, 6\)"),
        (np.zeros(J, np.float32), r"shape \(6,\)"),
        (np.zeros((30, J), np.int64), "int64"),
        ("zeros", "str"),
        (RuntimeError("CUDA error: device-side assert triggered"), "CUDA error"),
    ],
)
def test_what_is_no_chunk_ends_the_run(bad: Any, words: str) -> None:
    def function(call: int, observation: Any) -> Any:
        if call < 3:
            return ramp(call, observation)
        if isinstance(bad, Exception):
            raise bad
        return bad

    stage = Stage(function).go(3.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.POLICY_ERROR
    assert re.search(words, stage.run.end.reason)
    assert stage.stamps[-1] < stage.now - NS


def test_a_chunk_is_commanded_as_far_as_the_hand_reaches_and_the_end_says_why() -> None:
    codec = ActionCodec(ACTION_SPACES["tcp"], ActionLayout.of_rig(RIG))
    pose = np.array([0.2, -0.3, 0.2, 0.8, 0.3, -0.4])

    def beyond(call: int, observation: Any) -> np.ndarray:
        rows = codec.poses(np.repeat(pose[None], 20, axis=0))
        rows[8 if call < 3 else 0 :, 0] += 1.0  # a metre away from the 9th row on, then at once
        return rows.astype(np.float32)

    extras = CheckpointMetadata(units="radians", action_space="tcp")
    stage = Stage(beyond, actions=SpaceActions(codec, range(J)), extras=extras)
    stage.go(6.0)
    assert stage.sink.commands
    for _, action in stage.sink.commands:
        np.testing.assert_allclose(action, pose, atol=1e-5)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.POLICY_ERROR
    assert "row 0 of the chunk asks the hand of follower at (1." in stage.run.end.reason


def test_a_policy_slower_than_its_chunk_is_given_up() -> None:
    stage = Stage()
    stage.worker.delay_s = 1.5  # the chunk lasts 1.0 s
    stage.go(10.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.POLICY_ERROR
    assert "overrun" in stage.run.end.reason
    assert "longer than its whole chunk" in stage.run.end.reason
    assert not stage.stamps


def test_a_policy_that_hangs_leaves_its_plan_and_is_given_up() -> None:
    stage = Stage().go(1.0)
    stage.worker.delay_s = 1e9
    before = len(stage.stamps)
    stage.go(4.0)
    assert stage.run.end is not None
    assert "overrun: no action for 1." in stage.run.end.reason
    assert 0 < len(stage.stamps) - before <= 30  # the rest of the plan, nothing else


def test_a_human_takes_over_and_gives_back() -> None:
    stage = Stage().go(1.0)
    begin = stage.now
    stage.go(1.0, lambda: stage.takeover.heard("teleop", stage.now))
    assert stage.stamps[-1] <= begin, "the policy is silent while the human drives"
    assert stage.run.is_paused
    assert "human" in stage.run.pause_reason
    released = stage.now
    chunks = len(stage.sink.chunks)
    stage.go(1.5)
    assert [(source, begins) for _, source, begins in stage.sink.events] == [
        ("teleop", True),
        ("teleop", False),
    ]
    assert begin <= stage.sink.events[0][0] <= begin + 0.05 * NS
    first = next(stamp for stamp in stage.stamps if stamp > begin)
    assert 0.5 * NS <= first - released < 0.8 * NS  # the source timeout, then a new chunk
    later = [request.tick for request, _, _ in stage.sink.chunks[chunks:]]
    assert stage.grid.time_ns(later[0]) > released, "nothing of the old plan is executed"
    assert stage.run.end is None


def test_a_policy_of_two_arms_pauses_while_a_human_has_one() -> None:
    takeovers = Takeovers(["left", "right"])
    assert takeovers.driver() is None
    for source, driver in (("teleop", ("teleop", 7)), ("policy", None), ("", None)):
        takeovers.of["left"].guard_says("policy", 6)
        takeovers.of["right"].guard_says(source, 7)
        assert takeovers.driver() == driver


def test_an_intervention_is_closed_when_the_run_ends_inside_it() -> None:
    stage = Stage(max_duration_s=1.0)
    stage.go(1.5, lambda: stage.takeover.heard("teleop", stage.now))
    assert [begins for _, _, begins in stage.sink.events] == [True, False]
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.FINISHED


def test_pause_and_resume_wait_until_the_guard_starts_softly() -> None:
    stage = Stage(quiet_s=0.4).go(1.0)
    last = stage.stamps[-1]
    stage.run.pause()
    stage.go(0.1)
    stage.run.resume()
    assert stage.stamps[-1] == last
    stage.go(1.0)
    again = next(stamp for stamp in stage.stamps if stamp > last)
    assert again - last >= 0.4 * NS, "the guard must have seen a silent source"
    tick = next(r.tick for r, _, _ in stage.sink.chunks if stage.grid.time_ns(r.tick) > last)
    assert stage.grid.time_ns(tick) >= last + 0.4 * NS


def test_shadow_commands_nothing_and_ignores_the_human() -> None:
    stage = Stage(is_shadow=True)
    stage.go(2.0, lambda: stage.takeover.heard("teleop", stage.now))
    assert not stage.sink.commands
    assert stage.sink.shown > 50
    assert not stage.sink.events


def test_time_is_up() -> None:
    stage = Stage(max_duration_s=1.0).go(2.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.FINISHED
    assert not stage.run.end.is_fault
    assert stage.stamps[-1] < ORIGIN + 1.0 * NS
    assert stage.run.duration_s == pytest.approx(0.9, abs=0.05)


def test_the_first_cause_wins() -> None:
    stage = Stage().go(0.5)
    stage.run.request_end(StopReason.REFUSED, "follower: stopped: call resume")
    stage.run.request_end(StopReason.CANCELLED, "too late")
    stage.states_alive = False
    stage.go(1.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.REFUSED
    assert stage.run.ended.is_set()


def test_observations_are_in_the_policys_units() -> None:
    stage = Stage().go(0.5)
    observation = stage.worker.observations[0]
    np.testing.assert_allclose(observation["observation.state"], [0.1] * J, rtol=1e-6)
    assert observation["task"] == "test"


@pytest.mark.parametrize(
    "strategy", [Ensemble(0.01, 10), Fading(StrategyKind.QUEUE, 25), Fading(StrategyKind.RTC, 25)]
)
def test_another_task_is_inferred_at_once_and_continues_nothing(strategy: Any) -> None:
    def by_task(call: int, observation: Any) -> np.ndarray:
        return np.full((30, J), 0.5 if observation["task"] == "right" else -0.5, np.float32)

    stage = Stage(by_task)
    stage.run.scheduler.strategy = strategy
    stage.go(1.0)
    stage.run.tell("right")
    told = stage.now
    stage.go(0.4)
    turned = [stamp for stamp, action in stage.sink.commands if action[0] > 0.0]
    assert turned[0] - told < 0.12 * NS  # a tick, and an inference of 40 ms
    values = {round(float(action[0]), 6) for _, action in stage.sink.commands}
    assert values == {-0.5, 0.5}, "no mean of both tasks, no tick without an action"
    assert len(stage.stamps) == len(set(stage.stamps)) >= 40
    assert stage.run.end is None


def test_what_is_being_inferred_for_the_old_task_does_not_count() -> None:
    stage = Stage(lambda call, observation: np.full((30, J), len(observation["task"]), np.float32))
    stage.worker.delay_s = 0.2
    stage.go(0.1)
    assert stage.worker.job is not None
    stage.run.tell("another")
    stage.go(1.0)
    assert {float(action[0]) for _, action in stage.sink.commands} == {7.0}


def unavailable(now: bool, why: str = "the policy server ended by SIGKILL") -> None:
    """Raise as a policy does whose server is gone."""
    if now:
        raise PolicyUnavailableError(why)


def test_an_unavailable_policy_leaves_its_plan_then_holds_and_is_named() -> None:
    gone = False

    def function(call: int, observation: Any) -> Any:
        unavailable(gone)
        return ramp(call, observation)

    stage = Stage(function).go(1.0)
    gone = True
    before = len(stage.stamps)
    stage.go(1.5)
    assert stage.run.end is None
    assert stage.run.pause_reason == "waiting for the policy: the policy server ended by SIGKILL"
    assert 0 < len(stage.stamps) - before <= 30, "the rest of the plan, nothing else"
    stage.go(2.0)
    assert stage.run.end is not None
    assert stage.run.end.cause is StopReason.POLICY_ERROR
    assert re.search(r"no action for 1\..*SIGKILL.*holds its pose", stage.run.end.reason)
    assert stage.stamps[-1] < stage.now - NS


def test_a_policy_that_is_back_in_time_goes_on() -> None:
    gone = False

    def function(call: int, observation: Any) -> Any:
        unavailable(gone)
        return ramp(call, observation)

    stage = Stage(function, overrun_abort_s=20.0).go(1.0)
    gone = True
    stage.go(8.0)
    held = stage.stamps[-1]
    assert stage.now - held > 5.0 * NS
    gone = False
    stage.go(1.0)
    assert stage.run.end is None
    assert stage.run.pause_reason == ""
    assert stage.stamps[-1] > held
    first = next(stamp for stamp in stage.stamps if stamp > held)
    requested = [request for request, _, _ in stage.sink.chunks][-1]
    assert stage.grid.time_ns(requested.tick) > held + 5.0 * NS, "nothing old is executed"
    assert first - held > 5.0 * NS
