# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Emulated arms for the driver's tests."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import numpy as np
import pytest

from koch_core.realtime import request_realtime
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.emulator import EmulatedChain, build_chain
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.load import load_rig

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
