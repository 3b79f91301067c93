# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies of the Koch arm: networks, checkpoints, training and runtimes.

Names are resolved at first use, so that importing the package does not import torch.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "Checkpoint": "koch_policy.checkpoint",
    "Extras": "koch_policy.extras",
    "Policy": "koch_policy.policy",
    "PolicyConfig": "koch_policy.configs",
    "PolicyError": "koch_policy.errors",
    "load_checkpoint": "koch_policy.checkpoint",
    "load_policy": "koch_policy.runtime",
    "save_checkpoint": "koch_policy.checkpoint",
}

__all__ = [
    "Checkpoint",
    "Extras",
    "Policy",
    "PolicyConfig",
    "PolicyError",
    "load_checkpoint",
    "load_policy",
    "save_checkpoint",
]


def __getattr__(name: str) -> Any:
    """Import the module that holds a public name."""
    if name not in _HOMES:
        raise AttributeError(f"module 'koch_policy' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
