# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joins one emulated servo chain to its joints in the MuJoCo model."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

import mujoco
import numpy as np

from koch_driver.bus.motors import motors_for
from koch_driver.emulator import ExternalPhysics, PhysicsState, ServoDrive, ShaftFrame
from koch_rig.calibration import load_calibration
from koch_rig.rig import Role
from koch_rig.units import JointUnits

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from koch_rig.rig import Arm

#: Rotor and gear train at the output shaft, [kg m^2]: gear ratio squared times a rotor of about
#: 1e-7 kg m^2 for the XL430 (258.5:1) and 3e-8 for the XL330 (288.4:1), as in MuJoCo Menagerie.
ARMATURE_BY_STALL_NM = ((1.0, 0.010), (0.0, 0.0025))
#: Dry friction of the gear train as a fraction of the stall torque.
FRICTION_FRACTION = 0.02
#: An unpowered motor turns freely but for its gears, as a fraction of the powered damping.
COASTING_FRACTION = 0.1

#: The hand that holds the leader: stiffness [N m/rad], damping [N m s/rad], strength [N m].
HAND_STIFFNESS = 20.0
HAND_DAMPING = 0.5
HAND_STRENGTH_NM = 4.0


class ServoLink(Protocol):
    """How an arm's joints and its servos find each other."""

    def drives(self) -> tuple[ServoDrive, ...]:
        """What the servos want; empty before they run."""
        ...

    def publish(self, state: PhysicsState, time_s: float) -> None:
        """Tell the servos where their shafts are."""
        ...


class InProcessLink(ExternalPhysics):
    """Servos in the same process: they look at the shafts when they measure."""

    def __init__(self, initial_rad: Sequence[float], look: Callable[[], PhysicsState]) -> None:
        super().__init__(initial_rad)
        self._look = look

    def publish(self, state: PhysicsState, time_s: float = 0.0) -> None:
        """Nothing: they look by themselves."""

    def state(self) -> PhysicsState:
        """Return where the shafts are now."""
        return self._look()


class ArmBody:
    """The joints of an arm in the world, which answer to one chain of emulated servos."""

    def __init__(self, model: mujoco.MjModel, data: mujoco.MjData, arm: Arm) -> None:
        """Find the arm's joints and give them their servos' friction and inertia."""
        self.arm = arm
        calibration = load_calibration(arm.calibration_path, arm.model.joints)
        self.units = JointUnits(arm, calibration)
        frame = ShaftFrame(arm, calibration)
        self._model = model
        joints = [model.joint(f"{arm.name}/{name}") for name in arm.model.joints]
        self._qpos = np.array([joint.qposadr[0] for joint in joints])
        self._dof = np.array([joint.dofadr[0] for joint in joints])
        self._actuator = np.array([model.actuator(f"{arm.name}/{n}").id for n in arm.model.joints])
        servos = [motor.model for motor in motors_for(arm.role, arm.model)]
        self._stall_nm = [servo.stall_torque_nm for servo in servos]
        self._damping = [servo.stall_torque_nm / servo.no_load_speed for servo in servos]
        for dof, stall in zip(self._dof, self._stall_nm, strict=True):
            model.dof_armature[dof] = next(a for low, a in ARMATURE_BY_STALL_NM if stall >= low)
            model.dof_frictionloss[dof] = FRICTION_FRACTION * stall
        self._direction, self._shift = frame.direction, frame.shift_rad
        self._duty_nm = np.zeros(len(joints))
        self._torque_nm = [0.0] * len(joints)
        self._powered = [True] * len(joints)
        self._late: deque[Sequence[ServoDrive]] = deque(maxlen=1)
        self.in_process = InProcessLink(self._shift.tolist(), lambda: self._state(data))
        self.link: ServoLink = self.in_process
        self.switch_off()

    @property
    def is_leader(self) -> bool:
        """Whether a hand moves this arm."""
        return self.arm.role is Role.LEADER

    def joints(self, data: mujoco.MjData) -> NDArray[np.float64]:
        """Return joint angles in their order, float64 (J,), [rad]."""
        return np.array(data.qpos[self._qpos])

    def place(self, data: mujoco.MjData, q_rad: NDArray[np.float64]) -> None:
        """Set the joints, at rest, and let the servos measure them."""
        data.qpos[self._qpos] = q_rad
        data.qvel[self._dof] = 0.0
        self.sense(data)

    def switch_off(self) -> None:
        """Let the motors forget what they did: as before the servos get their power."""
        self.in_process.advance(0.0, ())
        self._late.clear()
        self._duty_nm[:] = 0.0
        self._torque_nm = [0.0] * len(self._powered)
        for index in range(len(self._powered)):
            self._set_powered(index, powered=False)

    def delay(self, steps: int) -> None:
        """Let the motors follow what the servos wanted some control steps ago."""
        self._late = deque(maxlen=1 + steps)

    def actuate(self, data: mujoco.MjData, stiffness_scale: float) -> None:
        """Turn what the servos want into torques on the joints.

        Back-EMF is the joint's damping, which the integrator treats implicitly: computed here
        it would be unstable at the light wrist.
        """
        self._late.append(self.link.drives())
        drives = self._late[0]
        if not drives:
            data.ctrl[self._actuator] = 0.0
            return
        position, velocity = self._shafts(data)
        for index, drive in enumerate(drives):
            duty = drive.duty(position[index], velocity[index]) * stiffness_scale
            self._duty_nm[index] = self._stall_nm[index] * min(1.0, max(-1.0, duty))
            powered = drive.torque_enabled
            back_emf_nm = self._damping[index] * velocity[index] if powered else 0.0
            self._torque_nm[index] = self._duty_nm[index] - back_emf_nm
            if powered != self._powered[index]:
                self._set_powered(index, powered)
        data.ctrl[self._actuator] = self._direction * self._duty_nm

    def _shafts(self, data: mujoco.MjData) -> tuple[list[float], list[float]]:
        """Return angles [rad] and speeds [rad/s] at the servos' output shafts."""
        position = self._direction * data.qpos[self._qpos] + self._shift
        velocity = self._direction * data.qvel[self._dof]
        # Lists: servos compute with one number at a time, and numpy's would cost ten times more.
        return position.tolist(), velocity.tolist()

    def _set_powered(self, index: int, powered: bool) -> None:
        """Let a motor brake by its back-EMF, or turn freely but for its gears."""
        self._powered[index] = powered
        factor = 1.0 if powered else COASTING_FRACTION
        self._model.dof_damping[self._dof[index]] = factor * self._damping[index]

    def push_to(self, data: mujoco.MjData, q_rad: NDArray[np.float64]) -> None:
        """Let the hand push this arm's joints towards a pose, on top of the servos' torques."""
        error = q_rad - data.qpos[self._qpos]
        push = HAND_STIFFNESS * error - HAND_DAMPING * data.qvel[self._dof]
        data.qfrc_applied[self._dof] = np.clip(push, -HAND_STRENGTH_NM, HAND_STRENGTH_NM)

    def sense(self, data: mujoco.MjData) -> None:
        """Publish position, velocity and motor torque to servos in another process."""
        if self.link is not self.in_process:
            self.link.publish(self._state(data), float(data.time))

    def _state(self, data: mujoco.MjData) -> PhysicsState:
        position, velocity = self._shafts(data)
        return PhysicsState(position, velocity, list(self._torque_nm))
