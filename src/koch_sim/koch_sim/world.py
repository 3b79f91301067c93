# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated table: physics, two emulated servo chains, the hand, ground truth."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_rig.kinematics import Kinematics
from koch_rig.rig import Role
from koch_rig.units import Units
from koch_sim.arm_body import CONTROL_PERIOD_S, STEPS_PER_CONTROL, ArmBody
from koch_sim.arm_dynamics import load_dynamics
from koch_sim.draw import WorldSetup, draw
from koch_sim.errors import SimulationError
from koch_sim.expert import Expert, ExpertPhase, Style
from koch_sim.grasp import HOME_RAD, GraspPlanner
from koch_sim.randomisation import Randomisation
from koch_sim.scene import FINGER_BODIES, build_spec
from koch_sim.tasks import BLOCK_IN_CUP, LIFTED_HEIGHT_M, Task, Wording
from koch_sim.things import Kind, Thing
from koch_sim.truth import Pose, TableTruth, folded_yaw
from koch_sim.variation import Variation

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from koch_rig.rig import Rig
    from koch_sim.grasp import Waypoint

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
        task: Task = BLOCK_IN_CUP,
        wording: Wording = Wording.FIRST,
    ) -> None:
        """Build the model and put both arms into the home pose.

        Args:
            rig: A rig whose simulation block names MuJoCo as physics.
            seed: Draws the first set-up.
            randomisation: What varies between set-ups; the rig's spread narrows its poses.
            style: How the hand moves.
            task: What is on the table, and what is to be done with it.
            wording: In which words.

        Raises:
            SimulationError: The rig has no follower or no leader, or its arm model cannot be read.
        """
        self.rig = rig
        self.task = task
        self._wording = wording
        self.model = build_spec(rig, task.things).compile()
        self.data = mujoco.MjData(self.model)
        self.lock = threading.RLock()
        spread = 1.0 if rig.simulation is None else rig.simulation.spread_fraction
        self.randomisation = (randomisation or Randomisation()).narrowed(spread)
        self._variation = Variation(self.model, task.things)
        self.arms = {arm.name: ArmBody(self.model, self.data, arm) for arm in rig.arms.values()}
        self._follower = self._only(Role.FOLLOWER)
        self._leader = self._only(Role.LEADER)
        if rig.simulation is not None and rig.simulation.arm_model_path is not None:
            path = rig.simulation.arm_model_path
            self._follower.follow(load_dynamics(path, self._follower.arm))
        kinematics = Kinematics.for_arm()
        self.planner = GraspPlanner(kinematics, self._follower.arm.base)
        self.expert = Expert(style)
        self._steps_to_expert = EXPERT_EVERY
        self.setup = self._drawn(seed)
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

    def _drawn(self, seed: int) -> WorldSetup:
        cameras = len(self.rig.cameras)
        return draw(self.randomisation, seed, cameras, self.task, self._wording)

    def reset(self, seed: int) -> WorldSetup:
        """Put everything where the seed says; the arms stay where they are."""
        with self.lock:
            self.expert.stop()
            self.setup = self._drawn(seed)
            delay_s = self._follower.arm.delay_s + self.setup.servo_delay_s
            self._follower.delay(round(delay_s / CONTROL_PERIOD_S))
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

    def take_hold(self) -> None:
        """Bring the leader to the follower's pose, as a person does before taking over."""
        with self.lock:
            self._hold = self._to_leader(self._follower.joints(self.data))
            self._leader.place(self.data, self._hold)

    def demonstrate(self) -> None:
        """Let the hand show the task from the follower's present pose.

        Raises:
            UnreachableError: Something is out of reach.
        """
        goal = self.setup.goal
        path = self.task.plan(self.planner, self.truth(), goal)  # takes time: not under the lock
        path = [*self.planner.rise(self._hand_pose()), *path]

        def replan(truth: TableTruth) -> list[Waypoint] | None:
            if truth.things[goal.thing].xyz_m[2] >= LIFTED_HEIGHT_M:
                return None
            return self.task.plan(self.planner, truth, goal)

        with self.lock:
            self.expert.start(path, self._hand_pose(), self.setup.seed, replan)
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

    def truth(self) -> TableTruth:
        """Return where everything on the table is now."""
        with self.lock:
            things = {thing.name: self._pose_of(thing) for thing in self.task.things}
            return TableTruth(things, self._touched())

    def _pose_of(self, thing: Thing) -> Pose:
        body = self.data.body(thing.name)
        is_free = thing.kind is not Kind.SQUARE
        velocity = self.data.joint(thing.name).qvel[:3] if is_free else np.zeros(3)
        return Pose(
            xyz_m=body.xpos.copy(),
            yaw_rad=folded_yaw(body.xmat.reshape(3, 3)),
            up_z=float(body.xmat[8]),
            speed=float(np.linalg.norm(velocity)),
        )

    def _touched(self) -> frozenset[str]:
        """Names of the things that a finger of the follower touches."""
        prefix = self._follower.arm.name
        fingers = {self.model.body(f"{prefix}/{name}").id for name in FINGER_BODIES}
        ids = {self.model.body(thing.name).id: thing.name for thing in self.task.things}
        found = set()
        for a, b in self.model.geom_bodyid[self.data.contact.geom].tolist():
            if a in fingers and b in ids:
                found.add(ids[b])
            elif b in fingers and a in ids:
                found.add(ids[a])
        return frozenset(found)

    def environment_state(self) -> NDArray[np.float64]:
        """Return the values of ENVIRONMENT_NAMES for the present goal, float64 (6,)."""
        goal = self.setup.goal
        return self.truth().environment_state(goal.thing, goal.place)

    def succeeded(self) -> bool:
        """Say whether the goal is reached."""
        return self.task.succeeded(self.truth(), self.setup.goal)

    def milestone(self) -> int:
        """Return the index in MILESTONES of what holds now."""
        return self.task.milestone(self.truth(), self.setup.goal)

    def lifted(self) -> frozenset[str]:
        """Names of the blocks that are in the air now, whatever was asked for."""
        blocks = [thing.name for thing in self.task.things if thing.kind is Kind.BLOCK]
        heights = {name: float(self.data.body(name).xpos[2]) for name in blocks}
        return frozenset(name for name in blocks if heights[name] > LIFTED_HEIGHT_M)

    def demonstration_phase(self) -> ExpertPhase:
        """Say what the hand is doing."""
        with self.lock:
            return self.expert.phase

    def qpos(self) -> NDArray[np.float64]:
        """Return a copy of the generalised positions, for drawing elsewhere."""
        with self.lock:
            return np.array(self.data.qpos)
