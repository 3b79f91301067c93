# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a check found: one line with its fix."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass


class Status(enum.Enum):
    """How bad a finding is."""

    OK = "OK"
    WARN = "WARN"
    FAIL = "FAIL"


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report.

    Attributes:
        check: What was looked at, such as "python" or "port /dev/ttyACM0".
        status: OK, WARN (something may not work) or FAIL (something will not).
        message: What was found.
        fix: What to do about it; empty only when the status is OK.
    """

    check: str
    status: Status
    message: str
    fix: str = ""

    def __post_init__(self) -> None:
        if self.status is not Status.OK and not self.fix:
            raise ValueError(f"finding {self.check!r} is {self.status.value} and names no fix")

    def as_json(self) -> dict[str, str]:
        """The finding as plain texts."""
        return {**asdict(self), "status": self.status.value}


def ok(check: str, message: str) -> Finding:
    """All well."""
    return Finding(check, Status.OK, message)


def warn(check: str, message: str, fix: str) -> Finding:
    """Something may not work."""
    return Finding(check, Status.WARN, message, fix)


def fail(check: str, message: str, fix: str) -> Finding:
    """Something will not work."""
    return Finding(check, Status.FAIL, message, fix)
