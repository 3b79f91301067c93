# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the validator found in a dataset."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field, replace
from pathlib import Path

_PARTICULARS = re.compile(r"'[^']*'|\[[^]]*\]|\S*[\d/]\S*")


class Severity(enum.Enum):
    """How bad a finding is."""

    ERROR = "error"  # LeRobot fails or reads wrong data
    WARNING = "warning"  # loads, but something else will miss it


@dataclass(frozen=True)
class Violation:
    """One broken rule.

    Attributes:
        severity: How bad.
        where: File, feature or episode.
        text: What was found and what was expected.
        more: How often the same was found elsewhere.
    """

    severity: Severity
    where: str
    text: str
    more: int = 0

    def __str__(self) -> str:
        """Return one line."""
        also = f" (and {self.more} more like it)" if self.more else ""
        return f"{self.severity.value}: {self.where}: {self.text}{also}"

    @property
    def kind(self) -> tuple[Severity, str]:
        """What findings of one rule share: the text without numbers, names and lists."""
        return self.severity, _PARTICULARS.sub("", f"{self.where}: {self.text}")


@dataclass
class Report:
    """All findings about one dataset."""

    root: Path
    findings: list[Violation] = field(default_factory=list)

    @property
    def errors(self) -> list[Violation]:
        """The findings that are no warnings."""
        return [found for found in self.findings if found.severity is Severity.ERROR]

    @property
    def ok(self) -> bool:
        """Whether there is no error."""
        return not self.errors

    def error(self, where: object, text: str) -> None:
        """Add an error."""
        self.findings.append(Violation(Severity.ERROR, str(where), text))

    def warning(self, where: object, text: str) -> None:
        """Add a warning."""
        self.findings.append(Violation(Severity.WARNING, str(where), text))

    def fold(self) -> None:
        """Leave the first finding of each kind, with the count of the others."""
        found: dict[tuple[Severity, str], Violation] = {}
        for finding in self.findings:
            first = found.setdefault(finding.kind, finding)
            if first is not finding:
                found[finding.kind] = replace(first, more=first.more + 1)
        self.findings = list(found.values())
