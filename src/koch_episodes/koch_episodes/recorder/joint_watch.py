# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Notices when a JointState stream changes its joint names, without deserialising each message."""

from __future__ import annotations

from koch_core.errors import DecodeError
from koch_episodes.cdr import JointStateReader, is_little_endian


class JointWatch:
    """Compares the bytes in front of the positions (frame and names) with the first message's."""

    def __init__(self) -> None:
        self._first = b""
        self._names: tuple[str, ...] = ()

    def reset(self) -> None:
        """Take the next message as the reference."""
        self._first = b""

    def check(self, data: bytes) -> str:
        """Return what changed, empty where nothing did."""
        first = self._first
        if first and data[12 : 12 + len(first)] == first:
            return ""
        try:
            names, values = JointStateReader().read(data)
        except DecodeError as exc:
            return str(exc)
        if not is_little_endian(data) or len(values) != len(names):
            return f"{len(names)} names with {len(values)} positions"
        if first:
            return f"joints changed from {', '.join(self._names)} to {', '.join(names)}"
        end = data.rfind(names[-1].encode()) + len(names[-1]) if names else 12
        self._first, self._names = data[12:end], names
        return ""
