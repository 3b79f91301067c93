# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A Koch whose wrist does not roll: five joints, of which the gripper keeps its motor's id 6.

In the rig: `model: koch_without_roll` of an arm. Its description is a Koch's, in which a joint
that no motor moves is fixed at zero.
"""

from __future__ import annotations

from koch_rig import KOCH_V1_1, ArmModel, register_arm_model
from koch_rig.rig import Role

MISSING = "wrist_roll"


def _without(values: tuple[float, ...]) -> tuple[float, ...]:
    """A pose of a Koch without that joint's angle."""
    return tuple(v for joint, v in zip(KOCH_V1_1.joints, values, strict=True) if joint != MISSING)


KOCH_WITHOUT_ROLL = register_arm_model(
    ArmModel(
        name="koch_without_roll",
        title="rollless Koch",
        motors={
            role: tuple(motor for motor in KOCH_V1_1.motors[role] if motor.joint != MISSING)
            for role in Role
        },
        urdf=KOCH_V1_1.urdf,
        home_rad=_without(KOCH_V1_1.home_rad),
        rest_rad=_without(KOCH_V1_1.rest_rad),
        full_turn=("shoulder_pan",),
        percent=("gripper",),
    )
)
