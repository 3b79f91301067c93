# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`--trim-idle`: shortens the rests of a demonstration.

A hand that rests shows the same image at the beginning of the rest and at its end, and nothing in
that image says when to go on. A policy that imitates rests waits as long as it likes.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from koch_episodes.convert.plan import Segment

#: What moves less than this part of the episode's widest motion rests; a hand's tremor is less.
REST_FRACTION = 0.01
_ACTION = "action"


def trimmed(segment: Segment, longest_s: float, fps: int) -> Segment:
    """Return a segment whose rests are no longer than a time; the first frames of each stay.

    What rests is told by the action alone, over all of its elements: a gripper that closes while
    the arm stands still is no rest. Both sides of a cut show the same pose.

    Args:
        segment: With an action; without one it is returned as it is.
        longest_s: Longest rest that stays, [s].
        fps: Frames per second.
    """
    action = segment.columns.get(_ACTION)
    frames = max(1, round(longest_s * fps))
    if action is None or len(action) <= frames + 1:
        return segment
    kept = ~_beyond(_resting(action, frames), frames)
    return replace(
        segment,
        ticks_ns=segment.ticks_ns[kept],
        columns={key: values[kept] for key, values in segment.columns.items()},
        numbers={key: numbers[kept] for key, numbers in segment.numbers.items()},
        stamps_ns={key: stamps[kept] for key, stamps in segment.stamps_ns.items()},
        trimmed=segment.trimmed + int((~kept).sum()),
    )


def _resting(action: npt.NDArray[np.float64], frames: int) -> npt.NDArray[np.bool_]:
    """Say which frames belong to a stretch of `frames` steps in which nothing moves, bool (T,)."""
    limit = REST_FRACTION * float(np.ptp(action, axis=0).max())
    windows = np.lib.stride_tricks.sliding_window_view(action, frames + 1, axis=0)  # (W, N, F)
    still = np.ptp(windows, axis=-1).max(axis=-1) < limit  # (W,), by first frame
    resting = np.zeros(len(action), dtype=bool)
    for offset in range(frames + 1):
        resting[offset : offset + len(still)] |= still
    return resting


def _beyond(resting: npt.NDArray[np.bool_], frames: int) -> npt.NDArray[np.bool_]:
    """Say which frames come later than `frames` after the beginning of their rest, bool (T,)."""
    place = np.arange(len(resting))
    begin = np.maximum.accumulate(np.where(resting, -1, place + 1))
    return resting & (place - np.maximum(begin, 0) >= frames)
