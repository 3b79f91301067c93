# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes: bags and LeRobot datasets.

Names are imported on first use: reading a bag needs no pyarrow, reading a dataset no MCAP.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koch_core.lazy import lazy_name

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


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
