# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Leader pose to follower pose, and the enable switch that lets a human drive. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.units import Units

if TYPE_CHECKING:
    from koch_rig.units import JointUnits


#: A leader that was silent for longer may have been moved, or have lost its turns, unseen: who
#: teleoperates must engage again. Its driver stays silent for longer after each fault.
LEADER_LOST_S = 1.0


#: A trigger is squeezed below this part of its way [0..100], for so long [s].
SQUEEZED, SQUEEZED_S = 20.0, 0.15


class Squeeze:
    """Notices that a trigger is squeezed which had been let go before."""

    def __init__(self) -> None:
        self._was_free = False
        self._since_s: float | None = None

    def take(self, opening: float, now_s: float) -> bool:
        """Take in how far the trigger is open [0..100]; whether it is squeezed."""
        if opening >= SQUEEZED:
            self._was_free, self._since_s = True, None
            return False
        if self._since_s is None:
            self._since_s = now_s
        return self._was_free and now_s - self._since_s >= SQUEEZED_S

    def forget(self) -> None:
        """Begin again: the next squeeze counts once the trigger was let go."""
        self._was_free, self._since_s = False, None


class PoseMap:
    """Maps joint angles of one arm to those of another as LeRobot does.

    Leader and follower are matched by their calibrated ranges: an angle becomes LeRobot's number
    (-100..100, gripper 0..100) of the one arm, and that number an angle of the other. Where both
    were calibrated over the same physical extent the arms are parallel, whatever their horns.
    """

    def __init__(self, source: JointUnits, target: JointUnits) -> None:
        self._source = source
        self._target = target

    def map(self, positions: Sequence[float]) -> tuple[float, ...]:
        """Angles in [rad] in the order of the joints, clipped to the calibrated ranges."""
        numbers = self._source.rad_to(Units.LEROBOT, positions)
        return tuple(self._target.to_rad(Units.LEROBOT, numbers).tolist())


@dataclass(frozen=True)
class Engagement:
    """Answer to the wish to drive.

    Attributes:
        engaged: Whether the human drives now.
        message: Why not, or what will happen first.
    """

    engaged: bool
    message: str


def engage(
    leader: Sequence[float] | None,
    follower: Sequence[float] | None,
    *,
    threshold_rad: float,
    refuse: bool,
    model: ArmModel = KOCH_V1_1,
) -> Engagement:
    """Decide whether the human may take over.

    Args:
        leader: Pose of the leader mapped to the follower in [rad]; None when unknown.
        follower: Measured pose of the follower in [rad]; None when unknown.
        threshold_rad: Distance in any joint but the gripper above which the arms are apart.
        refuse: Refuse when apart, instead of letting the guard blend.
        model: Of both arms.
    """
    if leader is None or follower is None:
        silent = "leader" if leader is None else "follower"
        return Engagement(False, f"no joint states of the {silent} yet")
    apart = [
        f"{joint} by {abs(a - b):.2f} rad"
        for joint, a, b in zip(model.joints, leader, follower, strict=True)
        if abs(a - b) > threshold_rad and joint != model.gripper
    ]
    if not apart:
        return Engagement(True, "the human drives")
    what = f"leader and follower are apart: {', '.join(apart)} (threshold {threshold_rad:.2f} rad)"
    if refuse:
        return Engagement(False, f"{what}; bring the leader to the follower's pose")
    return Engagement(True, f"{what}; the follower blends over slowly")
