# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs a world faster than time: leader registers straight to follower goals, no ptys, no ROS.

For tests and for tuning the hand. What it skips (driver, teleop, guard) is measured by
`koch eval`, on the real graph.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_driver.emulator import EmulatedChain, build_chain
from koch_rig.joints import JOINT_NAMES
from koch_rig.units import Units
from koch_sim.expert import ExpertPhase

if TYPE_CHECKING:
    from koch_sim.world import World

#: LeRobot's elbow gains, which the driver sets as well.
ELBOW_GAINS = {"Position_P_Gain": 1500, "Position_I_Gain": 0, "Position_D_Gain": 600}
#: Physics control steps per bus cycle.
STEPS_PER_CYCLE = 2


class BenchArm:
    """Couples leader and follower of a world in the world's own time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.chains: dict[str, EmulatedChain] = {
            name: build_chain(world.rig, name, physics=body.in_process, clock=lambda: world.time_s)
            for name, body in world.arms.items()
        }
        follower = world.rig.follower
        leader = world.rig.leader_of(follower.name)
        assert leader is not None  # the world has checked
        self._follower, self._leader = self.chains[follower.name], self.chains[leader.name]
        self._units = world.arms[follower.name].units, world.arms[leader.name].units
        for name, value in ELBOW_GAINS.items():
            self._write("elbow_flex", name, value)
        for joint in JOINT_NAMES:
            self._write(joint, "Torque_Enable", 1)

    def _write(self, joint: str, register: str, value: int) -> None:
        """Write a register as a packet would, with all its effects."""
        servo = self._follower.servo(joint)
        entry = servo.model.register(register)
        servo.write(entry.address, entry.encode(value))

    def cycle(self) -> None:
        """Let one bus cycle pass."""
        self.world.advance(STEPS_PER_CYCLE)
        to_follower, from_leader = self._units
        leader_rad = from_leader.ticks_to_rad(self._leader.positions_ticks())
        values = from_leader.rad_to(Units.LEROBOT, leader_rad)
        goals = to_follower.rad_to_ticks(to_follower.to_rad(Units.LEROBOT, values))
        for joint, goal in zip(JOINT_NAMES, goals.tolist(), strict=True):
            self._write(joint, "Goal_Position", goal)
        self._follower.refresh()

    def demonstrate(self, timeout_s: float = 40.0) -> bool:
        """Let the hand show the task once and the block come to rest.

        Returns:
            Whether the block rests in the cup.

        Raises:
            UnreachableError: Block or cup lie out of reach.
        """
        self.world.demonstrate()
        end = self.world.time_s + timeout_s
        moving = ExpertPhase.MOVING
        while self.world.demonstration_phase() is moving and self.world.time_s < end:
            self.cycle()
        rest = self.world.time_s + 0.5
        while self.world.time_s < rest:
            self.cycle()
        return self.world.succeeded()
