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
from typing import TYPE_CHECKING, Any

import yaml

from koch_core.options import OptionModel, option, read
from koch_driver.emulator.faults import fault_actions
from koch_driver.errors import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from koch_driver.emulator.faults import Faults

_FIELDS = {"do": "action", "with": "arguments"}  # the words of a script that are called otherwise


@dataclass(frozen=True)
class FaultEvent(OptionModel):
    """One line of a script."""

    at_s: float = option(..., "when", expected="at_s: seconds")
    arm: str = option(..., "whose chain")
    action: str = option(..., "do: what happens")
    arguments: tuple[Any, ...] = option((), "of the action", expected="a list of arguments")


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

    def refuse(key: str, got: object, expected: str, hint: str) -> EmulatorError:
        return EmulatorError(f"{where}, {key}", got, expected)

    if isinstance(line, dict):
        line = {_FIELDS.get(key, key): value for key, value in line.items()}
    event = read(FaultEvent, line, refuse)
    if event.arm not in arms:
        raise EmulatorError(f"{where}, arm", event.arm, "one of " + ", ".join(arms))
    actions = fault_actions(arms[event.arm])
    if event.action not in actions:
        raise EmulatorError(f"{where}, do", event.action, "one of " + ", ".join(actions))
    return event


def run_event(event: FaultEvent, arms: Mapping[str, Faults]) -> None:
    """Do what one event says.

    Raises:
        EmulatorError: The arguments do not fit the action.
    """
    try:
        fault_actions(arms[event.arm])[event.action](*event.arguments)
    except TypeError as exc:
        raise EmulatorError(f"fault {event.action}", event.arguments, str(exc)) from exc
