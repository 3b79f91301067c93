# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Execution of trajectories: start stamps, tolerances, cancel, preemption, merging."""

from __future__ import annotations

import pytest

from koch_driver.trajectory.runner import Execution, Tolerances, TrajectoryResult, TrajectoryRunner
from koch_driver.trajectory.source import TrajectorySource
from koch_driver.trajectory.trajectory import (
    ResultCode,
    Trajectory,
    TrajectoryError,
    TrajectoryPoint,
)
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

POSE = dict.fromkeys(KOCH_V1_1.joints, 0.0)
TOLERANCES = Tolerances(path={"elbow_flex": 0.2}, goal={"elbow_flex": 0.05}, goal_time_s=0.5)
NOW = 1000.0


def path(*points: tuple[float, float], joint: str = "elbow_flex") -> Trajectory:
    return Trajectory((joint,), tuple(TrajectoryPoint(t, (p,)) for t, p in points))


def start(runner: TrajectoryRunner, trajectory: Trajectory, *, stamp_s: float = 0.0,
          now_s: float = NOW, tolerances: Tolerances = TOLERANCES) -> Execution:  # fmt: skip
    return runner.start(trajectory, tolerances, stamp_s=stamp_s, now_s=now_s, pose=POSE)


@pytest.fixture
def runner() -> TrajectoryRunner:
    return TrajectoryRunner(KOCH_V1_1.joints)


def at(runner: TrajectoryRunner, now_s: float, elbow: float) -> float | None:
    target = runner.update(now_s, {**POSE, "elbow_flex": elbow})
    return None if target is None else target["elbow_flex"]


def test_a_followed_trajectory_succeeds_at_its_end(runner: TrajectoryRunner) -> None:
    execution = start(runner, path((1.0, 0.5)))
    assert at(runner, NOW + 0.5, 0.25) == pytest.approx(0.25)
    assert execution.outcome is None
    assert at(runner, NOW + 1.0, 0.5) == pytest.approx(0.5)
    assert execution.outcome == TrajectoryResult(ResultCode.SUCCESSFUL)
    assert at(runner, NOW + 1.1, 0.5) is None


def test_a_stamp_in_the_future_waits(runner: TrajectoryRunner) -> None:
    start(runner, path((0.0, 0.1), (1.0, 0.5)), stamp_s=NOW + 2.0)
    assert at(runner, NOW + 1.9, 0.0) == 0.0
    assert at(runner, NOW + 2.5, 0.3) == pytest.approx(0.3)


def test_points_in_the_past_are_dropped(runner: TrajectoryRunner) -> None:
    start(runner, path((1.0, 0.1), (2.0, 0.2), (3.0, 0.15)), stamp_s=NOW - 1.5)
    assert at(runner, NOW, 0.15) == pytest.approx(0.15)  # half-way from point 0 to point 1


def test_a_trajectory_that_is_over_is_refused(runner: TrajectoryRunner) -> None:
    with pytest.raises(TrajectoryError, match=r"ended 1\.000 s ago") as caught:
        start(runner, path((1.0, 0.1)), stamp_s=NOW - 2.0)
    assert caught.value.code is ResultCode.OLD_HEADER_TIMESTAMP
    assert runner.active is None


def test_leaving_the_path_aborts(runner: TrajectoryRunner) -> None:
    execution = start(runner, path((1.0, 0.5)))
    at(runner, NOW + 0.5, 0.0)
    assert execution.outcome is not None
    assert execution.outcome.code is ResultCode.PATH_TOLERANCE_VIOLATED
    assert "elbow_flex is 0.250 rad off, tolerance 0.200" in execution.outcome.message


def test_the_goal_may_be_reached_late_but_not_too_late(runner: TrajectoryRunner) -> None:
    for late, code in ((0.4, ResultCode.SUCCESSFUL), (0.6, ResultCode.GOAL_TOLERANCE_VIOLATED)):
        execution = start(runner, path((1.0, 0.5)))
        at(runner, NOW + 1.1, 0.4)
        assert execution.outcome is None
        at(runner, NOW + 1.0 + late, 0.5 if late < 0.5 else 0.4)
        assert execution.outcome is not None
        assert execution.outcome.code is code


def test_a_joint_that_still_moves_has_not_arrived(runner: TrajectoryRunner) -> None:
    execution = start(runner, path((1.0, 0.5)))
    pose = {**POSE, "elbow_flex": 0.5}
    runner.update(NOW + 1.1, pose, {**POSE, "elbow_flex": 0.5})
    assert execution.outcome is None
    runner.update(NOW + 1.2, pose, POSE)
    assert execution.outcome == TrajectoryResult(ResultCode.SUCCESSFUL)


def test_a_joint_that_never_rests_violates_the_goal(runner: TrajectoryRunner) -> None:
    execution = start(runner, path((1.0, 0.5)))
    runner.update(NOW + 1.6, {**POSE, "elbow_flex": 0.5}, {**POSE, "elbow_flex": 0.5})
    assert execution.outcome is not None
    assert execution.outcome.code is ResultCode.GOAL_TOLERANCE_VIOLATED
    assert "elbow_flex still moves" in execution.outcome.message


def test_a_new_trajectory_preempts_and_goes_on_from_the_desired_state(
    runner: TrajectoryRunner,
) -> None:
    first = start(runner, path((1.0, 0.5)))
    at(runner, NOW + 0.5, 0.2)
    start(runner, path((1.0, 0.0)), now_s=NOW + 0.5)
    assert first.outcome is not None
    assert "preempted" in first.outcome.message
    assert at(runner, NOW + 0.5, 0.2) == pytest.approx(0.25)


def test_cancel_ends_an_execution(runner: TrajectoryRunner) -> None:
    execution = start(runner, path((1.0, 0.5)))
    runner.cancel(execution)
    assert execution.wait(0.0) == TrajectoryResult(
        ResultCode.SUCCESSFUL, "cancelled by the client", cancelled=True
    )
    assert at(runner, NOW + 0.5, 0.0) is None


def test_goals_override_default_tolerances() -> None:
    merged = TOLERANCES.override(
        path={"elbow_flex": -1.0, "wrist_flex": 0.3}, goal={"elbow_flex": 0.0}, goal_time_s=2.0,
        own_joints=KOCH_V1_1.joints,
    )  # fmt: skip
    assert merged == Tolerances({"elbow_flex": 0.0, "wrist_flex": 0.3}, {"elbow_flex": 0.05}, 2.0)
    with pytest.raises(TrajectoryError, match="unknown joint jaw"):
        TOLERANCES.override(
            path={"jaw": 0.1}, goal={}, goal_time_s=0.0, own_joints=KOCH_V1_1.joints
        )
    with pytest.raises(TrajectoryError, match="expected a positive"):
        TOLERANCES.override(path={}, goal={}, goal_time_s=-2.0, own_joints=KOCH_V1_1.joints)


MEASURED = (0.0,) * J


def run(source: TrajectorySource, runner: TrajectoryRunner, trajectory: Trajectory) -> Execution:
    return runner.start(trajectory, Tolerances(), stamp_s=0.0, now_s=NOW, pose=POSE)


def test_joints_without_a_trajectory_hold_their_goal() -> None:
    source = TrajectorySource()
    run(source, source.arm, path((1.0, 0.5)))
    goal = (0.1, 0.2, 0.0, 0.3, 0.0, -0.5)
    assert source.update(NOW + 0.5, MEASURED, goal) == pytest.approx(
        (0.1, 0.2, 0.25, 0.3, 0, -0.5)
    )


def test_arm_and_gripper_move_together_and_the_end_is_held() -> None:
    source = TrajectorySource()
    run(source, source.arm, path((1.0, 0.5)))
    run(source, source.gripper, path((0.5, -1.0), joint="gripper"))
    assert source.active
    assert source.update(NOW + 0.5, MEASURED, MEASURED) == pytest.approx((0, 0, 0.25, 0, 0, -1.0))
    assert source.update(NOW + 1.0, MEASURED, MEASURED) == pytest.approx((0, 0, 0.5, 0, 0, -1.0))
    assert not source.active
    assert source.update(NOW + 9.0, MEASURED, MEASURED) == pytest.approx((0, 0, 0.5, 0, 0, -1.0))
    source.release()
    assert source.update(NOW + 9.1, MEASURED, MEASURED) is None


def test_after_a_cancelled_trajectory_nothing_is_held() -> None:
    source = TrajectorySource()
    execution = run(source, source.arm, path((1.0, 0.5)))
    source.update(NOW + 0.5, MEASURED, MEASURED)
    source.arm.cancel(execution)
    assert source.update(NOW + 0.6, MEASURED, MEASURED) is None
