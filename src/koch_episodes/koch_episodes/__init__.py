# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes: bags and LeRobot datasets.

Names are imported on first use: reading a bag needs no pyarrow, reading a dataset no MCAP.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from koch_episodes.bag import Bag, open_bag
    from koch_episodes.bag.stamped import Stamped, StampedBag
    from koch_episodes.dataset import DatasetWriter, LeRobotDatasetReader, validate_dataset
    from koch_episodes.decode import joint_vector

__all__ = [
    "Bag",
    "DatasetWriter",
    "LeRobotDatasetReader",
    "Stamped",
    "StampedBag",
    "joint_vector",
    "open_bag",
    "validate_dataset",
]

_MODULES = {
    "bag": ("Bag", "open_bag"),
    "bag.stamped": ("Stamped", "StampedBag"),
    "dataset": ("DatasetWriter", "LeRobotDatasetReader", "validate_dataset"),
    "decode": ("joint_vector",),
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
