# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder node."""

from __future__ import annotations

from dataclasses import dataclass

from koch_ros.parameters import parameter


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters; those marked live may be set while the node runs."""

    rig: str = parameter("", "path of the rig file", required=True)
    root: str = parameter("", "folder of the episodes; empty: ~/koch_episodes/<rig>")
    start_timeout_s: float = parameter(
        10.0, "how long a start waits for dead streams [s]", live=True, low=0.1, high=3600.0
    )
    reset_time_s: float = parameter(
        0.0, "pause behind each episode [s]; a start ends it", live=True, low=0.0, high=3600.0
    )
    discard_red: bool = parameter(False, "red episodes go to the trash", live=True)
    disk_reserve_mb: float = parameter(
        500.0, "recording stops when less than this is free [MB]", low=0.0, high=1e7
    )
    extra_topics: tuple[str, ...] = parameter((), "more topics to record")
