# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The numbers the guard enforces, checked once at construction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import TYPE_CHECKING

from koch_driver.guard.errors import GuardConfigError
from koch_driver.guard.plausibility import FASTEST_RAD_S
from koch_driver.guard.workspace import Workspace
from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.fingertips import FingertipKinematics

if TYPE_CHECKING:
    from koch_rig.rig import Arm, Limits


def _lead(model: ArmModel) -> tuple[float, ...]:
    """How far a target may be ahead of the pose [rad]; the gripper must press."""
    return (0.5,) * len(model.arm_joints) + (inf,)


@dataclass(frozen=True)
class GuardLimits:
    """Bounds and times of one arm's guard; vectors in the order of `joints`.

    Attributes:
        lower: Smallest goals in [rad].
        upper: Greatest goals in [rad].
        max_speed: Greatest change of a goal in [rad/s].
        max_acceleration: Greatest change of a goal's speed in [rad/s^2].
        command_timeout_s: Without a command for so long the arm brakes and holds.
        max_command_age_s: Oldest stamp of a command that is accepted.
        max_future_s: Farthest stamp in the future that is accepted.
        source_timeout_s: How long a source keeps lower ones out after its last command.
        blend_speed: Mean speed of a soft start in [rad/s].
        blend_min_s: Shortest soft start.
        lead_rad: How far a target may be ahead of the measured pose, inf = no bound.
        recover_rad: An arm measured farther outside its limits than this is not moved at all.
        fastest_rad_s: Speed that no joint exceeds; a measurement that says so is not believed.
        grip_joints: Joints that press on what they hold: while holding and in a soft start they
            keep their goal instead of the measured position, which would drop the object.
        joints: The arm's joints.
    """

    lower: tuple[float, ...]
    upper: tuple[float, ...]
    max_speed: float = 3.0
    max_acceleration: float = 20.0
    command_timeout_s: float = 0.3
    max_command_age_s: float = 0.2
    max_future_s: float = 0.05
    source_timeout_s: float = 0.5
    blend_speed: float = 0.8
    blend_min_s: float = 0.25
    lead_rad: tuple[float, ...] = _lead(KOCH_V1_1)
    recover_rad: float = 1.0
    fastest_rad_s: float = FASTEST_RAD_S
    grip_joints: tuple[int, ...] = (len(KOCH_V1_1.arm_joints),)
    joints: tuple[str, ...] = KOCH_V1_1.joints

    def __post_init__(self) -> None:
        for name in ("lower", "upper", "lead_rad"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != len(self.joints):
                expected = f"{len(self.joints)} values"
                raise GuardConfigError(name, f"{len(values)} values", expected)
            object.__setattr__(self, name, values)
        for joint, low, high in zip(self.joints, self.lower, self.upper, strict=True):
            if not (isfinite(low) and isfinite(high) and low < high):
                raise GuardConfigError(f"limits of {joint}", f"[{low}, {high}]", "lower < upper")
        if not all(lead > 0.0 for lead in self.lead_rad):
            raise GuardConfigError("lead_rad", self.lead_rad, "positive values")
        for name in (
            "max_speed",
            "max_acceleration",
            "command_timeout_s",
            "max_command_age_s",
            "source_timeout_s",
            "blend_speed",
            "blend_min_s",
            "recover_rad",
        ):
            value = getattr(self, name)
            if not (isfinite(value) and value > 0.0):
                raise GuardConfigError(name, value, "a positive finite number")
        if not self.fastest_rad_s > 0.0:
            raise GuardConfigError("fastest_rad_s", self.fastest_rad_s, "a positive number")
        if not (isfinite(self.max_future_s) and self.max_future_s >= 0.0):
            raise GuardConfigError("max_future_s", self.max_future_s, "zero or more")

    @classmethod
    def from_rig(
        cls,
        limits: Limits,
        *,
        calibrated: Mapping[str, tuple[float, float]] | None = None,
        model: ArmModel = KOCH_V1_1,
    ) -> GuardLimits:
        """Take the rig's limits, narrowed by the arm's calibrated ranges.

        Args:
            limits: `Rig.limits`.
            calibrated: Mechanical range per joint in [rad] as the calibration recorded it; joints
                without an entry keep the rig's range.
            model: The arm's.

        Raises:
            GuardConfigError: Rig and calibration leave a joint no range.
        """
        lower, upper = [], []
        for joint in model.joints:
            low, high = limits.joints[joint]
            real = (calibrated or {}).get(joint, (-inf, inf))
            narrow = (max(low, real[0]), min(high, real[1]))
            if not narrow[0] < narrow[1]:
                raise GuardConfigError(
                    f"limits of {joint}",
                    f"[{low:.3f}, {high:.3f}] rad in the rig and "
                    f"[{real[0]:.3f}, {real[1]:.3f}] rad in the calibration",
                    "ranges that overlap (check sign, offset_rad and the calibration file)",
                )
            lower.append(narrow[0])
            upper.append(narrow[1])
        return cls(
            lower=tuple(lower),
            upper=tuple(upper),
            max_speed=limits.max_speed,
            max_acceleration=limits.max_acceleration,
            command_timeout_s=limits.command_timeout_s,
            max_command_age_s=limits.max_command_age_s,
            lead_rad=_lead(model),
            grip_joints=(len(model.arm_joints),),
            joints=model.joints,
        )


def workspace_from_rig(limits: Limits, arm: Arm) -> Workspace | None:
    """The rig's table plane and box for one arm; None when the rig names neither."""
    if limits.table_z is None and limits.workspace is None:
        return None
    tips = FingertipKinematics.for_arm(arm)
    lower: Sequence[float] = (-inf, -inf, -inf)
    upper: Sequence[float] = (inf, inf, inf)
    if limits.workspace is not None:
        lower, upper = limits.workspace.min, limits.workspace.max
    return Workspace(
        tcp_position=tips.tcp,
        lever_arms=tips.lever_arms(),
        lower=(lower[0], lower[1], lower[2]),
        upper=(upper[0], upper[1], upper[2]),
        table_z=limits.table_z,
    )
