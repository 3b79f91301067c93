# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Replaying recorded motions through the guard."""

from koch_episodes.replay.motion import Motion, load_motion

__all__ = ["Motion", "load_motion"]
