# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated rig: MuJoCo table, cameras, scripted expert, lockstep simulation, evaluation.

Names are imported on first use, so that importing the package imports neither MuJoCo nor torch.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

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
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
