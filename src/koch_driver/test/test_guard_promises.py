# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Whatever goes into the guard, what comes out keeps the promises of its docstring."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from koch_driver.guard import (
    Guard,
    GuardLimits,
    GuardResult,
    GuardState,
    Rule,
    Workspace,
    workspace_from_rig,
)
from koch_rig.arm_model import KOCH_V1_1

if TYPE_CHECKING:
    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
PERIOD_S = 0.01
LIMITS = GuardLimits(
    lower=(-2.2, -1.57, -1.57, -2.0, -3.14, -1.6), upper=(2.2, 0.6, 1.45, 2.0, 3.14, 0.032)
)
TABLE_Z = 0.01
BAD = (math.nan, math.inf, -math.inf, 1e300, -1e300)


def tcp(q: list[float]) -> tuple[float, float, float]:
    """A planar three-link arm on a turning base, about a Koch arm's size."""
    radius, height, angle = 0.0, 0.06, 0.0
    for joint, length in zip(q[1:4], (0.11, 0.10, 0.12), strict=True):
        angle += joint
        radius += length * math.cos(angle)
        height -= length * math.sin(angle)
    return radius * math.cos(q[0]), radius * math.sin(q[0]), height


def make_workspace() -> Workspace:
    return Workspace(
        tcp, (0.33, 0.33, 0.22, 0.12, 0.0, 0.0), (-0.3, -0.25, -1.0), (0.3, 0.25, 0.3), TABLE_Z
    )


class Arm:
    """A crude arm: follows goals with a lag, is noisy, gets pushed and loses readings."""

    def __init__(self, pose: list[float], rng: random.Random) -> None:
        self.pose = list(pose)
        self.rng = rng
        self.gain = rng.choice([0.0, 0.2, 1.0])
        self.noise = rng.choice([0.0, 0.002, 0.02])

    def follow(self, goal: tuple[float, ...] | None) -> None:
        if goal is not None:
            pairs = zip(self.pose, goal, strict=True)
            self.pose = [a + self.gain * (b - a) for a, b in pairs]
        if self.rng.random() < 0.01:
            self.pose[self.rng.randrange(J)] += self.rng.uniform(-0.5, 0.5)

    def read(self) -> list[float] | None:
        draw = self.rng.random()
        if draw < 0.02:
            return None
        reading = [value + self.rng.gauss(0.0, self.noise) for value in self.pose]
        if draw < 0.04:
            reading[self.rng.randrange(J)] = math.nan
        return reading


class Promises:
    """Checks each result of one guard against the docstring of `Guard`."""

    def __init__(self, guard: Guard, workspace: Workspace | None) -> None:
        self.limits = guard.limits
        self.workspace = workspace
        self.goal: tuple[float, ...] | None = None
        self.velocity = (0.0,) * J
        self.low, self.high = self.limits.lower, self.limits.upper
        self.depth = 0.0

    def check(self, result: GuardResult, measured: list[float] | None) -> None:
        if result.goal is None:
            assert result.state is GuardState.WAITING
            return
        assert all(math.isfinite(value) for value in result.goal)
        if result.restarted:
            self._restart(result.goal, measured)
        assert self.goal is not None
        velocity = tuple((b - a) / PERIOD_S for a, b in zip(self.goal, result.goal, strict=True))
        for index in range(J):
            assert self.low[index] <= result.goal[index] <= self.high[index]
            assert abs(velocity[index]) <= self.limits.max_speed * (1 + 1e-9)
            change = abs(velocity[index] - self.velocity[index])
            assert change <= self.limits.max_acceleration * PERIOD_S * (1 + 1e-6) + 1e-9
        if self.workspace is not None:
            assert self.workspace.room(result.goal) >= -self.depth - 1e-12
        self.goal, self.velocity = result.goal, velocity

    def _restart(self, goal: tuple[float, ...], measured: list[float] | None) -> None:
        assert measured is not None
        reach = self.limits.max_speed * PERIOD_S
        # An arm that woke up outside may be anywhere between there and its limit.
        start = [
            max(low - (m < low - reach) * 9, min(high + (m > high + reach) * 9, m))
            for m, low, high in zip(measured, self.limits.lower, self.limits.upper, strict=True)
        ]
        assert all(abs(a - b) <= reach + 1e-9 for a, b in zip(goal, measured, strict=True))
        self.goal, self.velocity = tuple(start), (0.0,) * J
        self.low = tuple(map(min, self.limits.lower, start))
        self.high = tuple(map(max, self.limits.upper, start))
        self.depth = max(0.0, -self.workspace.room(start)) if self.workspace else 0.0


class Fuzzer:
    """A seeded sequence of everything that can happen to a guard."""

    def __init__(self, seed: int, workspace: Workspace | None) -> None:
        self.rng = random.Random(seed)
        self.guard = Guard(LIMITS, period_s=PERIOD_S, workspace=workspace)
        start = [self.rng.uniform(a, b) for a, b in zip(LIMITS.lower, LIMITS.upper, strict=True)]
        if seed % 5 == 0:
            start[self.rng.randrange(J)] += self.rng.choice([-0.4, 0.4])
        self.arm = Arm(start, self.rng)
        self.promises = Promises(self.guard, workspace)
        self.now = 100.0
        self.target = list(start)
        self.drift = [0.0] * J
        self.began = False  # goals come

    def run(self, cycles: int) -> int:
        moved = 0
        for _ in range(cycles):
            self.event()
            self.now += PERIOD_S * self.rng.choice([1.0, 1.0, 1.0, 0.5, 2.0])
            measured = self.arm.read()
            result = self.guard.step(self.now, measured)
            self.promises.check(result, measured)
            self.arm.follow(result.goal)
            moved += any(result.velocity)
        return moved

    def event(self) -> None:
        draw, guard = self.rng.random(), self.guard
        if draw < 0.01:
            self.rng.choice([guard.stop, guard.resume, guard.resume, guard.restart])()
        elif draw < 0.05:
            self.target = [self.rng.uniform(-4.0, 4.0) for _ in range(J)]
        elif draw < 0.10:
            self.drift = [self.rng.uniform(-0.05, 0.05) for _ in range(J)]
        self.target = [a + b for a, b in zip(self.target, self.drift, strict=True)]
        if self.rng.random() < 0.6:
            self.command()

    def command(self) -> None:
        names, positions = list(KOCH_V1_1.joints), list(self.target)
        age = 0.0
        draw = self.rng.random()
        if draw < 0.05:
            positions[self.rng.randrange(J)] = self.rng.choice(BAD)
        elif draw < 0.08:
            names.pop()
        elif draw < 0.10:
            names[0] = "elbow"
        elif draw < 0.15:
            age = self.rng.choice([-1.0, 0.19, 0.21, math.nan, math.inf])
        source = self.rng.choices(["teleop", "policy", "trajectory", "nobody"], [1, 20, 1, 1])[0]
        self.guard.submit(source, names, positions, age_s=age, now_s=self.now)


@pytest.mark.parametrize("seed", range(24))
def test_promises_hold_for_seeded_sequences(seed: int) -> None:
    workspace = make_workspace() if seed % 2 else None
    assert Fuzzer(seed, workspace).run(1000) > 0


class Swinger(Fuzzer):
    """A leader that swings every joint across table, walls and edges, with all that can happen."""

    def __init__(self, seed: int, workspace: Workspace) -> None:
        super().__init__(seed, workspace)
        rng = self.rng
        while workspace.room(self.arm.pose) < 0.0 and seed % 3:  # every third wakes up outside
            self.arm.pose = list(map(rng.uniform, LIMITS.lower, LIMITS.upper))
        self.center = list(self.arm.pose)
        self.waves = [
            (rng.uniform(0.0, 1.2), rng.uniform(0.5, 8.0), rng.uniform(0.0, 6.3)) for _ in range(J)
        ]

    def event(self) -> None:
        draw, guard = self.rng.random(), self.guard
        if draw < 0.004:
            self.rng.choice([guard.stop, guard.resume, guard.resume, guard.restart])()
        self.target = [
            middle + reach * math.sin(rate * self.now + phase)
            for middle, (reach, rate, phase) in zip(self.center, self.waves, strict=True)
        ]
        if self.rng.random() < 0.9:
            self.command()


@pytest.mark.parametrize("seed", range(18))
def test_promises_hold_while_the_goals_slide_along_the_faces(rig: Rig, seed: int) -> None:
    arm = workspace_from_rig(rig.limits, rig.arms["follower"])
    assert arm is not None
    side = 0.1 + 0.02 * (seed % 5)
    walls = ((0.02, -side, -1.0), (0.30, side, 0.05 * (2 + seed % 4)))
    room = Workspace(arm.tcp_position, arm.lever_arms, *walls, table_z=TABLE_Z)
    assert Swinger(seed, room).run(700) > 0


IMPOSSIBLE = (2.0 * math.pi, -2.0 * math.pi, math.nan, -math.inf)


@pytest.mark.parametrize("joint", range(J), ids=KOCH_V1_1.joints)
@pytest.mark.parametrize("off", IMPOSSIBLE)
def test_a_measurement_that_cannot_be_changes_no_goal(joint: int, off: float) -> None:
    """Beside a twin that is told nothing in those cycles: the same goals, to the last bit."""
    workspace = make_workspace()
    liar, twin = Fuzzer(joint, workspace), Fuzzer(joint, workspace)
    rng, told = random.Random(f"{joint} {off}"), 0
    false_s = 0.0  # until when the joint's measurement is off
    for _ in range(300):
        for one in (liar, twin):
            one.event()
            one.now += PERIOD_S * one.rng.choice([1.0, 1.0, 0.5, 2.0])
        measured, same = liar.arm.read(), twin.arm.read()
        if rng.random() < 0.02 and liar.now > false_s:
            false_s = liar.now + rng.choice([0.01, 0.01, 0.02, 0.3, 1.0])
        if liar.now <= false_s and measured is not None and liar.began:
            measured, same = [*measured], None
            measured[joint] += off
            told += all(map(math.isfinite, measured)) or not math.isfinite(off)
        result = liar.guard.step(liar.now, measured)
        assert result.goal == twin.guard.step(twin.now, same).goal
        liar.began = twin.began = result.goal is not None
        for one in (liar, twin):
            one.arm.follow(result.goal)
    assert told > 10
    named = liar.guard.counts().get((Rule.MEASURED, KOCH_V1_1.joints[joint]), 0)
    assert named == (told if math.isfinite(off) else 0)


VALUE = st.one_of(
    st.floats(-4.0, 4.0), st.sampled_from([*BAD, *LIMITS.lower, *LIMITS.upper, 0.0, -0.0])
)
EVENT = st.one_of(
    st.tuples(
        st.just("command"),
        st.sampled_from(["teleop", "policy"]),
        st.lists(VALUE, min_size=6, max_size=6),
        st.sampled_from([0.0, 0.0, 0.0, 0.3, -0.2, math.nan]),
    ),
    st.tuples(st.sampled_from(["stop", "resume", "restart", "lost"])),
    st.tuples(st.just("wait"), st.integers(1, 60)),
    st.tuples(st.just("push"), st.integers(0, 5), st.floats(-1.0, 1.0)),
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(events=st.lists(EVENT, max_size=40), seed=st.integers(0, 3))
def test_promises_hold_for_found_sequences(events: list[tuple], seed: int) -> None:
    workspace = make_workspace()
    guard = Guard(LIMITS, period_s=PERIOD_S, workspace=workspace)
    promises = Promises(guard, workspace)
    pose, now = [0.0, -0.8, 0.9, 0.3, 0.0, -0.5], 0.0
    for event in events:
        cycles, reading_lost = 1, False
        if event[0] == "command":
            guard.submit(event[1], KOCH_V1_1.joints, event[2], age_s=event[3], now_s=now)
            cycles = 5
        elif event[0] == "wait":
            cycles = event[1]
        elif event[0] == "push":
            pose[event[1]] += event[2]
        elif event[0] == "lost":
            reading_lost = True
        else:
            getattr(guard, event[0])()
        for _ in range(cycles):
            now += PERIOD_S
            measured = None if reading_lost else list(pose)
            result = guard.step(now, measured)
            promises.check(result, measured)
            if result.goal is not None and seed:
                pose = [a + (b - a) / seed for a, b in zip(pose, result.goal, strict=True)]
