# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An arm's servos under watch: what they must hold, what they have lost, which have shut down.

A servo that restarts (a dip of the supply, a loose plug) is silent for some cycles and then
answers as if nothing had happened, but without torque, gains and count of turns. Its hardware
error stays 0. So what was written is compared in every round, and at once in a motor that was
silent. Whatever is found ends the connection: what follows is decided in one place, where the arm
is connected again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from koch_driver.arm.connect import align_turns
from koch_driver.arm.health import HealthWatch
from koch_driver.arm.health_monitor import HealthMonitor
from koch_driver.arm.motor_health import MotorHealth
from koch_driver.bus.control_table import HardwareError
from koch_driver.errors import ServoLost

if TYPE_CHECKING:
    from koch_driver.arm.register_profile import RegisterProfile
    from koch_driver.bus.motor_bus import MotorBus, MotorState
    from koch_rig.calibration import MotorCalibration

_REBOOT_S = 0.6
#: Of a motor that has reported an error in a state answer, but not yet which.
BEING_READ = "cause is being read"
RESTARTED = "restarted by itself: loose plug or supply?"
UNPOWERED = "was without power until now"
LIMP = "has no torque while the others hold: loose plug or supply?"

_TICK_TURN_MS = 32768
_TICK_SLACK_MS = 150.0
_TICK_DRIFT = 0.02  # of a servo's clock against ours
_SILENT_S = 1.0
_TICK_KNOWN_S = 120.0  # after so long the tick proves nothing


class RestartWatch:
    """Tells from Realtime_Tick, milliseconds since its start, whether a servo has started again.

    A tick that does not run like our clock (other emulators, a servo of another make) is not
    believed: it must have kept time from one look to the next before it may accuse.
    """

    def __init__(self) -> None:
        self._last: dict[int, tuple[int, float]] = {}
        self._trusted: set[int] = set()

    def restarted(self, look: MotorHealth) -> bool:
        """Take a look; whether the servo has started since the one before."""
        tick = look.registers.get("Realtime_Tick")
        if tick is None:
            return False
        last, self._last[look.id] = self._last.get(look.id), (tick, look.at_s)
        if last is None or look.at_s - last[1] > _TICK_KNOWN_S:
            return False
        passed_ms = 1e3 * (look.at_s - last[1])
        off_ms = (tick - last[0] - passed_ms) % _TICK_TURN_MS
        off_ms = min(off_ms, _TICK_TURN_MS - off_ms)
        if off_ms <= _TICK_SLACK_MS + _TICK_DRIFT * passed_ms:
            if tick != last[0]:
                self._trusted.add(look.id)
            return False
        # A servo that started since the last look has not run for longer than that. One whose
        # answer lay about on a busy computer is off as well, but far from its start.
        young = tick <= passed_ms + _TICK_SLACK_MS
        return young and look.id in self._trusted

    def forget(self, motor_id: int) -> None:
        """The servo is restarted on purpose."""
        self._last.pop(motor_id, None)


def ran_since(silent_since_s: float, looks: Iterable[MotorHealth]) -> bool:
    """Whether servos that did not answer for a while were under power all the time.

    For less than a second a computer is busy. For longer each servo's own clock must show it; that
    clock turns over after 33 seconds, and shows nothing of a longer time.
    """

    def ran(look: MotorHealth) -> bool:
        silent_s = look.at_s - silent_since_s
        tick_ms = look.registers.get("Realtime_Tick", 0)
        return silent_s < _SILENT_S or tick_ms > 1e3 * silent_s + _TICK_SLACK_MS

    return all(map(ran, looks))


class ServoWatch:
    """Watches the servos of one arm, over all its connections. Used by the bus thread.

    Readers in other threads take `errors` and `lost`, which are replaced, never changed.

    Attributes:
        monitor: Heat and load.
        errors: Hardware errors by joint, in words, until the servo is rebooted.
        lost: What a servo lost by itself by joint, in words, until it is restored.
        profile: What the registers must hold.
    """

    def __init__(
        self,
        profile: RegisterProfile,
        *,
        every_s: float,
        period_s: float,
        say: Callable[[str], None],
    ) -> None:
        """Prepare.

        Args:
            profile: What the registers must hold.
            every_s: Time from one motor to the next.
            period_s: Cycle time of the control loop.
            say: Receives what a person must know, as sentences, once each.
        """
        self.monitor = HealthMonitor([spec.joint for spec in profile.motors])
        self.errors: dict[str, str] = {}
        self.lost: dict[str, str] = {}
        self.profile = profile
        self._every_s = every_s
        self._period_s = period_s
        self._say = say
        self._ids = {spec.joint: spec.id for spec in profile.motors}
        self._ticks = RestartWatch()
        self._watch: HealthWatch | None = None
        self._noticed: dict[str, str] = {}
        self._absent: set[int] = set()
        self._compare = False

    def connect(self, bus: MotorBus) -> dict[str, MotorHealth]:
        """Look at all motors of a new connection; `errors` and `lost` say what was found.

        Raises:
            BusError: A motor does not answer.
        """
        self._watch = HealthWatch(
            bus, self.monitor, every_s=self._every_s, period_s=self._period_s
        )
        self._compare = False
        self._absent = set()
        looks = self._watch.reader.survey()
        if not self.profile.watched:
            self.profile = self.profile.as_found(looks)
        noticed, self._noticed = self._noticed, {}
        for joint, look in looks.items():
            self.monitor.add_motor(look)
            if self._ticks.restarted(look):
                noticed[joint] = RESTARTED
        # What was said of a servo that has not been rebooted since is no news.
        self.errors = {j: words for j, words in self.errors.items() if not looks[j].ok}
        for look in looks.values():
            if not look.ok:
                self._set_error(look)
        self.add_lost(noticed)
        return looks

    def compare(self, *, on: bool = True) -> None:
        """The registers hold the profile from now on: any difference is a fault.

        Raises:
            BusError: A motor does not answer.
        """
        if on and self._watch is not None:
            # EEPROM is read now and then only, and was written since the survey of `connect`.
            self._watch.reader.survey()
        self._compare = on

    def add_lost(self, found: Mapping[str, str]) -> None:
        """Note what servos have lost."""
        self.lost = {**found, **self.lost}

    def look(
        self, state: MotorState, torque: Collection[str], currents_ma: Collection[int]
    ) -> None:
        """Look at a motor if it is time to; at once at those that were silent before.

        Args:
            state: This cycle's state.
            torque: Joints that should have torque.
            currents_ma: What Goal_Current of the gripper may be.

        Raises:
            ServoLost: It is not as it was left.
            PortLost: The device vanished.
        """
        if self._watch is None:
            return
        self._absent |= set(state.missing)
        if state.ok and self._absent:
            for motor_id in self._absent:
                self._watch.hurry(motor_id)
            self._absent = set()
        look = self._watch.step(state)
        if look is None:
            return
        if not look.ok:
            if look.joint in self.errors:  # else the next state will say so
                self._set_error(look)
            return
        words = self._judge(look, torque, currents_ma)
        if words and look.joint not in self.errors and look.joint not in self.lost:
            self._noticed[look.joint] = words
            raise ServoLost(self._noticed, self._ids)

    def ask(self, joints: Collection[str], torque: Collection[str]) -> None:
        """Look at once at servos whose positions cannot be: a restart explains them.

        Args:
            joints: Joints whose positions are in doubt.
            torque: Joints that should have torque.

        Raises:
            ServoLost: They have restarted.
            PortLost: The device vanished.
        """
        if self._watch is None:
            return
        unknown = [self._ids[joint] for joint in joints if joint not in self.lost]
        looks = [self._watch.look_now(motor_id) for motor_id in unknown]
        found = [look.joint for look in looks if look and look.ok and self._fresh(look, torque)]
        if found:
            self._noticed.update(dict.fromkeys(found, RESTARTED))
            raise ServoLost(self._noticed, self._ids)

    def note_alerts(self, alerts: Sequence[int]) -> list[str]:
        """Motors report hardware errors in their state; the joints of which this is news."""
        news = [j for j, motor_id in self._ids.items() if motor_id in alerts]
        news = [joint for joint in news if joint not in self.errors]
        for joint in news:
            self.errors = {**self.errors, joint: BEING_READ}
            if self._watch is not None:
                self._watch.hurry(self._ids[joint])
        return news

    def reboot(
        self,
        bus: MotorBus,
        joints: Collection[str],
        calibration: Mapping[str, MotorCalibration],
    ) -> None:
        """Reboot servos, wait for their firmware and find their turns again; torque is off.

        Raises:
            BusError: A motor did not answer.
        """
        for joint in joints:
            bus.reboot(joint)
            self._ticks.forget(self._ids[joint])
        time.sleep(_REBOOT_S)
        align_turns(bus, calibration)

    def survey(self, bus: MotorBus) -> dict[str, MotorHealth]:
        """Look at all motors; `errors` is what they report now.

        Raises:
            BusError: A motor does not answer.
        """
        looks = {} if self._watch is None else self._watch.reader.survey()
        self.errors = {j: error_in_words(look) for j, look in looks.items() if not look.ok}
        return looks

    def restored(self) -> None:
        """Nothing is lost any more."""
        self.lost = {}

    def _judge(
        self, look: MotorHealth, torque: Collection[str], currents_ma: Collection[int]
    ) -> str:
        """What is wrong with a motor; empty when nothing is."""
        if self._fresh(look, torque):
            return RESTARTED
        if not self._compare:
            return ""
        presses = look.joint == self.profile.motors[-1].joint  # the gripper
        names = self.profile.differences(look, currents_ma if presses else ())
        return f"does not hold {self.profile.in_words(look, names)}" if names else ""

    def _fresh(self, look: MotorHealth, torque: Collection[str]) -> bool:
        """Whether the servo has started again since the look before."""
        return self._ticks.restarted(look) or (look.joint in torque and not look.torque_on)

    def _set_error(self, look: MotorHealth) -> None:
        words = error_in_words(look)
        if self.errors.get(look.joint, BEING_READ) == BEING_READ:
            still = "" if look.torque_on else "; it has shut down"
            self._say(f"hardware error of {look.joint} (id {look.id}): {words}{still}")
        if self.errors.get(look.joint) != words:
            self.errors = {**self.errors, look.joint: words}


def by_words(faults: Mapping[str, str]) -> str:
    """Faults for a person; joints with the same one are named together."""
    joints: dict[str, list[str]] = {}
    for joint, words in faults.items():
        joints.setdefault(words, []).append(joint)
    return "; ".join(f"{', '.join(names)} {words}" for words, names in joints.items())


def error_in_words(look: MotorHealth) -> str:
    """What a servo reports, with what it measures now and what it allows."""
    parts = []
    for flag in HardwareError:
        if flag not in look.hardware_error:
            continue
        name = (flag.name or "").lower().replace("_", " ")
        if flag is HardwareError.INPUT_VOLTAGE:
            low, high = look.voltage_range_v
            name += f" {look.voltage_v:.1f} V, allowed {low:.1f} .. {high:.1f} V"
        elif flag is HardwareError.OVERHEATING:
            name += (
                f" {look.temperature_c:.0f} °C, allowed up to {look.temperature_limit_c:.0f} °C"
            )
        parts.append(name)
    return " and ".join(parts)
