# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a set-up is asked for, and the record of the last one."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from .errors import UnknownPartError

DISTROS = ("kilted", "jazzy")
# What may be left out, with the package that needs it.
PARTS = {"console": "koch_console", "policy": "koch_policy", "sim": "koch_sim"}
# What serves nothing without that part.
_EXTRAS = {"policy": ("koch_fastconv",)}


@dataclass(frozen=True)
class Options:
    """Choices of one set-up."""

    home: str = "bare"
    """bare: rclpy from wheels; ros: rclpy of the sourced ROS."""
    distro: str = "kilted"
    without: tuple[str, ...] = ()

    @property
    def skipped_packages(self) -> tuple[str, ...]:
        """ROS packages that are not built."""
        extras = (name for part in self.without for name in _EXTRAS.get(part, ()))
        return (*(PARTS[part] for part in self.without), *extras)


@dataclass(frozen=True)
class Record:
    """What the last set-up finished: the options and a digest for each step."""

    options: Options
    wheels: str = ""
    build: str = ""


def parse_without(text: str) -> tuple[str, ...]:
    """Read "policy,sim" or "none".

    Raises:
        UnknownPartError: A part has another name.
    """
    parts = sorted({part.strip() for part in text.split(",") if part.strip() not in ("", "none")})
    for part in parts:
        if part not in PARTS:
            raise UnknownPartError(part, sorted(PARTS))
    return tuple(parts)


def choose(
    record: Record | None, distro: str | None, without: str | None, ros_distro: str | None
) -> Options:
    """Combine the command line with the last set-up; what is not asked for stays as it was.

    Args:
        record: Of the last set-up, if any.
        distro: From the command line.
        without: From the command line.
        ros_distro: Distribution of the sourced ROS that brings rclpy; None: there is none.
    """
    options = record.options if record is not None else Options()
    if ros_distro is not None:
        options = replace(options, home="ros", distro=ros_distro)
    elif options.home == "ros":
        options = replace(options, home="bare", distro=Options.distro)
    if distro is not None:
        options = replace(options, distro=distro)
    if without is not None:
        options = replace(options, without=parse_without(without))
    return options


def record_path(root: Path) -> Path:
    """The record is in the virtual environment, so that deleting that resets everything."""
    return root / ".venv" / "koch_setup.json"


def read_record(root: Path) -> Record | None:
    """Return the record of the last set-up; None when there is none or it is unreadable."""
    try:
        values = json.loads(record_path(root).read_text(encoding="utf-8"))
        options = values.pop("options")
        options["without"] = tuple(options["without"])
        return Record(options=Options(**options), **values)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(root: Path, record: Record) -> None:
    """Write the record, whole or not at all."""
    path = record_path(root)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
    os.replace(temporary, path)
