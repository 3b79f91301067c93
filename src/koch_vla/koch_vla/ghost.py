# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The arms that a policy shows ahead of the real ones: which they are, and their joints' names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_rig.rig import ArmChoiceError

if TYPE_CHECKING:
    from koch_rig.rig import Rig

PREFIX = "ghost/"  # in front of each of its frames
TOPIC = "policy/ghost/joint_states"


def ghost_urdfs(rig: Rig) -> dict[str, str]:
    """Descriptions of the arms that a policy of this rig commands, by name.

    Joints are named as in the policy's message, which carries all arms: of several, each joint
    has its arm's name in front, whatever the arm's own topics call it.
    """
    from koch_rig.model import robot_urdf

    actions = [key for key in rig.features if key == "action" or key.startswith("action.")]
    try:
        # It brings numpy, which `koch up --help` would wait for.
        from koch_rig.action_layout import ActionLayout

        layout = ActionLayout.of_rig(rig, actions)
    except ArmChoiceError:  # no feature says which
        return {}
    return {
        part.arm: robot_urdf(rig, part.arm, joint_prefix=prefix or rig.arm(part.arm).joint_prefix)
        for part, prefix in zip(layout.parts, layout.prefixes, strict=True)
        if part.arm
    }
