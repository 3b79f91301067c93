# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Plans the joint poses of the expert with our inverse kinematics: fetch, put, take out, push."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.geometry import compose, inverse, rpy_to_matrix, transform_from, transform_points
from koch_rig.inverse_kinematics import IkSettings, Orientation
from koch_sim.errors import UnreachableError
from koch_sim.things import BLOCK_HALF_M, CUP_HEIGHT_M

if TYPE_CHECKING:
    from koch_rig.kinematics import Kinematics
    from koch_rig.rig import Mount
    from koch_sim.truth import Pose

Array = NDArray[np.float64]

#: Gripper angles [rad]: 5 cm, 2.5 times the block; squeezing the block with some 6 N.
GRIPPER_OPEN_RAD = KOCH_V1_1.home_rad[-1]
GRIPPER_CLOSED_RAD = -0.15
#: The fixed finger passes the block's side with this much room, [m]: half of what the open hand
#: leaves, so that a policy may miss by as much to either side (docs/learning.md).
FINGER_CLEARANCE_M = 0.015
#: Height of the pads' centre over the table while gripping, [m].
GRASP_HEIGHT_M = 0.017
APPROACH_HEIGHT_M = 0.070
CARRY_HEIGHT_M = 0.100
RELEASE_HEIGHT_M = CUP_HEIGHT_M + 0.030
#: A stacked block is let go this far over the other one; the hand comes from this much higher.
STACK_CLEARANCE_M, STACK_RISE_M = 0.003, 0.045
#: Where a block taken out of the cup goes: radius [m] and bearing [rad] from the base.
TAKEN_OUT_TO = (0.155, 0.95)
#: From the TCP to the middle of a block that closed fingers push by its long side, [m].
PUSH_REACH_M = 0.018
#: The fingers come down this far behind it, [m].
PUSH_GAP_M = 0.018
#: Poses on the way of a push.
PUSH_STEPS = 5
HOME_RAD = np.array(KOCH_V1_1.home_rad)
#: A planned pose may miss its place by this much, [m].
REACH_TOLERANCE_M = 0.002
TURN_TOLERANCE_RAD = 0.05
#: The hand leans outwards by the least of these that the wrist's range allows, [rad].
TILTS_RAD = tuple(np.radians([0, 8, 16, 24, 32, 40, 50, 60]).tolist())
#: From a posture that is near every grasp, two starts find the pose if there is one.
GRASP_SEED_RAD = np.array([0.0, -0.5, -0.3, -1.4, 0.0, GRIPPER_OPEN_RAD])
IK_SETTINGS = IkSettings(starts=2, max_iterations=60)


@dataclass(frozen=True)
class Waypoint:
    """A pose on the way.

    Attributes:
        name: What the hand does on the way to it.
        q_rad: Follower joints in a Koch's order, shape (6,).
        duration_s: Time to get there at the hand's normal pace.
        settle_s: Time to rest there, for a hand that rests.
        blend_s: The next motion begins this long before this one ends, for a hand that does not.
    """

    name: str
    q_rad: Array
    duration_s: float
    settle_s: float = 0.0
    blend_s: float = 0.0


@dataclass(frozen=True, eq=False)
class _Grip:
    """Joints (6,) over, at and with a block."""

    above: Array
    grasp: Array
    lift: Array


class GraspPlanner:
    """Turns ground truth into waypoints of one arm."""

    def __init__(self, kinematics: Kinematics, base: Mount) -> None:
        self._kinematics = kinematics
        self._T_base_world = inverse(transform_from(rpy_to_matrix(*base.rpy_rad), base.xyz))
        frames = kinematics.forward(np.zeros(HOME_RAD.shape))
        finger = compose(inverse(frames["tcp"]), frames["finger_tip"])
        # How far the fixed finger's inner face lies from the TCP, against the opening.
        self._finger_to_tcp = -float(finger[0, 3])

    def into_cup(self, block: Pose, cup: Pose) -> list[Waypoint]:
        """Plan from home to a block, into a cup and home again; takes some 50 ms.

        Raises:
            UnreachableError: Block or cup lie out of reach. The same for all plans.
        """
        grip = self._grip(block)
        xy = cup.xyz_m[:2]
        carry = self._keeping_roll("The place over the cup", xy, CARRY_HEIGHT_M, grip.lift)
        release = self._keeping_roll("The cup", xy, RELEASE_HEIGHT_M, carry)
        return [*self._fetch(grip), *self._let_go(carry, release, lower_blend_s=0.15)]

    def onto(self, block: Pose, other: Pose) -> list[Waypoint]:
        """Plan to put a block on top of another one."""
        grip = self._grip(block)
        height = float(other.xyz_m[2]) + BLOCK_HALF_M[2] + GRASP_HEIGHT_M + STACK_CLEARANCE_M
        xy = other.xyz_m[:2]
        release = self._keeping_roll("The other block", xy, height, grip.lift)
        xy = xy + self._centre_offset(release)
        carry = self._keeping_roll("The place over it", xy, height + STACK_RISE_M, grip.lift)
        release = self._keeping_roll("The other block", xy, height, carry)
        return [*self._fetch(grip), *self._let_go(carry, release, lower_blend_s=0.05)]

    def out_of_cup(self, block: Pose, cup: Pose) -> list[Waypoint]:
        """Plan to take a block out of a cup and put it onto the table, on the arm's left."""
        grip = self._grip(block)
        radius, bearing = TAKEN_OUT_TO
        xy = np.array([radius * np.cos(bearing), radius * np.sin(bearing)])
        carry = self._keeping_roll("The place over the table", xy, CARRY_HEIGHT_M, grip.lift)
        release = self._keeping_roll("The table", xy, GRASP_HEIGHT_M + STACK_CLEARANCE_M, carry)
        return [*self._fetch(grip), *self._let_go(carry, release, lower_blend_s=0.05)]

    def push(self, block: Pose, to: Pose) -> list[Waypoint]:
        """Plan to push a block over the table with closed fingers, to a place behind it."""
        way = to.xyz_m[:2] - block.xyz_m[:2]
        ahead = way / np.linalg.norm(way)
        opening = np.array([-ahead[1], ahead[0], 0.0])
        behind = block.xyz_m[:2] - ahead * (PUSH_REACH_M + PUSH_GAP_M)
        end = to.xyz_m[:2] - ahead * PUSH_REACH_M
        off = end - 0.02 * ahead

        def pose(what: str, xy: Array, height_m: float, seed: Array) -> Array:
            return self._solve(what, xy, height_m, seed, opening)

        low = pose("The place behind the block", behind, GRASP_HEIGHT_M, GRASP_SEED_RAD)
        high = pose("The place over it", behind, APPROACH_HEIGHT_M, low)
        # Straight over the table: between far poses joints swing the fingers up, over the block.
        way_points = []
        there = low
        for share in np.linspace(0.0, 1.0, PUSH_STEPS + 1)[1:]:
            xy = behind + share * (end - behind)
            there = pose("The place to push it to", xy, GRASP_HEIGHT_M, there)
            way_points.append(there)
        back = pose("The place behind it", off, GRASP_HEIGHT_M, there)
        away = pose("The place over it", off, APPROACH_HEIGHT_M, back)
        closed = GRIPPER_CLOSED_RAD
        return [
            Waypoint("reach", _with_gripper(high, closed), 1.2, settle_s=0.1, blend_s=0.35),
            Waypoint("descend", _with_gripper(low, closed), 0.8, settle_s=0.2, blend_s=0.15),
            *(Waypoint("push", _with_gripper(q, closed), 0.5, blend_s=0.2) for q in way_points),
            Waypoint("back", _with_gripper(back, closed), 0.5, blend_s=0.2),
            Waypoint("retreat", _with_gripper(away, closed), 0.6, blend_s=0.3),
            Waypoint("home", HOME_RAD.copy(), 1.2, settle_s=0.2),
        ]

    def rise(self, q_rad: Array) -> list[Waypoint]:
        """Plan to let go and to leave a low pose upwards; nothing where the hand is high."""
        tcp = inverse(self._T_base_world) @ self._kinematics.forward(q_rad)["tcp"]
        if tcp[2, 3] >= APPROACH_HEIGHT_M:
            return []
        high = self._keeping_roll("The place over the hand", tcp[:2, 3], APPROACH_HEIGHT_M, q_rad)
        opened = GRIPPER_OPEN_RAD
        return [
            Waypoint("let go", _with_gripper(q_rad, opened), 0.4, settle_s=0.1, blend_s=0.15),
            Waypoint("rise", _with_gripper(high, opened), 0.6, settle_s=0.1, blend_s=0.2),
        ]

    def _grip(self, block: Pose) -> _Grip:
        """Plan the poses over, at and with a block."""
        height = float(block.xyz_m[2]) - BLOCK_HALF_M[2] + GRASP_HEIGHT_M
        grasp, tcp_xy, opening = self._grasp_pose(block.xyz_m[:2], block.yaw_rad, height)
        above = self._solve("The place over it", tcp_xy, APPROACH_HEIGHT_M, grasp, opening)
        lift = self._keeping_roll("The lifted block", tcp_xy, CARRY_HEIGHT_M, above)
        return _Grip(above, grasp, lift)

    @staticmethod
    def _fetch(grip: _Grip) -> list[Waypoint]:
        """From home to the lifted block."""
        # Blends are as long as what follows allows: the fingers are over the block before they
        # go down, at its sides before they close, and closed before they lift.
        opened, closed = GRIPPER_OPEN_RAD, GRIPPER_CLOSED_RAD
        return [
            Waypoint("reach", _with_gripper(grip.above, opened), 1.3, settle_s=0.1, blend_s=0.4),
            Waypoint("descend", _with_gripper(grip.grasp, opened), 0.9, settle_s=0.2, blend_s=0.2),
            Waypoint("grasp", _with_gripper(grip.grasp, closed), 0.6, settle_s=0.3, blend_s=0.18),
            Waypoint("lift", _with_gripper(grip.lift, closed), 0.9, blend_s=0.35),
        ]

    @staticmethod
    def _let_go(carry: Array, release: Array, *, lower_blend_s: float) -> list[Waypoint]:
        """From the lifted block to its place, and home."""
        opened, closed = GRIPPER_OPEN_RAD, GRIPPER_CLOSED_RAD
        return [
            Waypoint("carry", _with_gripper(carry, closed), 1.3, settle_s=0.1, blend_s=0.4),
            Waypoint(
                "lower", _with_gripper(release, closed), 0.5, settle_s=0.2, blend_s=lower_blend_s
            ),
            Waypoint("release", _with_gripper(release, opened), 0.5, settle_s=0.2, blend_s=0.2),
            Waypoint("retreat", _with_gripper(carry, opened), 0.6, blend_s=0.35),
            Waypoint("home", HOME_RAD.copy(), 1.2, settle_s=0.2),
        ]

    def _centre_offset(self, q: Array) -> Array:
        """From the middle of a gripped block, which lies at the fixed finger, to the TCP (2,)."""
        opening_base = self._kinematics.forward(q)["tcp"][:3, 0]
        opening: Array = self._T_base_world[:3, :3].T @ opening_base
        return (self._finger_to_tcp - BLOCK_HALF_M[1]) * opening[:2]

    def _grasp_pose(
        self, block_xy: Array, yaw: float, height_m: float
    ) -> tuple[Array, Array, Array]:
        """Choose the turn of the hand that needs the least wrist roll.

        Returns:
            Joints (6,), the TCP's place in the world (2,), the direction of opening (3,).
        """
        across = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
        # The fixed finger goes down beside the block; the jaw then pushes the block to it.
        shift = self._finger_to_tcp - FINGER_CLEARANCE_M - BLOCK_HALF_M[1]
        found = []
        for opening in (across, -across):
            tcp_xy = block_xy + shift * opening[:2]
            q = self._solve("The block", tcp_xy, height_m, GRASP_SEED_RAD, opening)
            found.append((abs(float(q[4])), q, tcp_xy, opening))
        _, q, tcp_xy, opening = min(found, key=lambda pose: pose[0])
        return q, tcp_xy, opening

    def _keeping_roll(self, what: str, xy: Array, height_m: float, seed: Array) -> Array:
        """Solve for another place without turning the wrist on the way.

        The TCP does not lie on the wrist's axis: with another roll than the solution's it is some
        millimetres beside the place, which a second solution makes up for.
        """
        q = self._solve(what, xy, height_m, seed, None)
        q[4] = seed[4]
        missed = xy - self._tcp_xy(q)
        q = self._solve(what, xy + missed, height_m, q, None)
        q[4] = seed[4]
        return q

    def _tcp_xy(self, q: Array) -> Array:
        """Return where the TCP is over the table, world frame (2,), [m]."""
        tcp = inverse(self._T_base_world) @ self._kinematics.forward(q)["tcp"]
        xy: Array = tcp[:2, 3]
        return xy

    def _solve(
        self, what: str, xy: Array, height_m: float, seed: Array, opening: Array | None
    ) -> Array:
        """Bring the TCP to a place in the world, the hand as upright as the arm allows.

        Args:
            what: Names the place in the error.
            xy: Place on the table, world frame, [m].
            height_m: Height over the table, [m].
            seed: Joints to start at, (6,).
            opening: Direction in which the fingers open, unit (3,), or None for any.
        """
        xyz = np.array([*xy, height_m])
        xyz_base = transform_points(self._T_base_world, xyz)
        bearing = float(np.arctan2(xyz_base[1], xyz_base[0]))
        nearest, best = "", np.inf
        for tilt in TILTS_RAD:
            target = np.eye(4)
            target[:3, :3] = _hand_down(bearing, tilt, opening, self._T_base_world)
            target[:3, 3] = xyz_base
            orientation = Orientation.APPROACH if opening is None else Orientation.FULL
            result = self._kinematics.inverse(
                target, seed, orientation=orientation, settings=IK_SETTINGS
            )
            away_m, turned_rad = result.position_error_m, result.rotation_error_rad
            if away_m < REACH_TOLERANCE_M and turned_rad < TURN_TOLERANCE_RAD:
                return np.array(result.q)
            missed = max(away_m / REACH_TOLERANCE_M, turned_rad / TURN_TOLERANCE_RAD)
            if missed < best:
                best = missed
                nearest = (
                    f"the best pose is {1e3 * away_m:.1f} mm away (allowed "
                    f"{1e3 * REACH_TOLERANCE_M:.0f} mm) and {np.rad2deg(turned_rad):.0f} deg "
                    f"turned (allowed {np.rad2deg(TURN_TOLERANCE_RAD):.0f} deg)"
                )
        raise UnreachableError(what, (float(xy[0]), float(xy[1]), height_m), nearest)


def _hand_down(bearing: float, tilt: float, opening: Array | None, T_base_world: Array) -> Array:
    """Rotation of a TCP in the base frame that approaches down, tilted outwards by an angle."""
    approach = np.array(
        [np.sin(tilt) * np.cos(bearing), np.sin(tilt) * np.sin(bearing), -np.cos(tilt)]
    )
    across = np.array([-np.sin(bearing), np.cos(bearing), 0.0])
    if opening is not None:
        across = T_base_world[:3, :3] @ opening
    across = across - approach * float(across @ approach)
    across /= np.linalg.norm(across)
    return np.stack([across, np.cross(approach, across), approach], axis=1)


def _with_gripper(q: Array, gripper_rad: float) -> Array:
    result: Array = q.copy()
    result[-1] = gripper_rad
    return result
