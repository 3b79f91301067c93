# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated rig: MuJoCo table, cameras, scripted expert, lockstep simulation, evaluation.

Names are imported on first use, so that importing the package imports neither MuJoCo nor torch.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from koch_core.lazy import lazy_name

if TYPE_CHECKING:
    from koch_sim.evaluation import Trial
    from koch_sim.lockstep import Lockstep
    from koch_sim.rollout import ExpertRollouts, PolicyRollouts, PolicySettings
    from koch_sim.settings import LockstepSettings

# Must be chosen before MuJoCo's bindings first look; a display is neither needed nor used.
os.environ.setdefault("MUJOCO_GL", "egl")

__all__ = [
    "ExpertRollouts",
    "Lockstep",
    "LockstepSettings",
    "PolicyRollouts",
    "PolicySettings",
    "Trial",
]

_MODULES = {
    "evaluation": ("Trial",),
    "lockstep": ("Lockstep",),
    "rollout": ("ExpertRollouts", "PolicyRollouts", "PolicySettings"),
    "settings": ("LockstepSettings",),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
