# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rig files for the tests of koch_rig."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest

# Bounded and repeatable: a failure on one machine is a failure on all.
hypothesis.settings.register_profile("koch", max_examples=60, deadline=None, derandomize=True)
hypothesis.settings.load_profile("koch")

RIG_TEXT = """\
rig: bench
fps: 30
arms:
  follower: {role: follower, port: /dev/ttyUSB0, calibration: follower.json}
  leader:
    role: leader
    drives: follower
    port: ${LEADER_PORT:-/dev/ttyUSB1}
    calibration: leader.json
    joints: {gripper: {sign: -1, offset_rad: 0.5}}
cameras:
  above:
    source: 0
    width: 640
    height: 480
    fps: 30
    mount: {parent: world, xyz: [0.3, 0, 0.6], rpy_deg: [180, 0, 90]}
limits: {max_speed: 3.0, table_z: 0.01}
streams:
  follower/joint_states: {max_age_ms: 50}
  cameras/above: {max_age_ms: 80, offset_ms: -20}
features:
  observation.state: {stream: follower/joint_states}
  observation.images.above: {stream: cameras/above}
  action: {stream: follower/joint_command}
"""


@pytest.fixture
def rig_text() -> str:
    """Text of the bench rig."""
    return RIG_TEXT


@pytest.fixture
def write_rig(tmp_path: Path) -> Callable[..., Path]:
    """Writes the bench rig with pieces of its text replaced."""

    def write(*replacements: tuple[str, str]) -> Path:
        text = RIG_TEXT
        for old, new in replacements:
            assert old in text, f"{old!r} does not stand in the rig text"
            text = text.replace(old, new)
        path = tmp_path / "rig.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write
