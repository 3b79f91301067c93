# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard's rules one by one, with an arm that follows its goals exactly."""

from __future__ import annotations

import itertools
import math

import pytest

from koch_driver.guard import Guard, GuardConfigError, GuardLimits, GuardResult, GuardState, Rule
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

PERIOD = 0.01
LIMITS = GuardLimits(lower=(-2.0,) * J, upper=(2.0,) * J)
ZERO = (0.0,) * J


class Bench:
    """A guard and a perfect arm on a clock."""

    def __init__(self, start: tuple[float, ...] = ZERO, limits: GuardLimits = LIMITS) -> None:
        self.guard = Guard(limits, period_s=PERIOD)
        self.pose = list(start)
        self.now = 50.0
        self.follows = True

    def send(self, source: str, positions: list[float] | tuple[float, ...], age: float = 0.0):
        return self.guard.submit(source, KOCH_V1_1.joints, positions, age_s=age, now_s=self.now)

    def cycle(self) -> GuardResult:
        self.now += PERIOD
        result = self.guard.step(self.now, self.pose)
        if result.goal is not None and self.follows:
            self.pose = list(result.goal)
        return result

    def drive(self, source: str, positions: tuple[float, ...], cycles: int) -> GuardResult:
        for _ in range(cycles):
            self.send(source, positions)
            result = self.cycle()
        return result


def rules_of(result: GuardResult) -> set[Rule]:
    return {item.rule for item in result.interventions}


def test_a_source_that_falls_silent_is_named_until_another_drives() -> None:
    bench = Bench()
    bench.drive("teleop", ZERO, 10)
    assert bench.guard.silent(bench.now) is None
    for _ in range(200):
        bench.cycle()
    named = bench.guard.silent(bench.now)
    assert named is not None
    assert named[0] == "teleop"
    assert named[1] == pytest.approx(2.0, abs=2 * PERIOD)
    bench.guard.stop()
    assert bench.guard.silent(bench.now) is None
    bench.guard.resume()
    bench.drive("policy", ZERO, 10)
    assert bench.guard.silent(bench.now) is None
    bench.guard.release("policy")  # it said so itself
    for _ in range(50):
        bench.cycle()
    assert bench.guard.silent(bench.now) is None


def test_there_is_no_goal_before_a_measurement() -> None:
    guard = Guard(LIMITS, period_s=PERIOD)
    for measured in (None, [math.nan] * J, [0.0] * 5):
        result = guard.step(1.0, measured)
        assert result.goal is None
        assert rules_of(result) == {Rule.MEASURED}
    assert guard.step(1.1, ZERO).goal == ZERO


def test_the_first_goal_is_the_measured_pose() -> None:
    bench = Bench(start=(0.1, -0.2, 0.3, 0.4, -0.5, 0.6))
    result = bench.cycle()
    assert result.restarted
    assert result.goal == (0.1, -0.2, 0.3, 0.4, -0.5, 0.6)


@pytest.mark.parametrize(
    ("names", "positions", "rule", "joint"),
    [
        (KOCH_V1_1.joints[:5], ZERO[:5], Rule.NAMES, "gripper"),
        ((*KOCH_V1_1.joints[:5], "jaw"), ZERO, Rule.NAMES, "jaw"),
        ((*KOCH_V1_1.joints, "wrist_flex"), (*ZERO, 0.0), Rule.NAMES, "wrist_flex"),
        (KOCH_V1_1.joints, ZERO[:5], Rule.NAMES, "shoulder_pan"),
        (KOCH_V1_1.joints, (0.0, math.nan, 0.0, 0.0, 0.0, 0.0), Rule.FINITE, "shoulder_lift"),
        (KOCH_V1_1.joints, (0.0, 0.0, -math.inf, 0.0, 0.0, 0.0), Rule.FINITE, "elbow_flex"),
    ],
)
def test_an_unusable_command_is_refused_by_name(names, positions, rule, joint) -> None:
    bench = Bench()
    bench.cycle()
    refusals = bench.guard.submit("teleop", names, positions, age_s=0.0, now_s=bench.now)
    assert (rule, joint) in {(item.rule, item.joint) for item in refusals}
    assert bench.cycle().state is GuardState.HOLDING
    assert bench.guard.counts()[rule, joint] == 1


@pytest.mark.parametrize("age", [0.201, 5.0, -0.051, math.nan, math.inf])
def test_a_stamp_outside_its_time_is_refused(age: float) -> None:
    bench = Bench()
    assert [item.rule for item in bench.send("teleop", ZERO, age)] == [Rule.AGE]
    assert bench.cycle().source is None


@pytest.mark.parametrize("age", [0.0, 0.2, -0.05])
def test_a_stamp_at_the_edge_of_its_time_is_accepted(age: float) -> None:
    bench = Bench()
    assert bench.send("teleop", ZERO, age) == ()
    assert bench.cycle().source == "teleop"


def test_an_unknown_source_is_refused() -> None:
    assert [item.rule for item in Bench().send("stranger", ZERO)] == [Rule.SOURCE]


def test_a_command_is_matched_by_name_not_by_order() -> None:
    bench = Bench()
    bench.cycle()
    for _ in range(300):
        bench.guard.submit(
            "teleop",
            tuple(reversed(KOCH_V1_1.joints)),
            (0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
            age_s=0.0,
            now_s=bench.now,
        )
        result = bench.cycle()
    assert result.goal == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5, 0.6))


def test_the_higher_priority_drives_until_its_source_timeout() -> None:
    bench = Bench()
    bench.drive("policy", ZERO, 3)
    bench.send("teleop", ZERO)
    assert [item.rule for item in bench.send("policy", ZERO)] == [Rule.PRIORITY]
    assert bench.cycle().source == "teleop"
    sources = []
    for _ in range(60):
        bench.send("policy", ZERO)
        sources.append(bench.cycle().source)
    # teleop to its command timeout (0.3 s), no one to its source timeout (0.5 s), then policy.
    assert [sources.count(name) for name in ("teleop", None, "policy")] == pytest.approx(
        [29, 20, 11], abs=2
    )


def test_release_ends_a_source_timeout_at_once() -> None:
    bench = Bench()
    bench.send("teleop", ZERO)
    bench.guard.release("teleop")
    bench.send("policy", ZERO)
    assert bench.cycle().source == "policy"


def test_without_commands_the_arm_brakes_and_holds_the_measured_pose() -> None:
    bench = Bench()
    target = (1.5, 0.0, 0.0, 0.0, 0.0, 0.0)
    result = bench.drive("teleop", target, 100)
    assert result.velocity[0] > 0.5
    goals = [bench.cycle() for _ in range(150)]
    timeouts = [result for result in goals if Rule.TIMEOUT in rules_of(result)]
    assert len(timeouts) == 1
    assert goals[-1].goal == goals[-30].goal
    assert goals[-1].goal[0] < 1.5
    assert not any(goals[-1].velocity)


def test_the_held_pose_is_the_measured_one_when_the_arm_lags() -> None:
    bench = Bench()
    bench.follows = False
    bench.drive("teleop", (0.3, 0.0, 0.0, 0.0, 0.0, -0.4), 200)
    result = [bench.cycle() for _ in range(300)][-1]
    assert result.goal[0] == pytest.approx(0.0, abs=1e-9)
    # The gripper keeps its goal: it would drop what it holds.
    assert result.goal[5] == pytest.approx(-0.4, abs=1e-9)


def test_stop_is_latched_and_resume_obeys_only_newer_commands() -> None:
    bench = Bench()
    target = (1.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    bench.drive("teleop", target, 60)
    bench.guard.stop()
    assert [item.rule for item in bench.send("teleop", target)] == [Rule.STOP]
    stopped = bench.drive("teleop", target, 100)
    assert stopped.state is GuardState.STOPPED
    assert not any(stopped.velocity)
    bench.send("teleop", target)
    bench.guard.resume()
    assert bench.cycle().state is GuardState.HOLDING
    bench.send("teleop", target)
    assert bench.cycle().state is GuardState.BLENDING
    assert bench.drive("teleop", target, 300).goal[0] == pytest.approx(1.0)


def test_a_new_source_begins_slowly_at_the_measured_pose() -> None:
    bench = Bench()
    speeds = []
    for _ in range(150):
        result = bench.drive("teleop", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1)
        speeds.append(result.velocity[0])
    assert speeds[0] < 0.01
    # Mean 0.8 rad/s; a quintic blend peaks at 15/8 of its mean.
    assert 0.8 < max(speeds) < 0.8 * 15 / 8 + 0.05
    assert bench.pose[0] == pytest.approx(1.0)


def test_a_jump_of_three_radians_is_taken_at_the_speed_limit() -> None:
    bench = Bench(start=(-1.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    bench.drive("teleop", (-1.5, 0.0, 0.0, 0.0, 0.0, 0.0), 60)
    speeds, rules = [], set()
    for _ in range(150):
        result = bench.drive("teleop", (1.5, 0.0, 0.0, 0.0, 0.0, 0.0), 1)
        speeds.append(result.velocity[0])
        rules |= rules_of(result)
    assert max(speeds) == pytest.approx(3.0)
    assert {Rule.SPEED, Rule.ACCELERATION, Rule.LEAD} >= rules & {Rule.SPEED, Rule.ACCELERATION}
    assert bench.pose[0] == pytest.approx(1.5)


def test_positions_are_clipped_to_the_limits() -> None:
    bench = Bench()
    result = bench.drive("teleop", (9.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1500)
    assert result.goal[0] == pytest.approx(2.0)
    assert Rule.POSITION in rules_of(result)


def test_a_blocked_arm_does_not_wind_up() -> None:
    bench = Bench()
    bench.follows = False
    result = bench.drive("teleop", (1.9, 0.0, 0.0, 0.0, 0.0, 1.9), 500)
    assert result.goal[0] == pytest.approx(0.5)  # lead_rad
    assert result.goal[5] == pytest.approx(1.9)  # the gripper may press
    assert Rule.LEAD in rules_of(result)


def test_a_joint_that_backs_off_stays_near_its_measured_pose() -> None:
    bench = Bench()
    bench.follows = False
    bench.guard.back_off("gripper", 0.05)
    assert bench.drive("teleop", (0.0,) * 5 + (1.0,), 300).goal[5] == pytest.approx(0.05)
    bench.guard.back_off("gripper", None)
    assert bench.drive("teleop", (0.0,) * 5 + (1.0,), 300).goal[5] == pytest.approx(1.0)


def test_an_arm_that_wakes_up_outside_rests_until_commanded_and_comes_in() -> None:
    bench = Bench(start=(2.3, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert [bench.cycle() for _ in range(50)][-1].goal[0] == 2.3
    goals = [bench.drive("teleop", ZERO, 1).goal[0] for _ in range(400)]
    assert all(b <= a for a, b in itertools.pairwise(goals))
    assert goals[-1] == pytest.approx(0.0)
    assert bench.drive("teleop", (2.3, 0, 0, 0, 0, 0), 400).goal[0] == pytest.approx(2.0)


def test_an_arm_far_outside_is_not_moved() -> None:
    bench = Bench(start=(3.5, 0.0, 0.0, 0.0, 0.0, 0.0))
    result = bench.cycle()
    assert result.goal is None
    assert (Rule.MEASURED, "shoulder_pan") in {(i.rule, i.joint) for i in result.interventions}


@pytest.mark.parametrize("turn", [2.0 * math.pi, -2.0 * math.pi])
def test_an_arm_measured_a_turn_off_at_the_start_is_not_moved(turn: float) -> None:
    bench = Bench(start=(0.0, 0.0, turn, 0.0, 0.0, 0.0))
    result = bench.drive("policy", ZERO, 50)
    assert result.goal is None
    assert (Rule.MEASURED, "elbow_flex") in {(i.rule, i.joint) for i in result.interventions}


def test_a_joint_moved_by_hand_while_nothing_was_read_is_believed() -> None:
    bench = Bench()
    bench.cycle()
    bench.guard.step(bench.now + 0.5, (1.4, 0.0, 0.0, 0.0, 0.0, 0.0))
    assert (Rule.MEASURED, "shoulder_pan") not in bench.guard.counts()


def test_after_a_restart_goals_begin_at_the_measured_pose_again() -> None:
    bench = Bench()
    bench.drive("teleop", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 100)
    bench.guard.restart()
    bench.pose = [0.2, 0.0, 0.0, 0.0, 0.0, 0.0]
    result = bench.drive("teleop", (1.0, 0.0, 0.0, 0.0, 0.0, 0.0), 1)
    assert result.restarted
    assert result.goal[0] == pytest.approx(0.2, abs=1e-3)


def test_thirty_hertz_commands_become_a_steady_motion() -> None:
    bench = Bench()
    speeds, lags = [], []
    for cycle in range(400):
        time_s = cycle * PERIOD
        if cycle % 10 in (0, 3, 7):  # 30 Hz on a 100 Hz grid: 3, 4, 3 cycles apart
            bench.send("policy", (0.4 * time_s, 0.0, 0.0, 0.0, 0.0, 0.0))
        result = bench.cycle()
        if cycle > 200:
            speeds.append(result.velocity[0])
            lags.append(0.4 * time_s - result.goal[0])
    assert min(speeds) > 0.2
    assert max(speeds) < 0.6
    # The stated latency: one command interval, up to 0.04 s here.
    assert sum(lags) / len(lags) / 0.4 == pytest.approx(0.035, abs=0.012)


def test_commands_at_the_bus_rate_have_no_added_latency() -> None:
    bench = Bench()
    for cycle in range(300):
        wanted = 0.4 * cycle * PERIOD
        result = bench.drive("teleop", (wanted, 0.0, 0.0, 0.0, 0.0, 0.0), 1)
    assert result.goal[0] == pytest.approx(wanted, abs=1e-9)


def test_limits_that_cannot_hold_are_refused_at_construction() -> None:
    with pytest.raises(GuardConfigError, match="shoulder_pan"):
        GuardLimits(lower=(1.0,) * J, upper=(-1.0,) * J)
    with pytest.raises(GuardConfigError, match="max_speed"):
        GuardLimits(lower=(-1.0,) * J, upper=(1.0,) * J, max_speed=0.0)


def test_refusals_say_who_why_and_how_often() -> None:
    bench = Bench()
    for _ in range(3):
        bench.guard.submit(
            "policy", KOCH_V1_1.joints[:5], ZERO[:5], age_s=0.0, now_s=1.0, sender="a"
        )
    bench.guard.submit("policy", KOCH_V1_1.joints, ZERO, age_s=1.8e9, now_s=2.0, sender="b")
    names, age = bench.guard.refusals.all()
    assert (names.source, names.rule, names.count, names.senders) == (
        "policy",
        Rule.NAMES,
        3,
        frozenset({"a"}),
    )
    assert "gripper" in names.text
    assert (age.rule, age.time_s) == (Rule.AGE, 2.0)
    assert "no stamp" in age.text


def test_a_refusal_of_fifty_thousand_names_stays_a_sentence() -> None:
    bench = Bench()
    names = [f"x\x1b{k}" for k in range(50_000)]
    bench.guard.submit("policy", names, [0.0] * len(names), age_s=0.0, now_s=1.0)
    (refusal,) = bench.guard.refusals.all()
    assert "and 49994 more, unknown to this arm" in refusal.text
    assert len(refusal.text) < 300
    assert refusal.text.isprintable()


@pytest.mark.parametrize("source", ["teleop", "policy"])
def test_rival_senders_are_refused_and_the_source_loses_the_arm_at_once(source: str) -> None:
    bench = Bench()
    target = (0.5, *ZERO[1:])
    bench.drive(source, target, 50)
    assert bench.cycle().source == source
    bench.guard.refuse_senders(source, ["a", "b"], bench.now)
    assert bench.cycle().source is None
    refusal = bench.guard.refusals.all()[-1]
    assert (refusal.rule, refusal.senders) == (Rule.SENDER, frozenset({"a", "b"}))
