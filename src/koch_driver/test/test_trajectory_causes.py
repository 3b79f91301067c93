# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A trajectory that did not end as it was asked to says what happened, each cause by its name."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig
from koch_driver.arm.follower_controller import FollowerConfig, FollowerController
from koch_driver.arm.latch import StopCause
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.guard import Guard, GuardLimits
from koch_driver.trajectory.moves import DRIVER_SOURCES
from koch_driver.trajectory.runner import Execution, Tolerances
from koch_driver.trajectory.trajectory import ResultCode, Trajectory, TrajectoryPoint
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_rig.rig import Rig

J = len(KOCH_V1_1.joints)
pytestmark = pytest.mark.usefixtures("prompt")
HOME = (0.0, 0.0, 0.0, 0.0, 0.0, -0.5)
AWAY = (0.6, *HOME[1:])


class Bench:
    """A follower in its loop on an emulated arm, and a system clock that can be set."""

    def __init__(self, rig: Rig, chain: EmulatedChain) -> None:
        self.chain = chain
        self.offset_s = self.seen_s = 0.0
        arm = rig.arms["follower"]
        calibration = load_calibration(arm.calibration_path)
        guard = Guard(GuardLimits.from_rig(rig.limits), period_s=0.01, sources=DRIVER_SOURCES)
        self.controller = FollowerController(
            JointUnits(arm, calibration), calibration, guard, FollowerConfig(),
            publish=lambda snapshot: None,
            ros_now_s=lambda: time.monotonic() + self.seen_s, clock_step_s=self._step,
        )  # fmt: skip
        self.loop = ControlLoop(
            "follower", lambda: connect_arm(arm, calibration), self.controller,
            LoopConfig.at(100.0), report=lambda phase, reason: None,
        )  # fmt: skip

    def _step(self) -> float:
        step_s, self.seen_s = self.offset_s - self.seen_s, self.offset_s
        return step_s

    def ready(self) -> bool:
        return self.controller.torque_on and self.controller.reading is not None

    def start(self, target: tuple[float, ...] = AWAY, seconds: float = 1.5) -> Execution:
        rest = (0.0,) * J
        assert self.controller.reading is not None
        return self.controller.trajectories.arm.start(
            Trajectory(KOCH_V1_1.joints, (TrajectoryPoint(seconds, target, rest, rest),)),
            Tolerances(goal=dict.fromkeys(KOCH_V1_1.joints, 0.1), goal_time_s=1.0),
            stamp_s=0.0,
            now_s=self.controller.ros_now_s(),
            pose=dict(zip(KOCH_V1_1.joints, self.controller.reading.positions, strict=True)),
        )


@contextmanager
def running(rig: Rig) -> Iterator[Bench]:
    with build_chain(rig, "follower", initial_rad=HOME) as chain:
        bench = Bench(rig, chain)
        bench.loop.start()
        try:
            yield bench
        finally:
            bench.loop.close()


def restart(bench: Bench, joint: str) -> None:
    servo = bench.chain.servo(joint)
    bench.chain.refresh()
    servo.power_up(servo.shaft_rad)


def restart_a_turn_off(bench: Bench) -> None:
    servo = bench.chain.servo("wrist_roll")
    bench.chain.refresh()
    servo.set("Homing_Offset", servo.get("Homing_Offset") + 4096)
    servo.power_up(servo.shaft_rad)


def take_over(bench: Bench) -> None:
    bench.controller.guard.submit(
        "teleop", KOCH_V1_1.joints, HOME, age_s=0.0, now_s=time.monotonic()
    )


def torque_off(bench: Bench) -> None:
    bench.loop.call(lambda bus: bench.controller.set_torque(bus, False))


def turn_lost(bench: Bench) -> None:
    servo = bench.chain.servo("wrist_roll")
    servo.set("Homing_Offset", servo.get("Homing_Offset") + 4096)


ENDS: dict[str, tuple[Callable[[Bench], object], str]] = {
    "stop": (lambda b: b.controller.stop(StopCause.REQUEST, "the stop service was called"),
             "stopped: the stop service was called"),
    "torque": (torque_off, "the torque was switched off by the torque service"),
    "unplugged": (lambda b: b.chain.faults.unplug(), "the arm was lost: .*USB cable"),
    "power": (lambda b: b.chain.faults.power_cut(), "the arm was lost: .*power supply"),
    "restart": (lambda b: restart(b, "elbow_flex"), r"elbow_flex \(id 3\) restarted by itself"),
    "restart a turn off": (restart_a_turn_off, r"wrist_roll \(id 5\) restarted by itself"),
    "overload": (lambda b: b.chain.faults.trip("wrist_flex", "overload"),
                 "wrist_flex has shut down: overload"),
    "silent": (lambda b: b.chain.faults.silence(2), r"the arm was lost: .*motors 2"),
    "turn": (turn_lost, "stopped: implausible reading: wrist_roll from .* rad within"),
    "taken over": (take_over, "teleop took over"),
    "blocked": (lambda b: b.chain.faults.hold("shoulder_pan", 0.1),
                r"1\.\d\d s after the last point .*shoulder_pan is 0\.\d+ rad off"),
}  # fmt: skip


@pytest.mark.parametrize("name", ENDS)
def test_what_ends_a_trajectory_is_named_in_its_result(
    rig: Rig, wait_until: Callable[..., bool], name: str
) -> None:
    happens, words = ENDS[name]
    with running(rig) as bench:
        assert wait_until(bench.ready)
        execution = bench.start()
        time.sleep(0.4)
        assert execution.outcome is None
        happens(bench)
        assert wait_until(lambda: execution.outcome is not None, 4.0)
        outcome = execution.outcome
        assert outcome is not None
        assert outcome.code is not ResultCode.SUCCESSFUL
        assert re.search(words, outcome.message), outcome.message


@pytest.mark.parametrize("step_s", [5.0, -5.0, 0.3, -900.0])
def test_a_trajectory_goes_on_evenly_when_the_clock_is_set_and_its_result_says_so(
    rig: Rig, wait_until: Callable[..., bool], step_s: float
) -> None:
    with running(rig) as bench:
        assert wait_until(bench.ready)
        execution, begin_s = bench.start(), time.monotonic()
        time.sleep(0.4)
        bench.offset_s = step_s
        assert wait_until(lambda: execution.outcome is not None, 4.0)
        assert 1.4 < time.monotonic() - begin_s < 2.4
        assert execution.outcome is not None
        assert execution.outcome.code is ResultCode.SUCCESSFUL
        way = "forward" if step_s > 0 else "back"
        assert f"the system clock was set {way} by {abs(step_s):.3f} s" in execution.changes
        later = bench.start(HOME, 0.5)
        assert wait_until(lambda: later.outcome is not None)
        assert "clock" not in later.changes


def test_what_the_guard_changed_is_said_of_a_goal_that_was_reached(
    rig: Rig, wait_until: Callable[..., bool]
) -> None:
    with running(rig) as bench:
        assert wait_until(bench.ready)
        execution = bench.start((1.2, *HOME[1:]), 0.2)
        assert wait_until(lambda: execution.outcome is not None, 4.0)
        assert re.search("the guard changed the way: .*speed of shoulder_pan", execution.changes)
