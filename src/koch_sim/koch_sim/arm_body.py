# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joins one emulated servo chain to its joints in the MuJoCo model."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Protocol

import mujoco
import numpy as np

from koch_driver.bus.motors import motors_for
from koch_driver.emulator import ExternalPhysics, PhysicsState, ServoDrive, ShaftFrame
from koch_rig.calibration import load_calibration
from koch_rig.rig import Role
from koch_rig.units import JointUnits
from koch_sim.arm_dynamics import nominal_dynamics
from koch_sim.scene import TIMESTEP_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from koch_rig.rig import Arm
    from koch_sim.arm_dynamics import ArmDynamics

#: An unpowered motor turns freely but for its gears, as a fraction of the powered damping.
COASTING_FRACTION = 0.1

#: Servo loops and the hand are computed once in this many physics steps.
STEPS_PER_CONTROL = 2
CONTROL_PERIOD_S = STEPS_PER_CONTROL * TIMESTEP_S

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
        self._direction, self._shift = frame.direction, frame.shift_rad
        self._duty_nm = np.zeros(len(joints))
        self._torque_nm = [0.0] * len(joints)
        self._powered = [True] * len(joints)
        self._play_rad = [0.0] * len(joints)
        self._late: deque[Sequence[ServoDrive]] = deque(maxlen=1)
        self._late_steps = 0.0
        self.follow(nominal_dynamics(arm))
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

    def place(
        self,
        data: mujoco.MjData,
        q_rad: NDArray[np.float64],
        speed: NDArray[np.float64] | float = 0.0,
    ) -> None:
        """Set the joints, at rest or at speeds in [rad/s], and let the servos measure them."""
        data.qpos[self._qpos] = q_rad
        data.qvel[self._dof] = speed
        self.sense(data)

    def follow(self, dynamics: ArmDynamics) -> None:
        """Move as an arm of these dynamics does; delays and play start again."""
        joints = [dynamics[name] for name in self.arm.model.joints]
        self._model.dof_armature[self._dof] = [joint.armature_kg_m2 for joint in joints]
        self._model.dof_frictionloss[self._dof] = [joint.friction_nm for joint in joints]
        # Dry friction is as soft as the inertias that MuJoCo keeps say; they hold the armature.
        mujoco.mj_setConst(self._model, mujoco.MjData(self._model))
        self._gain = [joint.gain_scale for joint in joints]
        self._delay_steps = [joint.delay_s / CONTROL_PERIOD_S for joint in joints]
        self._half_play_rad = [joint.backlash_rad / 2.0 for joint in joints]
        self._bias_rad = [
            float(sign) * joint.bias_rad
            for sign, joint in zip(self._direction, joints, strict=True)
        ]
        self._play_rad = [0.0] * len(joints)
        self.delay(self._late_steps)

    def switch_off(self) -> None:
        """Let the motors forget what they did: as before the servos get their power."""
        self.in_process.advance(0.0, ())
        self._late.clear()
        self._duty_nm[:] = 0.0
        self._torque_nm = [0.0] * len(self._powered)
        self._play_rad = [0.0] * len(self._powered)
        for index in range(len(self._powered)):
            self._set_powered(index, powered=False)

    def delay(self, steps: float) -> None:
        """Let the motors follow what the servos wanted some control steps ago.

        Comes on top of the delays of the arm's dynamics.
        """
        self._late_steps = steps
        longest = steps + max(self._delay_steps)
        self._late = deque(maxlen=2 + math.ceil(longest))

    def listen(self) -> None:
        """Take what the servos want into the delay line."""
        self._late.append(self.link.drives())

    def actuate(self, data: mujoco.MjData, stiffness_scale: float) -> None:
        """Turn what the servos want into torques on the joints.

        Back-EMF is the joint's damping, which the integrator treats implicitly: computed here
        it would be unstable at the light wrist.
        """
        self.listen()
        position, velocity = self._shafts(data)
        for index in range(len(self._powered)):
            drive, ahead_rad = self._late_drive(index)
            if drive is None:
                self._duty_nm[index] = 0.0
                continue
            seen_rad = position[index] - ahead_rad - self._bias_rad[index]
            duty = drive.duty(seen_rad, velocity[index]) * stiffness_scale * self._gain[index]
            duty_nm = self._stall_nm[index] * min(1.0, max(-1.0, duty))
            powered = drive.torque_enabled
            net_nm = duty_nm - (self._damping[index] * velocity[index] if powered else 0.0)
            passed = self._through_play(index, net_nm) if powered else 0.0
            self._duty_nm[index] = passed * duty_nm
            self._torque_nm[index] = passed * net_nm
            if powered != self._powered[index]:
                self._set_powered(index, powered=powered)
        data.ctrl[self._actuator] = self._direction * self._duty_nm

    def _late_drive(self, index: int) -> tuple[ServoDrive | None, float]:
        """Return what a servo wanted when the motor's delay began, None before it ran.

        Beside it stands how far its goal was ahead, [rad]: between two control steps goals are
        interpolated, so that a delay is no whole number of them.
        """
        steps = self._late_steps + self._delay_steps[index]
        whole = int(steps)
        drives = self._late[max(-1 - whole, -len(self._late))]
        if not drives:
            return None, 0.0
        drive = drives[index]
        if steps == whole:
            return drive, 0.0
        older = self._late[max(-2 - whole, -len(self._late))]
        if not older:
            return drive, 0.0
        return drive, (steps - whole) * (older[index].goal_position_rad - drive.goal_position_rad)

    def _through_play(self, index: int, net_nm: float) -> float:
        """Return the part of a control step in which the gears touch, 0..1.

        Where the torque turns round, the motor runs freely through the play, as fast as its duty
        lets it; until then it does not drive the joint. Its inertia and brake stay with the joint:
        a rotor of its own would need steps a tenth as long.
        """
        half_rad = self._half_play_rad[index]
        if half_rad == 0.0 or net_nm == 0.0:
            return 1.0
        travel_rad = net_nm / self._damping[index] * CONTROL_PERIOD_S
        room_rad = half_rad - self._play_rad[index] * math.copysign(1.0, net_nm)
        if abs(travel_rad) <= room_rad:
            self._play_rad[index] += travel_rad
            return 0.0
        self._play_rad[index] = math.copysign(half_rad, net_nm)
        return 1.0 - room_rad / abs(travel_rad)

    def _shafts(self, data: mujoco.MjData) -> tuple[list[float], list[float]]:
        """Return angles [rad] and speeds [rad/s] at the servos' output shafts."""
        position = self._direction * data.qpos[self._qpos] + self._shift
        velocity = self._direction * data.qvel[self._dof]
        # Lists: servos compute with one number at a time, and numpy's would cost ten times more.
        return position.tolist(), velocity.tolist()

    def _set_powered(self, index: int, *, powered: bool) -> None:
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
