# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder node."""

from __future__ import annotations

from dataclasses import dataclass

from koch_core.options import same_as
from koch_episodes.bag.writer import DEFAULT_WRITER
from koch_ros.parameters import parameter
from koch_ros.shared_options import EPISODE_ROOT, RESET_TIME, RIG, START_TIMEOUT


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters; those marked live may be set while the node runs."""

    rig: str = same_as(RIG, "")
    root: str = same_as(EPISODE_ROOT, "")
    start_timeout_s: float = same_as(START_TIMEOUT, 10.0)
    reset_time_s: float = same_as(RESET_TIME, 0.0)
    discard_red: bool = parameter(False, "red episodes go to the trash", live=True)
    disk_reserve_mb: float = parameter(
        500.0, "recording stops when less than this is free [MB]", low=0.0, high=1e7
    )
    storage: str = parameter(
        DEFAULT_WRITER,
        "how bags are written: mcap, which loses two seconds at most to a crash; rosbag2, through "
        "rosbag2_py of a ROS installation and its default storage plug-in; or another package's",
    )
    highlight_s: float = parameter(
        30.0, "what the highlight buffer keeps of every topic [s]; 0: none", low=0.0, high=3600.0
    )
    highlight_mb: float = parameter(
        200.0, "the most memory that it takes [MB]; the oldest go first", low=1.0, high=1e5
    )
    extra_topics: tuple[str, ...] = parameter((), "more topics to record")
