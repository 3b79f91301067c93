# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recording episodes: session, quality, storage; the node and the terminal client."""

from koch_core.health import Light
from koch_episodes.recorder.quality import Health, StreamMonitor
from koch_episodes.recorder.saved import StoreResult
from koch_episodes.recorder.session import RecorderPhase, RecorderSession, SessionSettings
from koch_episodes.recorder.store import EpisodeStore

__all__ = [
    "EpisodeStore",
    "Health",
    "Light",
    "RecorderPhase",
    "RecorderSession",
    "SessionSettings",
    "StoreResult",
    "StreamMonitor",
]
