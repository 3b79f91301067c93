# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the guard's configuration; commands never raise, they are refused and counted."""

from __future__ import annotations

from koch_core.errors import KochError


class GuardConfigError(KochError):
    """A bound of the guard cannot be enforced."""

    def __init__(self, what: str, got: object, expected: str) -> None:
        super().__init__(
            f"guard: {what}: got {got}, expected {expected}; correct `limits` in the rig file"
        )
