# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The packet that writes all goal positions at once."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from koch_driver.bus.control_table import XL330_M288
from koch_driver.bus.packet import BROADCAST_ID, Instruction, build

if TYPE_CHECKING:
    from collections.abc import Sequence


class GoalWriter:
    """Builds the goal packet: everything but goals and CRC is constant."""

    def __init__(self, ids: Sequence[int]) -> None:
        goal = XL330_M288.register("Goal_Position")  # at the same place in all models
        self._head = struct.pack("<HH", goal.address, goal.length)
        self._format = struct.Struct("<" + "Bi" * len(ids))
        self._ids = ids

    def packet(self, ticks: Sequence[int]) -> bytes:
        """Sync write of Goal_Position."""
        values = [v for pair in zip(self._ids, ticks, strict=True) for v in pair]
        body = self._head + self._format.pack(*values)
        return build(BROADCAST_ID, Instruction.SYNC_WRITE, body)
