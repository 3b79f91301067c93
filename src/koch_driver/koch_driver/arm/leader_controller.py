# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a leader does on its bus: measure, hold the gripper trigger, be driven back on request."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_driver.arm.connect import configure, torque_off_quietly
from koch_driver.arm.grip import Grip
from koch_driver.arm.reading import Reading
from koch_driver.arm.servo_watch import by_words
from koch_driver.arm.teleop_map import LEADER_LOST_S
from koch_driver.arm.watched_arm import WatchedArm
from koch_driver.errors import ImplausibleReading
from koch_driver.guard import CommandSource, Guard
from koch_rig.arm_model import Role
from koch_rig.units import Units

if TYPE_CHECKING:
    from koch_driver.bus.motor_bus import MotorBus, MotorState
    from koch_rig.calibration import MotorCalibration
    from koch_rig.units import JointUnits

BACK_DRIVE = "back_drive"
LEADER_SOURCES = (CommandSource(BACK_DRIVE, 1),)
_HEALTH_PERIOD_S = 0.1
# A leader that was lost is silent for longer than teleop waits for it: a hand may have moved it
# meanwhile, and anyone who teleoperates must engage again.
_SILENT_S = LEADER_LOST_S + 0.2
# A spring that a finger holds closed for hours; far below the servo's overload.
GENTLE_CURRENT_A = 0.2
# A servo that has shut down is given so long before its reboot.
_RECOVERY_PAUSE_S = 2.0


@dataclass(frozen=True)
class LeaderConfig:
    """Settings of a leader.

    Attributes:
        gripper_open: Where the trigger's spring pulls to, 0..100 of its calibrated range
            (LeRobot's `gripper_open_pos`).
        gripper_current_a: Greatest current of the spring; 0 leaves the servo's own limit, with
            which a trigger that is held closed shuts the servo down by overload within seconds.
    """

    gripper_open: float = 50.0
    gripper_current_a: float = GENTLE_CURRENT_A


class LeaderController(WatchedArm):
    """The arm's joints are free; the gripper servo is a spring-loaded trigger.

    While driven back the arm's joints follow commands of the source `back_drive` through the
    leader's own guard, so that a human takes over from a leader that already is where the
    follower is. The trigger stays a spring.
    """

    def __init__(
        self,
        units: JointUnits,
        calibration: Mapping[str, MotorCalibration],
        guard: Guard,
        config: LeaderConfig,
        *,
        publish: Callable[[Reading], None],
        poll_commands: Callable[[], None] = lambda: None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        """Prepare.

        Args:
            units: Conversions of this arm.
            calibration: To find turn offsets again after a servo's reboot.
            guard: The leader's own guard; its source is `back_drive`.
            config: Settings.
            publish: Receives every reading, in the loop's thread.
            poll_commands: Hands the follower's pose to the guard; called in every cycle.
        """
        every_s = _HEALTH_PERIOD_S
        super().__init__(
            Role.LEADER,
            units,
            calibration,
            guard,
            every_s=every_s,
            poll_commands=poll_commands,
            say=say,
        )
        self._trigger = len(self.model.arm_joints)
        self.driven_back = False
        self._recover_s = 0.0
        self._lost_s = float("-inf")
        self._spring = Grip(config.gripper_current_a, self.model.gripper)
        self._publish = publish
        numbers = np.zeros(len(self.model.joints))
        numbers[self._trigger] = config.gripper_open
        open_rad = units.to_rad(Units.LEROBOT, numbers)
        self._open_ticks = int(units.rad_to_ticks(open_rad)[self._trigger])

    def connected(self, bus: MotorBus) -> None:
        """Free the arm and load the trigger's spring."""
        self.driven_back = False
        self._converter.forget()
        self.servos.connect(bus)
        if self.errors:
            self.servos.reboot(bus, tuple(self.errors), self._calibration)
            self.servos.survey(bus)  # an error that persists is tried again later
            self._recover_s = time.monotonic() + _RECOVERY_PAUSE_S
        configure(bus, self._calibration)
        self._spring.apply(bus)
        if self.model.gripper not in self.errors:
            bus.write("Torque_Enable", self.model.gripper, 1)
        goals = np.zeros(len(self.model.joints), dtype=np.int64)
        state = bus.sync_read_state()
        # Goals of joints without torque have no effect; their present position is a safe one.
        goals[:] = state.position_ticks
        goals[self._trigger] = self._open_ticks
        bus.sync_write_goal(goals)
        self._note_lost()
        self.servos.compare()

    def _note_lost(self) -> None:
        """What servos lost is set up again by now: say so."""
        lost = self.servos.lost
        for joint, words in lost.items():
            self.monitor.note(joint, words)
        if lost:
            self._say(
                f"the leader is set up again, teleop must be engaged again: {by_words(lost)}"
            )
        self.servos.restored()

    def cycle(self, bus: MotorBus, state: MotorState) -> None:
        """One cycle."""
        now_s = time.monotonic()
        reading = None
        if state.ok:
            reading = self.reading = self._read(state)
            self.monitor.add_loads(reading.loads, now_s)
            if now_s - self._lost_s > _SILENT_S:
                self._publish(reading)
        if state.alerts and self.servos.note_alerts(state.alerts):
            self._recover_s = now_s + _RECOVERY_PAUSE_S
        elif self.errors and now_s >= self._recover_s:
            self.connected(bus)
            self.guard.restart()
        self._poll_commands()
        if self.driven_back:
            result = self.guard.step(now_s, None if reading is None else reading.positions)
            if result.goal is not None:
                goals = self._units.rad_to_ticks(result.goal)
                goals[self._trigger] = self._open_ticks
                bus.sync_write_goal(goals)
        self.servos.look(state, self._held(), self._spring.possible_ma)

    def _read(self, state: MotorState) -> Reading:
        try:
            return self._converter.convert(state)
        except ImplausibleReading as exc:
            self.servos.ask(exc.joints, self._held())
            raise

    def _held(self) -> tuple[str, ...]:
        """Joints that have torque: all while driven back, else the trigger's spring."""
        return self.model.joints if self.driven_back else (self.model.gripper,)

    def disconnected(self, reason: str) -> None:
        """A leader that comes back is free."""
        self.driven_back = False
        self._lost_s = time.monotonic()
        self.guard.restart()

    def leave(self, bus: MotorBus) -> bool:
        """Free the whole arm, trigger included, as LeRobot does."""
        torque_off_quietly(bus)
        return True

    def drive_back(self, bus: MotorBus, on: bool) -> None:
        """Switch the torque of the arm's joints; run in the loop's thread.

        Raises:
            BusError: A motor did not confirm.
        """
        for joint in self.model.arm_joints:
            bus.write("Torque_Enable", joint, int(on))
        self.guard.restart()
        self.driven_back = on
