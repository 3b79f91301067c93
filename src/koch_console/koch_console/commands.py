# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the page may ask for, and how a request is read. No ROS.

None of these is a joint goal: whatever moves the arm comes from a source that the guard knows. The
pad's words go to the follower's jog node, which is one.
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
#: What the pad moves: x, y, z of the TCP in base_link, pitch and roll of the hand, the gripper.
AXES = ("x", "y", "z", "pitch", "roll", "gripper")


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


@dataclass(frozen=True)
class PadWord:
    """What the pad asks of a follower's hand, some twenty times a second while it is pressed.

    Attributes:
        arm: The follower.
        shares: Of full speed, -1 to 1, of each axis that is pressed; none: the pad was let go.
    """

    arm: str
    shares: Mapping[str, float]


def read_request(text: str) -> PageRequest | PadWord:
    """Read `{"id": 1, "do": "torque", "with": {"arm": "follower", "on": true}}`.

    A word of the pad is `{"pad": {"arm": "follower", "x": 0.5, "roll": -0.5}}`.

    Raises:
        WrongRequest: It is something else.
    """
    try:
        message = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise WrongRequest("the message is no JSON") from exc
    if not isinstance(message, dict):
        raise WrongRequest(f"got {type(message).__name__}, expected an object with id and do")
    if "pad" in message:
        return _pad_word(message["pad"])
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


def _pad_word(word: Any) -> PadWord:
    if not isinstance(word, dict):
        raise WrongRequest(f"pad: got {type(word).__name__}, expected an object with arm")
    shares = dict(word)
    arm = _value("arm", Field(str), shares.pop("arm", None))
    for axis, share in shares.items():
        if axis not in AXES:
            raise WrongRequest(f"pad: got {axis!r:.60}, expected some of {', '.join(AXES)}")
        is_number = isinstance(share, (int, float)) and not isinstance(share, bool)
        if not is_number or not -1.0 <= share <= 1.0:  # neither NaN nor infinity is
            raise WrongRequest(f"pad: {axis}: got {share!r:.60}, expected -1 to 1")
    return PadWord(arm, {axis: float(share) for axis, share in shares.items()})


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
