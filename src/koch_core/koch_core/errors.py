# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The root of all errors of koch_vla, and the leaves of this package."""

from __future__ import annotations

from collections.abc import Iterable


class KochError(Exception):
    """Root of every error that koch_vla raises on purpose; its text is written for the user."""


class ShapeError(KochError):
    """An array has the wrong shape."""

    def __init__(self, what: str, *, got: tuple[int, ...], expected: str) -> None:
        super().__init__(f"{what}: got an array of shape {got}, expected {expected}.")


class DecodeError(KochError):
    """A message or image cannot be turned into a value."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}. The sample is treated as if it had not arrived.")
        self.why = why


class StreamUnknownError(KochError):
    """A feature names a stream that has no buffer."""

    def __init__(self, feature: str, stream: str, known: Iterable[str]) -> None:
        listed = ", ".join(sorted(known)) or "(none)"
        super().__init__(
            f"Feature {feature!r} needs stream {stream!r}, which nobody feeds; "
            f"known streams: {listed}. Correct the rig's 'features' or 'streams'."
        )
