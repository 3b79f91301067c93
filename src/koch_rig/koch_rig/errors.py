# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of koch_rig; every leaf builds its own message."""

from __future__ import annotations

from pathlib import Path

from koch_core.errors import KochError


class RigError(KochError):
    """The rig file cannot be used.

    Attributes:
        path: The rig file.
        key: Dotted key path inside the file, empty for the whole file.
        line: One-based line in the file, or None.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        key: str = "",
        got: str,
        expected: str,
        hint: str = "",
        line: int | None = None,
    ) -> None:
        self.path = Path(path)
        self.key = key
        self.line = line
        where = str(path) if line is None else f"{path}:{line}"
        subject = f"{key}: " if key else ""
        text = f"{where}: {subject}got {got}, expected {expected}"
        super().__init__(f"{text}. {hint}" if hint else text)


class CalibrationError(KochError):
    """A LeRobot calibration file is missing, unreadable or incomplete."""

    def __init__(
        self, path: Path | str, *, key: str = "", got: str, expected: str, hint: str = ""
    ) -> None:
        self.path = Path(path)
        self.key = key
        subject = f"{key}: " if key else ""
        text = f"{path}: {subject}got {got}, expected {expected}"
        super().__init__(f"{text}. {hint}" if hint else text)


class GeometryError(KochError):
    """Numbers do not describe a rotation, a transform or a point in front of a camera."""

    def __init__(self, what: str, *, got: str, expected: str) -> None:
        super().__init__(f"{what}: got {got}, expected {expected}.")


class ModelError(KochError):
    """The robot description cannot be found or processed."""

    def __init__(self, what: str, *, got: str, expected: str, hint: str = "") -> None:
        text = f"{what}: got {got}, expected {expected}"
        super().__init__(f"{text}. {hint}" if hint else text)
