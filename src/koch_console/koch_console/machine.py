# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What other packages tell the page: findings about this computer, training runs, `koch` itself.

They announce functions as entry points, so that the console knows nothing of them:

- `koch_vla.machine_checks`: (folder of episodes, rig file) -> findings with `as_json()`;
- `koch_vla.training_runs`: (folder) -> runs as plain data, see `koch_policy.runs_cli`;
- `koch_vla.command_line`: () -> the words that start the `koch` command, for long work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

CHECKS = "koch_vla.machine_checks"
RUNS = "koch_vla.training_runs"
COMMAND = "koch_vla.command_line"
_LIGHTS = {"OK": "green", "WARN": "amber", "FAIL": "red"}


def examine_machine(folder: Path, rig: Path) -> list[Mapping[str, str]]:
    """Run all checks: what, light, text and fix of each finding. Takes seconds."""
    found: list[Mapping[str, str]] = []
    for entry in entry_points(group=CHECKS):
        for finding in entry.load()(folder, rig):
            said = finding.as_json()
            found.append(
                {
                    "what": said["check"],
                    "light": _LIGHTS.get(said["status"], "red"),
                    "text": said["message"],
                    "fix": said["fix"],
                }
            )
    return found


def training_runs(folder: Path) -> list[Mapping[str, Any]]:
    """All training runs below a folder."""
    return [run for entry in entry_points(group=RUNS) for run in entry.load()(folder)]


def koch_command() -> Sequence[str]:
    """Words that start the `koch` command; none where it is not installed."""
    for entry in entry_points(group=COMMAND):
        return tuple(str(word) for word in entry.load()())
    return ()
