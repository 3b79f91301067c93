# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated table: physics, two emulated servo chains, the hand, ground truth."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_rig.calibration import load_calibration
from koch_rig.kinematics import Kinematics
from koch_rig.rig import Role
from koch_rig.units import Units
from koch_sim.arm_body import ArmBody
from koch_sim.errors import SimulationError
from koch_sim.expert import Expert, ExpertPhase, Style
from koch_sim.grasp import HOME_RAD, GraspPlanner
from koch_sim.randomisation import Randomisation, WorldSetup, draw
from koch_sim.scene import FINGER_BODIES, TIMESTEP_S, build_spec
from koch_sim.task import TaskTruth, folded_yaw, is_success
from koch_sim.variation import Variation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from koch_rig.rig import Rig

#: Servo loops and the hand are computed once in this many physics steps.
STEPS_PER_CONTROL = 2
CONTROL_PERIOD_S = STEPS_PER_CONTROL * TIMESTEP_S
#: The expert decides once in this many control steps: more often than the leader is read.
EXPERT_EVERY = 2


class World:
    """Everything on the table. Thread safe: every public method takes the world's lock."""

    def __init__(
        self,
        rig: Rig,
        *,
        seed: int,
        randomisation: Randomisation | None = None,
        style: Style | None = None,
    ) -> None:
        """Build the model and put both arms into the home pose.

        Args:
            rig: A rig whose simulation block names MuJoCo as physics.
            seed: Draws the first set-up.
            randomisation: What varies between set-ups; the rig's spread narrows its poses.
            style: How the hand moves.

        Raises:
            SimulationError: The rig has no follower or no leader.
        """
        self.rig = rig
        self.model = build_spec(rig).compile()
        self.data = mujoco.MjData(self.model)
        self.lock = threading.RLock()
        spread = 1.0 if rig.simulation is None else rig.simulation.spread_fraction
        self.randomisation = (randomisation or Randomisation()).narrowed(spread)
        self._variation = Variation(self.model)
        self.arms = {
            arm.name: ArmBody(self.model, self.data, arm, load_calibration(arm.calibration_path))
            for arm in rig.arms.values()
        }
        self._follower = self._only(Role.FOLLOWER)
        self._leader = self._only(Role.LEADER)
        kinematics = Kinematics.for_arm()
        self.expert = Expert(GraspPlanner(kinematics, self._follower.arm.base), style)
        self._steps_to_expert = EXPERT_EVERY
        self.setup = draw(self.randomisation, seed, len(rig.cameras))
        self._hold = self._to_leader(HOME_RAD)
        self.restart(seed)

    def _only(self, role: Role) -> ArmBody:
        bodies = [body for body in self.arms.values() if body.arm.role is role]
        if len(bodies) != 1:
            raise SimulationError(
                f"{self.rig.path}: the simulated table needs exactly one {role.value}, "
                f"the rig has {len(bodies)}. Change 'arms' in the rig file."
            )
        return bodies[0]

    @property
    def time_s(self) -> float:
        """Simulated time since the start, [s]."""
        return float(self.data.time)

    def reset(self, seed: int) -> WorldSetup:
        """Put block and cup where the seed says; the arms stay where they are."""
        with self.lock:
            self.expert.stop()
            self.setup = draw(self.randomisation, seed, len(self.rig.cameras))
            self._variation.apply(self.data, self.setup)
            return self.setup

    def restart(self, seed: int) -> WorldSetup:
        """Begin again as a new world would: time zero, both arms at home, motors off."""
        with self.lock:
            mujoco.mj_resetData(self.model, self.data)
            for body in self.arms.values():
                body.switch_off()
                body.place(self.data, self._home_of(body))
            self._hold = self._to_leader(HOME_RAD)
            return self.reset(seed)

    def _home_of(self, body: ArmBody) -> NDArray[np.float64]:
        return self._to_leader(HOME_RAD) if body.is_leader else HOME_RAD

    def demonstrate(self) -> None:
        """Let the hand show the task from the follower's present pose.

        Raises:
            UnreachableError: Block or cup lie out of reach.
        """
        path = self.expert.planner.plan(self.truth())  # takes time: not under the lock
        with self.lock:
            self.expert.start(path, self._hand_pose(), self.setup.seed)
            self._steps_to_expert = EXPERT_EVERY

    def advance(self, control_steps: int = 1) -> None:
        """Run physics for control_steps * STEPS_PER_CONTROL * TIMESTEP_S seconds."""
        with self.lock:
            for _ in range(control_steps):
                self._move_hand()
                for body in self.arms.values():
                    body.actuate(self.data, self.setup.servo_scale)
                mujoco.mj_step(self.model, self.data, STEPS_PER_CONTROL)
                for body in self.arms.values():
                    body.sense(self.data)

    def _move_hand(self) -> None:
        if self.expert.phase is ExpertPhase.MOVING:
            self._steps_to_expert -= 1
            if self._steps_to_expert <= 0:
                self._steps_to_expert = EXPERT_EVERY
                # By whole control steps, so that the motion's clock is the world's.
                reference = self.expert.update(
                    EXPERT_EVERY * CONTROL_PERIOD_S,
                    self.truth,
                    self._follower.joints(self.data),
                )
                if reference is not None:
                    self._hold = self._to_leader(reference)
        self._leader.push_to(self.data, self._hold)

    def _to_leader(self, q_follower: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map follower joints to the leader pose that commands them, as LeRobot pairs the arms."""
        values = self._follower.units.rad_to(Units.LEROBOT, q_follower)
        return np.asarray(self._leader.units.to_rad(Units.LEROBOT, values), dtype=np.float64)

    def _hand_pose(self) -> NDArray[np.float64]:
        """Return the follower pose that the hand's present grip on the leader commands."""
        values = self._leader.units.rad_to(Units.LEROBOT, self._hold)
        return np.asarray(self._follower.units.to_rad(Units.LEROBOT, values), dtype=np.float64)

    def truth(self) -> TaskTruth:
        """Return where block and cup are now."""
        with self.lock:
            block, cup = self.data.body("block"), self.data.body("cup")
            velocity = self.data.joint("block").qvel
            return TaskTruth(
                block_xyz_m=block.xpos.copy(),
                block_yaw_rad=folded_yaw(block.xmat.reshape(3, 3)),
                block_speed=float(np.linalg.norm(velocity[:3])),
                cup_xyz_m=cup.xpos.copy(),
                cup_up_z=float(cup.xmat[8]),
                gripped=self._gripped(),
            )

    def _gripped(self) -> bool:
        block = self.model.body("block").id
        prefix = self._follower.arm.name
        fingers = {self.model.body(f"{prefix}/{name}").id for name in FINGER_BODIES}
        bodies = self.model.geom_bodyid[self.data.contact.geom]
        return any(
            (a == block and b in fingers) or (b == block and a in fingers) for a, b in bodies
        )

    def succeeded(self) -> bool:
        """Say whether the block rests in the cup."""
        return is_success(self.truth())

    def demonstration_phase(self) -> ExpertPhase:
        """Say what the hand is doing."""
        with self.lock:
            return self.expert.phase

    def qpos(self) -> NDArray[np.float64]:
        """Return a copy of the generalised positions, for drawing elsewhere."""
        with self.lock:
            return np.array(self.data.qpos)
