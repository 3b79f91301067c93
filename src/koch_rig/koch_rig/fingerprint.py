# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The identity of a rig as far as its data are concerned, and what differs between two rigs."""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.rig import Arm, Camera, Rig, SimulationSettings
from koch_rig.stream import Stream

_LEFT_OUT: Mapping[type, frozenset[str]] = {
    # Names, texts, and where things are found: they do not change what is recorded.
    Rig: frozenset({"name", "task", "path", "text"}),
    Arm: frozenset({"port", "calibration_path", "joint_prefix", "model", "bus"}),
    Camera: frozenset({"source", "intrinsics_path"}),
    SimulationSettings: frozenset({"seed", "spread_fraction", "arm_model_path"}),
    Stream: frozenset({"content"}),  # follows from names that are said already
}
# Said only where it is not as usual, so that the fingerprints of older rigs stay what they were.
_LEFT_OUT_IF_UNSET: Mapping[type, frozenset[str]] = {
    Arm: frozenset({"delay_s"}),
    Stream: frozenset({"holds"}),
}
_DIGITS = 9  # decimals kept of a number; hides the rounding of degrees to radians


def canonical(rig: Rig) -> dict[str, Any]:
    """All that changes the data of a rig, as plain JSON values, joints in their arm's order.

    Ports, URLs, paths, the calibration's content, names and the default task are left out; the
    calibration is stored beside the data instead.
    """
    content = _plain(rig)
    assert isinstance(content, dict)
    for feature in content["features"].values():
        # One stream is a text, as it was before a feature could join several.
        streams = feature.pop("streams")
        feature["stream"] = streams[0] if len(streams) == 1 else streams
    for arm in rig.arms.values():
        if arm.model is not KOCH_V1_1:  # as above: said only where it is not as usual
            content["arms"][arm.name]["model"] = arm.model.name
    joints = dict.fromkeys(joint for arm in rig.arms.values() for joint in arm.model.joints)
    return {"joint_names": list(joints), **content}


def fingerprint(rig: Rig) -> str:
    """Hash of `canonical`: "sha256:" and 64 hexadecimal digits."""
    text = json.dumps(canonical(rig), sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def difference(first: Rig, second: Rig) -> list[str]:
    """What differs in the data of two rigs: lines such as "cameras.above.width: 640 -> 480"."""
    return plain_difference(canonical(first), canonical(second))


def plain_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """What differs between two `canonical` forms, for instance of a bag's and today's rig."""
    left, right = _flat(first, ""), _flat(second, "")
    lines = []
    for key in [*left, *(key for key in right if key not in left)]:
        before, after = left.get(key, "absent"), right.get(key, "absent")
        if before != after:
            lines.append(f"{key}: {before} -> {after}")
    return lines


def _plain(value: object) -> Any:
    """Dataclasses, mappings, enums and tuples as JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        unset = {
            name
            for name in _LEFT_OUT_IF_UNSET.get(type(value), frozenset())
            if not getattr(value, name)
        }
        out = _LEFT_OUT.get(type(value), frozenset()) | unset
        return {
            field.name: _plain(getattr(value, field.name))
            for field in fields(value)
            if field.name not in out
        }
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float):
        return round(value, _DIGITS) + 0.0  # + 0.0 turns -0.0 into 0.0
    return value


def _flat(value: object, key: str) -> dict[str, str]:
    """Nested mappings as dotted keys; lists and scalars as JSON text."""
    if isinstance(value, Mapping) and value:
        result = {}
        for name, item in value.items():
            result.update(_flat(item, f"{key}.{name}" if key else str(name)))
        return result
    return {key: json.dumps(value)}
