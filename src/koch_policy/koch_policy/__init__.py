# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of the Koch arm: networks, checkpoints, training and runtimes.

Names are resolved at first use, so that importing the package does not import torch.
"""

from typing import Any

from koch_core.lazy import lazy_name

__all__ = [
    "Checkpoint",
    "CheckpointMetadata",
    "FunctionPolicy",
    "Policy",
    "PolicyConfig",
    "PolicyError",
    "load_checkpoint",
    "load_policy",
    "load_recipe",
    "register_policy",
    "save_checkpoint",
    "train_policy",
]

_MODULES = {
    "checkpoint": ("Checkpoint", "load_checkpoint", "save_checkpoint"),
    "configs": ("PolicyConfig",),
    "errors": ("PolicyError",),
    "execution.synthetic": ("FunctionPolicy",),
    "metadata": ("CheckpointMetadata",),
    "models.registry": ("register_policy",),
    "policy": ("Policy",),
    "runtime": ("load_policy",),
    "train.config": ("load_recipe",),
    "train.setup": ("train_policy",),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
