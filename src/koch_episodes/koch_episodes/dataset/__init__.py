# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets without LeRobot: write, read, validate."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

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

_HOME = {
    "FORMATS": "format",
    "DatasetFormat": "format",
    "DatasetInfo": "format",
    "DatasetWriter": "writer",
    "LeRobotDatasetReader": "reader",
    "VideoSettings": "video",
    "load_info": "format",
    "validate_dataset": "validate",
}


def __getattr__(name: str) -> Any:
    """Import what needs pyarrow or FFmpeg when it is asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
