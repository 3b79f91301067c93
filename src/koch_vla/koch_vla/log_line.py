# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A line that a node wrote: ROS's own prefix taken apart, and the last thing that was said."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

# rcutils' default form, "[{severity}] [{time}] [{name}]: {message}". Source: rcutils logging.c,
# RCUTILS_LOGGING_DEFAULT_OUTPUT_FORMAT.
_PREFIX = re.compile(
    r"(?:\033\[[0-9;]*m)?\[(DEBUG|INFO|WARN|ERROR|FATAL)\] \[(\d+)\.\d+\] \[[^\]]*\]: ?"
    r"(.*?)(?:\033\[0m)?"
)
QUIET = ("", "INFO")
LONGEST_MESSAGE = 20  # lines


@dataclass(frozen=True)
class LogLine:
    """One line of a node's output.

    Attributes:
        when_s: When it was written, seconds since 1970; None where the line does not say.
        level: DEBUG to FATAL, empty where the line does not say.
        text: What is left.
    """

    when_s: float | None
    level: str
    text: str

    @property
    def words(self) -> str:
        """Level and text; a level that says nothing is left out."""
        return self.text if self.level in QUIET else f"{self.level} {self.text}"


def parse(line: str) -> LogLine:
    """Take a line apart."""
    found = _PREFIX.fullmatch(line)
    if found is None:
        return LogLine(None, "", line)
    return LogLine(float(found[2]), found[1], found[3])


def time_of_day(when_s: float) -> str:
    """Hours, minutes and seconds of the local time."""
    return time.strftime("%H:%M:%S", time.localtime(when_s))


def last_message(lines: Iterable[str]) -> str:
    """The last message of an output: its last line, and what it is indented under.

    Of a traceback that is the exception, of a KochError the whole of it.
    """
    message: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        if line[:1].isspace() and message:
            message = [*message, line][-LONGEST_MESSAGE:]
        else:
            message = [parse(line).text]
    return "\n".join(message)
