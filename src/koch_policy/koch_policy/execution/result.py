# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Why a run ended."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class StopReason(enum.IntEnum):
    """The numbers are those of koch_interfaces/action/RunPolicy."""

    FINISHED = 0
    CANCELLED = 1
    STALE_STREAM = 2
    POLICY_ERROR = 3
    MISMATCH = 4
    REFUSED = 5


@dataclass(frozen=True)
class RunResult:
    """The end of a run: the first cause, in words that name stream or joint."""

    cause: StopReason
    reason: str

    @property
    def is_fault(self) -> bool:
        """True unless the run ended as asked."""
        return self.cause not in (StopReason.FINISHED, StopReason.CANCELLED)
