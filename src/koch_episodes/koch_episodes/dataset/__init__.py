# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets without LeRobot: write, read, validate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from koch_core.lazy import lazy_name
from koch_episodes.dataset.layout import Codec, FeatureSpec, Version

if TYPE_CHECKING:
    from koch_episodes.dataset.format import FORMATS, DatasetFormat, DatasetInfo, load_info
    from koch_episodes.dataset.reader import LeRobotDatasetReader
    from koch_episodes.dataset.validate import validate_dataset
    from koch_episodes.dataset.video import VideoSettings
    from koch_episodes.dataset.writer import DatasetWriter

__all__ = [
    "FORMATS",
    "Codec",
    "DatasetFormat",
    "DatasetInfo",
    "DatasetWriter",
    "FeatureSpec",
    "LeRobotDatasetReader",
    "Version",
    "VideoSettings",
    "load_info",
    "validate_dataset",
]

# What needs pyarrow or FFmpeg is imported when it is asked for.
_MODULES = {
    "format": ("FORMATS", "DatasetFormat", "DatasetInfo", "load_info"),
    "reader": ("LeRobotDatasetReader",),
    "validate": ("validate_dataset",),
    "video": ("VideoSettings",),
    "writer": ("DatasetWriter",),
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    return lazy_name(__name__, name, _MODULES)
