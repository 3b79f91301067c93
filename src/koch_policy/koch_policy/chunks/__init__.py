# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk execution: which step of which predicted chunk is due now. ROS-free, torch only in rtc."""

from koch_policy.chunks.chunk import Arrival, Chunk, Request
from koch_policy.chunks.scheduler import ChunkScheduler, DelayQuantile, Grid
from koch_policy.chunks.strategies import (
    Ensemble,
    Fading,
    Strategy,
    StrategyKind,
    chosen_execution,
    make_strategy,
)

__all__ = [
    "Arrival",
    "Chunk",
    "ChunkScheduler",
    "DelayQuantile",
    "Ensemble",
    "Fading",
    "Grid",
    "Request",
    "Strategy",
    "StrategyKind",
    "chosen_execution",
    "make_strategy",
]
