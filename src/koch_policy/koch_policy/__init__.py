# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of the Koch arm: networks, checkpoints, training and runtimes.

Names are resolved at first use, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Checkpoint": "koch_policy.checkpoint",
    "CheckpointMetadata": "koch_policy.metadata",
    "FunctionPolicy": "koch_policy.execution.synthetic",
    "Policy": "koch_policy.policy",
    "PolicyConfig": "koch_policy.configs",
    "PolicyError": "koch_policy.errors",
    "load_checkpoint": "koch_policy.checkpoint",
    "load_policy": "koch_policy.runtime",
    "load_recipe": "koch_policy.train.config",
    "register_policy": "koch_policy.models.registry",
    "save_checkpoint": "koch_policy.checkpoint",
    "train_policy": "koch_policy.train.setup",
}

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


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'koch_policy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
