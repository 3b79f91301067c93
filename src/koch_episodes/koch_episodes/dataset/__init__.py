# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot datasets without LeRobot: write, read, validate."""

from koch_episodes.dataset.layout import Codec, DatasetInfo, FeatureSpec, Version, load_info
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_episodes.dataset.validate import validate_dataset
from koch_episodes.dataset.video import VideoSettings
from koch_episodes.dataset.writer import DatasetWriter

__all__ = [
    "Codec",
    "DatasetInfo",
    "DatasetWriter",
    "FeatureSpec",
    "LeRobotDatasetReader",
    "Version",
    "VideoSettings",
    "load_info",
    "validate_dataset",
]
