# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What other packages know of this computer: findings with their fixes, as in `koch doctor`.

A package announces a check as an entry point: a callable (folder of episodes, rig file) that
yields findings with `as_json()`. So the console knows nothing of who looks.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

GROUP = "koch_vla.machine_checks"
_LIGHTS = {"OK": "green", "WARN": "amber", "FAIL": "red"}


def examine_machine(folder: Path, rig: Path) -> list[Mapping[str, str]]:
    """Run all checks: what, light, text and fix of each finding. Takes seconds."""
    found: list[Mapping[str, str]] = []
    for entry in entry_points(group=GROUP):
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
