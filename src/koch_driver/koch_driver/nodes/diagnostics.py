# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an arm node reports on /diagnostics."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus

from koch_driver.arm.control_loop import LATE, LATE_ADVICE, LoopPhase, LoopStatus
from koch_driver.arm.follower_controller import FollowerController
from koch_driver.arm.health_monitor import HealthMonitor
from koch_driver.arm.servo_watch import by_words
from koch_driver.bus.statistics import BusStatistics
from koch_driver.guard import Guard, Refusal, Rule
from koch_ros.diagnostics import diagnostic_status

_RECENT_S = 2.0  # what happened since the last report or two
_SILENT_WARNS_S = 10.0  # a source that fell silent
_SILENT_LOOKS = 3  # in a row: one is a lost packet
_INCIDENT_S = 60.0  # what befell a motor and is over
_LEVEL = {
    LoopPhase.CONNECTING: DiagnosticStatus.ERROR,
    LoopPhase.RUNNING: DiagnosticStatus.OK,
    LoopPhase.FAULT: DiagnosticStatus.ERROR,
    LoopPhase.DEAD: DiagnosticStatus.ERROR,
    LoopPhase.CLOSED: DiagnosticStatus.STALE,
}


def loop_status(
    name: str, port: str, loop: LoopStatus, bus: BusStatistics | None, clock: str = ""
) -> DiagnosticStatus:
    """Connection, schedule and bus of an arm.

    Args:
        name: Of the arm.
        port: Its port.
        loop: Its control loop.
        bus: Its bus, None before there is one.
        clock: What befell the system clock, for people.
    """
    schedule = loop.schedule
    values: dict[str, Any] = {
        "phase": loop.phase.value,
        "faults": loop.faults,
        "cycles": schedule.cycles,
        "realtime": loop.realtime.text,
        "missed_cycles": schedule.missed,
        "bad_cycles": loop.bad_cycles,
        "cycle_p50_ms": 1e3 * schedule.busy_p50_s,
        "cycle_p99_ms": 1e3 * schedule.busy_p99_s,
        "lateness_p50_ms": 1e3 * schedule.lateness_p50_s,
        "lateness_p99_ms": 1e3 * schedule.lateness_p99_s,
    }
    if bus is not None:
        values |= {
            "bus_retries": bus.retries,
            "bus_timeouts": bus.timeouts,
            "bus_crc_errors": bus.crc_errors,
            "bus_bad_packets": bus.bad_packets,
            "bus_late_packets": bus.late_packets,
            "bus_read_p50_ms": 1e3 * bus.latency.quantile(0.5),
            "bus_read_p99_ms": 1e3 * bus.latency.quantile(0.99),
        }
        for motor_id, count in sorted(bus.per_motor_missing.items()):
            values[f"bus_missing_id_{motor_id}"] = count
    lines = loop.reason.splitlines() or [loop.phase.value]
    # The cause is first; in a traceback, last.
    level, message = _LEVEL[loop.phase], lines[-1 if loop.phase is LoopPhase.DEAD else 0]
    if loop.phase is LoopPhase.RUNNING and loop.bad_age_s < _RECENT_S:
        motors = ", ".join(map(str, loop.missing))
        level, message = DiagnosticStatus.WARN, f"cycles without an answer of motors {motors}"
        if loop.late:
            message += f"; {LATE} {LATE_ADVICE}"
        elif len(loop.missing) > 1:
            message += f"; a silent motor {loop.missing[0]} may silence those behind it"
    if clock:
        level, message = max(level, DiagnosticStatus.WARN), f"{message}; {clock}"
    return diagnostic_status(f"{name}: bus", port, level, message, values)


def motor_statuses(
    name: str,
    port: str,
    monitor: HealthMonitor,
    currents: Mapping[str, float],
    errors: Mapping[str, str],
    lost: Mapping[str, str],
) -> list[DiagnosticStatus]:
    """One status per motor whose slow registers are known, or that should have told them.

    Args:
        name: Of the arm.
        port: Its port.
        monitor: What is known of its motors.
        currents: Present currents by joint in [A].
        errors: Hardware errors by joint, in words.
        lost: What servos lost by themselves by joint, in words.
    """
    statuses = []
    nan = float("nan")
    for joint in monitor.joints:
        motor, silent = monitor.motors.get(joint), monitor.silent.get(joint, 0)
        if motor is None and not silent:
            continue
        level, message = DiagnosticStatus.OK, "ok"
        if joint in errors:
            level, message = DiagnosticStatus.ERROR, f"hardware error: {errors[joint]}"
        elif joint in lost:
            level, message = DiagnosticStatus.ERROR, lost[joint]
        elif doubt := _doubt(monitor, joint):
            level, message = DiagnosticStatus.WARN, doubt
        values = {
            "temperature_c": nan if motor is None else motor.temperature_c,
            "temperature_limit_c": nan if motor is None else motor.temperature_limit_c,
            "voltage_v": nan if motor is None else motor.voltage_v,
            "current_a": currents.get(joint, nan),
            "mean_load_percent": 100.0 * monitor.load_means[monitor.joints.index(joint)],
            "unanswered": monitor.unanswered.get(joint, 0),
            "hardware_error": errors.get(joint, "none"),
        }
        statuses.append(diagnostic_status(f"{name}: motor {joint}", port, level, message, values))
    return statuses


def _doubt(monitor: HealthMonitor, joint: str) -> str:
    """The most telling of what is not as it should be with a motor; empty for none."""
    what, when_s = monitor.incidents.get(joint, ("", 0.0))
    ago_s = time.monotonic() - when_s
    if what and ago_s < _INCIDENT_S:
        return f"{what} ({ago_s:.0f} s ago)"
    motor, silent = monitor.motors.get(joint), monitor.silent.get(joint, 0)
    if motor is not None and motor.supply_doubt:
        return motor.supply_doubt
    if joint in monitor.reasons:
        return f"backing off: {monitor.reasons[joint]}"
    if any(line.startswith(f"{joint} ") for line in monitor.warm()):
        return "warm"
    if silent >= _SILENT_LOOKS:
        return f"no answer to the last {silent} questions for temperature and voltage"
    return ""


def _refused_now(guard: Guard) -> list[Refusal]:
    """Refusals of the last seconds that are someone's fault, newest last."""
    since_s = time.monotonic() - _RECENT_S
    recent = [
        refusal
        for refusal in guard.refusals.all()
        if refusal.time_s > since_s and refusal.rule not in (Rule.PRIORITY, Rule.STOP)
    ]
    return sorted(recent, key=lambda refusal: refusal.time_s)


def guard_status(
    name: str,
    port: str,
    controller: FollowerController,
    senders: Callable[[Refusal], Iterable[str]],
    *,
    connected: bool,
) -> DiagnosticStatus:
    """What the guard does and has changed, and how old commands are when they are written.

    Args:
        name: The arm's name.
        port: Its port.
        controller: What the guard belongs to.
        senders: Names the nodes behind a refusal.
        connected: Whether the arm answers; why it does not is said of its bus.
    """
    guard = controller.guard
    values: dict[str, Any] = {"torque": "on" if controller.torque_on else "off"}
    for (rule, joint), count in sorted(guard.counts().items(), key=lambda item: -item[1]):
        values[f"{rule.value}/{joint}"] = count
    for source, (median, p99) in controller.latency.quantiles().items():
        values[f"latency_{source}_p50_ms"] = 1e3 * median
        values[f"latency_{source}_p99_ms"] = 1e3 * p99
    level, message = DiagnosticStatus.OK, "ready" if connected else "waits for the arm"
    silent = guard.silent(time.monotonic())
    if silent is not None and connected:
        # Not for ever: a policy that has done its work falls silent as well.
        level = DiagnosticStatus.WARN if silent[1] < _SILENT_WARNS_S else DiagnosticStatus.OK
        message = f"holding: {silent[0]} has sent no command for {silent[1]:.0f} s"
    for refusal in _refused_now(guard):
        level = DiagnosticStatus.WARN
        who = ", ".join(senders(refusal)) or "unknown sender"
        message = f"commands of {refusal.source} are refused (from {who}): {refusal.text}"
    if not controller.torque_on and (connected or controller.latch.state.released):
        level, message = DiagnosticStatus.WARN, "torque off"
        if controller.latch.state.released:
            message = f"torque off: {controller.latch.state.released}; call torque with true"
    if guard.stopped:
        reasons = (
            "; ".join(stop.text for stop in controller.latch.state.stops) or "no reason is known"
        )
        level, message = DiagnosticStatus.WARN, f"stopped: call resume ({reasons})"
    if controller.faults:
        level = DiagnosticStatus.ERROR
        errors = {joint: f"hardware error: {words}" for joint, words in controller.errors.items()}
        what = by_words({**controller.servos.lost, **errors})
        message = f"stopped: {what}; call torque with true, then resume"
    if controller.latch.unsaved:
        level = max(level, DiagnosticStatus.WARN)
        message += f"; a stop would not survive this process: {controller.latch.unsaved}"
    return diagnostic_status(f"{name}: guard", port, level, message, values)
