# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""QoS profiles as rosbag2's metadata (version 9) writes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_ENDLESS = {"sec": 9223372036, "nsec": 854775807}


@dataclass(frozen=True)
class OfferedQos:
    """What a publisher offers.

    Attributes:
        reliable: Reliable, else best effort.
        latched: Transient local, else volatile.
        depth: History depth; 0 where discovery did not tell it.
    """

    reliable: bool = True
    latched: bool = False
    depth: int = 0


def plain(profiles: Sequence[OfferedQos]) -> list[dict[str, object]]:
    """Profiles as YAML-able values."""
    return [
        {
            "history": "keep_last" if profile.depth else "unknown",
            "depth": profile.depth,
            "reliability": "reliable" if profile.reliable else "best_effort",
            "durability": "transient_local" if profile.latched else "volatile",
            "deadline": dict(_ENDLESS),
            "lifespan": dict(_ENDLESS),
            "liveliness": "automatic",
            "liveliness_lease_duration": dict(_ENDLESS),
            "avoid_ros_namespace_conventions": False,
        }
        for profile in profiles
    ]
