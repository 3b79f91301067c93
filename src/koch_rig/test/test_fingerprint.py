# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The fingerprint changes with what changes data, and with nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from koch_rig.fingerprint import canonical, difference, fingerprint, plain_difference
from koch_rig.load import load_rig

WriteRig = Callable[..., Path]

SAME_DATA = [
    ("rig: bench", "rig: other"),
    ("rig: bench", "rig: bench\ntask: Fold the towel."),
    ("port: /dev/ttyUSB0", "port: /dev/ttyACM3"),
    ("port: /dev/ttyUSB0", "joint_prefix: left_, port: /dev/ttyUSB0"),
    ("calibration: leader.json", "calibration: elsewhere/leader.json"),
    ("source: 0", "source: http://camera/above.mjpeg"),
    ("fps: 30\n    mount", "fps: 30\n    intrinsics: above.yaml\n    mount"),
    ("xyz: [0.3, 0, 0.6]", "xyz: [0.3, -0.0, 0.6]"),
    ("rig: bench", "# a comment\nrig: bench"),
]

OTHER_DATA = [
    ("fps: 30\na", "fps: 15\na", "fps: 30 -> 15"),
    ("width: 640", "width: 320", "cameras.above.width: 640 -> 320"),
    ("sign: -1", "sign: 1", "arms.leader.joints.gripper.sign: -1 -> 1"),
    ("offset_rad: 0.5", "offset_rad: 0.6", "arms.leader.joints.gripper.offset_rad: 0.5 -> 0.6"),
    ("max_age_ms: 80", "max_age_ms: 90", "streams.cameras/above.max_age_s: 0.08 -> 0.09"),
    ("max_speed: 3.0", "max_speed: 2", "limits.max_speed: 3.0 -> 2.0"),
    (
        "xyz: [0.3, 0,",
        "xyz: [0.4, 0,",
        "cameras.above.mount.xyz: [0.3, 0.0, 0.6] -> [0.4, 0.0, 0.6]",
    ),
    (
        "  observation.state: {stream: follower/joint_states}\n",
        "",
        'features.observation.state.key: "observation.state" -> absent',
    ),
]


def test_form_is_stable_across_runs_and_machines(write_rig: WriteRig) -> None:
    first, second = load_rig(write_rig()), load_rig(write_rig())
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first).startswith("sha256:")
    assert len(fingerprint(first)) == 7 + 64
    assert difference(first, second) == []


@pytest.mark.parametrize(("old", "new"), SAME_DATA)
def test_places_names_and_comments_do_not_count(old: str, new: str, write_rig: WriteRig) -> None:
    first = load_rig(write_rig())
    second = load_rig(write_rig((old, new)))
    assert difference(first, second) == []
    assert fingerprint(first) == fingerprint(second)


@pytest.mark.parametrize(("old", "new", "line"), OTHER_DATA)
def test_what_changes_data_counts_and_is_readable(
    old: str, new: str, line: str, write_rig: WriteRig
) -> None:
    first = load_rig(write_rig())
    second = load_rig(write_rig((old, new)))
    assert line in difference(first, second)
    assert fingerprint(first) != fingerprint(second)


def test_canonical_form_survives_json(write_rig: WriteRig) -> None:
    form = canonical(load_rig(write_rig()))
    assert plain_difference(json.loads(json.dumps(form)), form) == []
