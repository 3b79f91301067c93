# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Fault scripts: a YAML list of what happens when.

Example:
    - {at_s: 2.0, arm: follower, do: drop, with: [0.01]}
    - {at_s: 5.0, arm: follower, do: unplug}
    - {at_s: 10.0, arm: follower, do: replug}
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from koch_driver.emulator.faults import fault_actions
from koch_driver.errors import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koch_driver.emulator.faults import Faults

_KEYS = {"at_s", "arm", "do", "with"}


@dataclass(frozen=True)
class FaultEvent:
    """One line of a script."""

    at_s: float
    arm: str
    action: str
    arguments: tuple[object, ...]


def load_script(path: str | Path, arms: Mapping[str, Faults]) -> list[FaultEvent]:
    """Read a script, sorted by time.

    Args:
        path: YAML file.
        arms: Faults by arm name; the script may name no others.

    Raises:
        EmulatorError: Unreadable file, unknown key, arm or action.
    """
    try:
        lines = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as exc:
        raise EmulatorError(f"fault script {path}", str(exc), "a readable YAML list") from exc
    if not isinstance(lines, list):
        raise EmulatorError(f"fault script {path}", type(lines).__name__, "a list of events")
    events = [_event(path, k, line, arms) for k, line in enumerate(lines, start=1)]
    return sorted(events, key=lambda e: e.at_s)


def _event(path: str | Path, k: int, line: object, arms: Mapping[str, Faults]) -> FaultEvent:
    where = f"fault script {path}, event {k}"
    if not isinstance(line, dict) or not {"at_s", "arm", "do"} <= set(line) <= _KEYS:
        raise EmulatorError(where, line, "at_s, arm, do and perhaps 'with'")
    if line["arm"] not in arms:
        raise EmulatorError(f"{where}, arm", line["arm"], "one of " + ", ".join(arms))
    actions = fault_actions(arms[line["arm"]])
    if line["do"] not in actions:
        raise EmulatorError(f"{where}, do", line["do"], "one of " + ", ".join(actions))
    if not isinstance(line["at_s"], (int, float)) or isinstance(line["at_s"], bool):
        raise EmulatorError(f"{where}, at_s", line["at_s"], "seconds")
    arguments = line.get("with", [])
    if not isinstance(arguments, list):
        raise EmulatorError(f"{where}, with", arguments, "a list of arguments")
    return FaultEvent(float(line["at_s"]), line["arm"], line["do"], tuple(arguments))


def run_event(event: FaultEvent, arms: Mapping[str, Faults]) -> None:
    """Do what one event says.

    Raises:
        EmulatorError: The arguments do not fit the action.
    """
    try:
        fault_actions(arms[event.arm])[event.action](*event.arguments)
    except TypeError as exc:
        raise EmulatorError(f"fault {event.action}", event.arguments, str(exc)) from exc
