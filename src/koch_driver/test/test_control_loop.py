# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus thread on an emulated arm: schedule, faults, reconnection, requests, ending."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from koch_driver.arm.connect import connect_arm
from koch_driver.arm.control_loop import (
    BadRun,
    CommunicationFault,
    ControlLoop,
    LoopConfig,
    LoopPhase,
    NotConnected,
    RequestTimeout,
)
from koch_driver.arm.schedule import Schedule, quantile
from koch_driver.errors import BusTimeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from koch_driver.bus.dynamixel import DynamixelBus, MotorState
    from koch_driver.emulator import EmulatedChain
    from koch_rig.calibration import Calibration
    from koch_rig.rig import Arm

    Wait = Callable[..., bool]

CONFIG = LoopConfig(rate_hz=100.0, first_retry_s=0.02, last_retry_s=0.1)


class CountingController:
    """Does nothing but count."""

    def __init__(self) -> None:
        self.connections = 0
        self.cycles = 0
        self.lost: list[str] = []
        self.left = 0
        self.bug = False

    def connected(self, bus: DynamixelBus) -> None:
        self.connections += 1

    def cycle(self, bus: DynamixelBus, state: MotorState) -> None:
        self.cycles += 1
        if self.bug:
            raise RuntimeError("a bug")

    def disconnected(self, reason: str) -> None:
        self.lost.append(reason)

    def leave(self, bus: DynamixelBus) -> bool:
        self.left += 1
        return self.left >= 3


@pytest.fixture
def controller() -> CountingController:
    return CountingController()


@pytest.fixture
def phases() -> list[tuple[LoopPhase, str]]:
    return []


@pytest.fixture
def loop(
    controller: CountingController,
    phases: list[tuple[LoopPhase, str]],
    follower: Arm,
    calibration: Calibration,
) -> Iterator[ControlLoop]:
    made = ControlLoop(
        "follower",
        lambda: connect_arm(follower, calibration),
        controller,
        CONFIG,
        report=lambda phase, reason: phases.append((phase, reason)),
    )
    yield made
    made.close()


def test_cycles_keep_the_rate(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    first, begin = controller.cycles, time.monotonic()
    time.sleep(0.5)
    rate = (controller.cycles - first) / (time.monotonic() - begin)
    assert rate == pytest.approx(100.0, rel=0.15)
    assert loop.status().phase is LoopPhase.RUNNING


def test_an_absent_port_is_tried_again(
    loop: ControlLoop,
    controller: CountingController,
    phases: list[tuple[LoopPhase, str]],
    rig,
    wait_until: Wait,
) -> None:
    from koch_driver.emulator import build_chain

    loop.start()
    assert wait_until(lambda: len(phases) > 0)
    assert phases[0][0] is LoopPhase.CONNECTING
    assert "does not exist" in phases[0][1]
    with pytest.raises(NotConnected, match="does not exist"):
        loop.call(lambda bus: None)
    with build_chain(rig, "follower"):
        assert wait_until(lambda: controller.cycles > 0)
        loop.close()


def test_a_silent_arm_is_a_fault_and_comes_back(
    chain: EmulatedChain,
    loop: ControlLoop,
    controller: CountingController,
    phases: list[tuple[LoopPhase, str]],
    wait_until: Wait,
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 5)
    chain.faults.drop(1.0)
    assert wait_until(lambda: loop.status().phase is LoopPhase.FAULT)
    assert "5 cycles in a row" in controller.lost[0]
    chain.faults.clear()
    assert wait_until(lambda: controller.connections == 2)
    assert loop.status().faults == 1
    assert loop.status().bad_cycles >= 5


def test_an_unplugged_arm_is_a_fault_and_comes_back(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 5)
    chain.faults.unplug()
    assert wait_until(lambda: loop.status().phase is LoopPhase.FAULT)
    chain.faults.replug()
    assert wait_until(lambda: controller.connections == 2)


def test_requests_run_between_cycles_and_hand_their_errors_back(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    assert loop.call(lambda bus: bus.read("Model_Number", "elbow_flex")) == 1200
    chain.faults.silence(3)
    with pytest.raises(BusTimeout):
        loop.call(lambda bus: bus.read("Model_Number", "elbow_flex"))


def test_what_was_given_up_is_not_done_later(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    """Torque that comes after its caller was told that it does not would surprise a hand."""
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    done: list[str] = []
    slow = threading.Thread(target=lambda: loop.call(lambda bus: time.sleep(0.3)))
    slow.start()
    time.sleep(0.05)
    with pytest.raises(RequestTimeout, match="try again"):
        loop.call(lambda bus: done.append("late"), timeout_s=0.05)
    slow.join()
    loop.call(lambda bus: done.append("next"))
    assert done == ["next"]


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_request_of_a_lost_connection_does_not_wait_for_the_next_one(
    chain: EmulatedChain,
    loop: ControlLoop,
    controller: CountingController,
    wait_until: Wait,
    moment: str,
) -> None:
    """However close to the loss it comes."""
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    done: list[str] = []
    queue = loop._calls

    class Losing(deque):  # type: ignore[type-arg]
        """The connection is lost while a request is on its way into the queue."""

        def append(self, item: object) -> None:
            if moment == "before":
                super().append(item)
            chain.faults.unplug()
            assert wait_until(lambda: controller.lost)
            assert wait_until(lambda: loop.status().phase is LoopPhase.FAULT)
            time.sleep(0.1)
            if moment == "after":
                super().append(item)

    loop._calls = Losing(queue)
    with pytest.raises(NotConnected):
        loop.call(lambda bus: done.append("late"), timeout_s=1.0)
    chain.faults.replug()
    assert wait_until(lambda: loop.status().phase is LoopPhase.RUNNING)
    cycles = controller.cycles
    assert wait_until(lambda: controller.cycles > cycles + 5)
    assert not done


def test_closing_lets_the_controller_leave_first(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    loop.close()
    loop.close()
    assert controller.left == 3
    assert loop.status().phase is LoopPhase.CLOSED


def test_a_bug_ends_the_thread_visibly(
    chain: EmulatedChain, loop: ControlLoop, controller: CountingController, wait_until: Wait
) -> None:
    loop.start()
    assert wait_until(lambda: controller.cycles > 0)
    controller.bug = True
    assert wait_until(lambda: loop.status().phase is LoopPhase.DEAD)
    assert "RuntimeError: a bug" in loop.status().reason
    with pytest.raises(NotConnected):
        loop.call(lambda bus: None)


def test_missed_cycles_are_counted_and_do_not_shift_the_schedule() -> None:
    schedule = Schedule(0.01)
    first = schedule.wait()
    time.sleep(0.035)
    schedule.wait()
    third = schedule.wait()
    assert schedule.status().missed in (2, 3)
    phase = (third - first) / 0.01
    assert phase - round(phase) == pytest.approx(0.0, abs=0.35)


def test_quantiles() -> None:
    assert quantile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert quantile([1.0, 2.0], 0.99) == 2.0
    assert quantile([], 0.5) != quantile([], 0.5)


def delayed(chain: EmulatedChain) -> None:
    chain.faults.delay(1.0, 0.016)


def cut(chain: EmulatedChain) -> None:
    chain.faults.clear()
    chain.faults.power_cut()


CABLES, LATENCY = "check the cables", "latency timer"


@pytest.mark.parametrize(
    ("history", "fault", "advice"),
    [
        (None, cut, CABLES),
        (None, delayed, LATENCY),
        (delayed, cut, CABLES),  # late answers of the past are no cause of now
        (cut, delayed, LATENCY),  # nor is a cable that was loose
    ],
)
def test_a_fault_is_judged_by_what_happened_in_it(
    chain: EmulatedChain,
    follower: Arm,
    calibration: Calibration,
    controller: CountingController,
    wait_until: Wait,
    prompt: None,
    history: Callable[[EmulatedChain], None] | None,
    fault: Callable[[EmulatedChain], None],
    advice: str,
) -> None:
    config = LoopConfig(rate_hz=100.0, bad_cycles=25, first_retry_s=0.02, last_retry_s=0.1)
    loop = ControlLoop(
        "follower",
        lambda: connect_arm(follower, calibration),
        controller,
        config,
        report=lambda phase, reason: None,
    )
    loop.start()
    try:
        assert wait_until(lambda: controller.cycles > 20)
        if history is not None:
            history(chain)
            time.sleep(0.15)  # too short for a fault
            chain.faults.clear()
            chain.faults.power_return()
            cycles = controller.cycles
            assert wait_until(lambda: controller.cycles > cycles + 20)
            assert not controller.lost
        fault(chain)
        assert wait_until(lambda: bool(controller.lost))
        assert advice in controller.lost[0]
        assert (CABLES if advice == LATENCY else LATENCY) not in controller.lost[0]
        # What is said once the arm answers again, until that is some seconds ago.
        assert loop.status().late is (advice == LATENCY)
    finally:
        loop.close()


def test_late_answers_count_while_they_go_on() -> None:
    pulled, slow, silent_one = BadRun(), BadRun(), BadRun()
    for k in range(25):
        pulled.add((1, 2), 40 + min(k, 3))
        slow.add((1, 2), 40 + k // 3)
        silent_one.add((4, 5, 6) if k % 2 else (4,), 0)
    assert not pulled.still_answering
    assert slow.still_answering
    assert not silent_one.still_answering
    assert silent_one.missing == (4,)


@pytest.mark.parametrize("missing", [(5,), (1,), (4, 5, 6), (1, 2, 3, 4, 5, 6)])
def test_a_slow_adapter_is_named_where_it_delays_all_motors(
    missing: tuple[int, ...],
) -> None:
    run = BadRun()
    for k in range(25):
        run.add(missing, 2 * k)  # the computer is busy: now and then an answer comes late
    bus = SimpleNamespace(port="/dev/ttyUSB0", refusals={}, ids=(1, 2, 3, 4, 5, 6))
    said = str(CommunicationFault(bus, run))  # type: ignore[arg-type]  # all that it reads
    assert (LATENCY in said) == (len(missing) == 6)
    assert (CABLES in said) == (len(missing) < 6)
