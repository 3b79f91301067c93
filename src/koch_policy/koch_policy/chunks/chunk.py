# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What goes into and comes out of one inference, on the grid of control ticks."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.float64]
RawRows = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Request:
    """An inference that begins.

    Attributes:
        number: Count of requests, to recognise the answer.
        tick: Tick of the observation.
        delay_steps: Steps that will pass before the chunk is usable, as estimated now; the new
            chunk's first `delay_steps` rows will not be executed.
        leftover: What is still to be executed, in the policy's own units, float32 (N, A), row i
            for tick + i; None when there is nothing, or the strategy does not guide.
    """

    number: int
    tick: int
    delay_steps: int
    leftover: RawRows | None


@dataclass(frozen=True, eq=False)
class Chunk:
    """Predicted actions.

    Attributes:
        tick: Tick of the observation they came from; row i is for tick + i.
        rows: float64 (T, A), [rad].
        raw: The same as a later inference is told to continue it, float32 (T, A).
    """

    tick: int
    rows: Rows
    raw: RawRows

    @property
    def end(self) -> int:
        """First tick without a row."""
        return self.tick + len(self.rows)


@dataclass(frozen=True)
class Arrival:
    """What became of a chunk.

    Attributes:
        entry: Row that is due at the tick at which the chunk became usable.
        rows: The chunk as it will be executed. The first one of a plan begins late where the arm
            stood still: its first row is repeated for the ticks that inference took.
        usable: False when the whole chunk is in the past, or belongs to a plan that was
            cleared in the meantime.
        delay_s: Time from the observation to the chunk [s].
    """

    entry: int
    rows: Rows
    usable: bool
    delay_s: float
