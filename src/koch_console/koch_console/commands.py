# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the page may ask for, and how a request is read. No ROS.

None of these is a joint goal: whatever moves the arm comes from a source that the guard knows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from koch_core.errors import KochError
from koch_core.wording import is_whole

_LONGEST_TEXT = 500
_LONGEST_TIME_S = 86400.0


class WrongRequest(KochError):
    """A message of a browser is no request."""


@dataclass(frozen=True)
class Field:
    """A value that a request carries.

    Attributes:
        kind: str, bool or float.
        default: Value where it is missing; None: it may not be.
    """

    kind: type
    default: Any = None


_ARM = {"arm": Field(str)}
_SWITCH = {**_ARM, "on": Field(bool)}
#: Each request by name, with its fields. `docs/console.md` says which service each one calls.
COMMANDS: Mapping[str, Mapping[str, Field]] = {
    "stop": {},
    "resume": _ARM,
    "torque": _SWITCH,
    "home": _ARM,
    "teleop": _SWITCH,
    "record.start": {"task": Field(str, ""), "duration_s": Field(float, 0.0)},
    "record.stop": {"outcome": Field(str, "")},
    "record.redo": {"task": Field(str, ""), "duration_s": Field(float, 0.0)},
    "record.discard": {},
    "record.undo": {},
    "policy.run": {"task": Field(str, ""), "max_duration_s": Field(float, 0.0)},
    "policy.pause": {},
    "policy.resume": {},
    "policy.stop": {},
    "world.reset": {},
    "world.demonstrate": {},
}


@dataclass(frozen=True)
class PageRequest:
    """One press of a button.

    Attributes:
        number: Chosen by the page, for the answer.
        name: A key of COMMANDS.
        values: Its fields.
    """

    number: int
    name: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class PageAnswer:
    """What became of it: a sentence for the person who pressed."""

    success: bool
    text: str


def read_request(text: str) -> PageRequest:
    """Read `{"id": 1, "do": "torque", "with": {"arm": "follower", "on": true}}`.

    Raises:
        WrongRequest: It is something else.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise WrongRequest("the message is no JSON") from exc
    if not isinstance(message, dict):
        raise WrongRequest(f"got {type(message).__name__}, expected an object with id and do")
    number, name, values = message.get("id"), message.get("do"), message.get("with", {})
    if not isinstance(number, int) or isinstance(number, bool):
        raise WrongRequest(f"id: got {number!r:.60}, expected a whole number")
    if not isinstance(name, str) or name not in COMMANDS:
        raise WrongRequest(f"do: got {name!r:.60}, expected one of {', '.join(COMMANDS)}")
    if not isinstance(values, dict):
        raise WrongRequest(f"with: got {type(values).__name__}, expected an object")
    fields = COMMANDS[name]
    for key in values:
        if key not in fields:
            raise WrongRequest(f"with: {name} has no {key!r:.60}")
    return PageRequest(
        number, name, {key: _value(key, item, values.get(key)) for key, item in fields.items()}
    )


def _value(key: str, field: Field, got: Any) -> Any:
    if got is None:
        if field.default is None:
            raise WrongRequest(f"with: {key} is missing")
        return field.default
    if field.kind is float and isinstance(got, (int, float)) and not isinstance(got, bool):
        if 0.0 <= got <= _LONGEST_TIME_S:  # neither NaN nor infinity is
            return float(got)
        raise WrongRequest(f"with: {key}: got {got!r:.60}, expected 0 to {_LONGEST_TIME_S:.0f}")
    if not isinstance(got, field.kind):
        raise WrongRequest(f"with: {key}: got {got!r:.60}, expected {field.kind.__name__}")
    if isinstance(got, str) and not is_whole(got):
        raise WrongRequest(f"with: {key}: got {got!r:.60}, expected whole characters")
    if isinstance(got, str) and len(got) > _LONGEST_TEXT:
        raise WrongRequest(f"with: {key}: {len(got)} characters, expected {_LONGEST_TEXT} or less")
    return got
