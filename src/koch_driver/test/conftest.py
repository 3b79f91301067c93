# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Emulated arms for the driver's tests."""

from __future__ import annotations

import dataclasses
import os
import time
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from koch_core.realtime import request_realtime, spare_from_collection
from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import ControlLoop, LoopConfig, LoopPhase
from koch_driver.arm.follower_controller import (
    FollowerConfig,
    FollowerController,
    FollowerSnapshot,
)
from koch_driver.arm.latch import SafetyLatch
from koch_driver.arm.leader_controller import LEADER_SOURCES, LeaderConfig, LeaderController
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.guard import Guard, GuardLimits
from koch_driver.trajectory.moves import DRIVER_SOURCES
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.load import load_rig
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_rig.rig import Arm, Rig

# Bounded and repeatable: a failure on one machine is a failure on all.
hypothesis.settings.register_profile("koch", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.load_profile("koch")

HERE = Path(__file__).resolve().parent
REPO = HERE.parents[2]
_ON_THE_BUS = ("DynamixelBus", "EmulatedChain", "build_chain")
_FIXTURES = {"chain", "leader_chain", "bus"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever talks to servos on a pseudo-terminal keeps time with them."""
    for item in items:
        if HERE not in item.path.parents:
            continue
        module = getattr(item, "module", None)
        on_the_bus = any(hasattr(module, name) for name in _ON_THE_BUS)
        on_the_bus |= bool(_FIXTURES & set(getattr(item, "fixturenames", ())))
        if on_the_bus or item.path.parent.name == "ros":
            item.add_marker(pytest.mark.timing)


@pytest.fixture
def wait_until() -> Callable[..., bool]:
    """A function (condition, seconds=3.0): looks every 5 ms whether it came true in time."""

    def wait(condition: Callable[[], bool], seconds: float = 3.0) -> bool:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if condition():
                return True
            time.sleep(0.005)
        return condition()

    return wait


@pytest.fixture(scope="module")
def prompt() -> Iterator[None]:
    """Priority of the emulator's own process: real servos answer whatever the computer does."""
    request_realtime()
    spare_from_collection()
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    """The emulated rig with its ports in the test's folder."""
    loaded = load_rig(REPO / "config" / "rig.emulated.yaml")
    arms = {
        name: dataclasses.replace(arm, port=str(tmp_path / name))
        for name, arm in loaded.arms.items()
    }
    return dataclasses.replace(loaded, arms=arms)


@pytest.fixture
def follower(rig: Rig) -> Arm:
    """The follower arm."""
    return rig.arms["follower"]


@pytest.fixture
def calibration(follower: Arm) -> Calibration:
    """The follower's calibration."""
    return load_calibration(follower.calibration_path)


@pytest.fixture
def chain(rig: Rig) -> Iterator[EmulatedChain]:
    """The emulated follower, serving."""
    with build_chain(rig, "follower") as made:
        yield made


@pytest.fixture
def leader_chain(rig: Rig) -> Iterator[EmulatedChain]:
    """The emulated leader, serving."""
    with build_chain(rig, "leader") as made:
        yield made


@pytest.fixture
def bus_kind() -> type[DynamixelBus]:
    """The class of `bus`; test modules of the bus go through all of them."""
    return DynamixelBus


@pytest.fixture
def bus(
    chain: EmulatedChain, follower: Arm, bus_kind: type[DynamixelBus]
) -> Iterator[DynamixelBus]:
    """An open bus on the emulated follower."""
    with bus_kind(follower.port, motors_for(follower.role)) as opened:
        yield opened


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded random numbers."""
    return np.random.default_rng(7)


RATE_HZ = 100.0
# The usual limits of a fault, but no long waits before the next connection.
LOOP = dataclasses.replace(LoopConfig.at(RATE_HZ), first_retry_s=0.02, last_retry_s=0.05)
START_RAD = (0.2, -0.3, 0.4, 0.3, -0.4, -0.5)


class ArmBench:
    """A controller in its loop, and what it said."""

    def __init__(self, rig: Rig, arm: Arm, calibration: Calibration, latch: SafetyLatch) -> None:
        self.said: list[str] = []
        self.snapshots: list[FollowerSnapshot] = []
        self.readings: list = []
        self.phases: list[tuple[LoopPhase, str]] = []
        units = JointUnits(arm, calibration)
        limits = GuardLimits.from_rig(rig.limits)
        follower = arm.role.value == "follower"
        sources = DRIVER_SOURCES if follower else LEADER_SOURCES
        guard = Guard(limits, period_s=1.0 / RATE_HZ, sources=sources)
        self.controller: FollowerController | LeaderController
        if follower:
            self.controller = FollowerController(
                units, calibration, guard, FollowerConfig(), publish=self.snapshots.append,
                ros_now_s=time.time, say=self.said.append, latch=latch,
            )  # fmt: skip
        else:
            self.controller = LeaderController(
                units, calibration, guard, LeaderConfig(),
                publish=lambda reading: self.readings.append((time.monotonic(), reading)),
                say=self.said.append,
            )  # fmt: skip
        self.loop = ControlLoop(
            arm.name, lambda: connect_arm(arm, calibration), self.controller, LOOP,
            report=lambda phase, reason: self.phases.append((phase, reason)),
        )  # fmt: skip

    @property
    def ready(self) -> bool:
        """Whether a follower has its torque and publishes."""
        return (
            self.controller.torque_on
            and self.controller.reading is not None
            and bool(self.snapshots)
        )

    def drive_until(self, joint: str, rad: float) -> bool:
        """Command a joint until it is there; False when it does not come."""
        end_s = time.monotonic() + 4.0
        while time.monotonic() < end_s:
            self.drive(joint, rad)
            time.sleep(0.02)
            assert self.controller.reading is not None
            if abs(self.controller.reading.positions[KOCH_V1_1.joints.index(joint)] - rad) < 0.03:
                return True
        return False

    def torque(self, on: bool) -> str:
        return self.loop.call(lambda bus: self.controller.set_torque(bus, on), timeout_s=8.0)

    def drive(self, joint: str, rad: float) -> None:
        pose = list(START_RAD)
        pose[KOCH_V1_1.joints.index(joint)] = rad
        self.controller.guard.submit(
            "policy", KOCH_V1_1.joints, pose, age_s=0.0, now_s=time.monotonic()
        )


@contextmanager
def _running(
    rig: Rig, name: str, calibration: Calibration | None = None, latch: SafetyLatch | None = None
) -> Iterator[ArmBench]:
    arm = rig.arms[name]
    bench = ArmBench(
        rig, arm, calibration or load_calibration(arm.calibration_path), latch or SafetyLatch()
    )
    bench.loop.start()
    try:
        yield bench
    finally:
        bench.loop.close()


@pytest.fixture
def running() -> Callable[..., AbstractContextManager[ArmBench]]:
    """Runs the controller of an arm of a rig in its loop, while the context lasts."""
    return _running


@pytest.fixture
def start_rad() -> tuple[float, ...]:
    """Where `ArmBench.drive` leaves the joints that it does not move."""
    return START_RAD
