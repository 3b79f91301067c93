# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated rig: MuJoCo table, cameras, scripted expert, lockstep simulation, evaluation."""

import os

# Must be chosen before MuJoCo's bindings first look; a display is neither needed nor used.
os.environ.setdefault("MUJOCO_GL", "egl")

__all__: list[str] = []
