# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rigs and nodes for the tests of the bring-up package."""

from __future__ import annotations

from pathlib import Path

import pytest

from koch_vla.node_spec import NodeSpec

RIG = """
rig: bench
fps: 30
task: "Pick up the block."
robot_type: koch_follower
{simulation}
arms:
  follower: {{role: follower, port: /dev/null, calibration: follower.json,
             base: {{parent: world, xyz: [0, 0, 0], rpy_deg: [0, 0, 0]}}}}
  leader: {{role: leader, drives: follower, port: /dev/null, calibration: leader.json,
           base: {{parent: world, xyz: [0, 0.4, 0], rpy_deg: [0, 0, 0]}}}}
cameras:
  above: {{source: 0, width: 640, height: 480, fps: 30,
          mount: {{parent: world, xyz: [0.3, 0, 0.6], rpy_deg: [180, 0, 90]}}}}
  wrist: {{source: 1, width: 640, height: 480, fps: 30,
          mount: {{parent: follower/gripper_link, xyz: [0, 0, 0.05], rpy_deg: [0, 0, 0]}}}}
limits: {{max_speed: 3.0, max_acceleration: 20.0, table_z: 0.0,
         command_timeout_s: 0.3, max_command_age_ms: 200}}
streams:
  follower/joint_states: {{max_age_ms: 50}}
  follower/joint_command: {{max_age_ms: 100}}
features:
  observation.state: {{stream: follower/joint_states}}
  action: {{stream: follower/joint_command}}
"""


@pytest.fixture
def write_rig(tmp_path: Path):
    """Return a function that writes a rig file with two arms and two cameras."""

    def write(simulation: str = "") -> Path:
        path = tmp_path / "rig.yaml"
        path.write_text(RIG.format(simulation=simulation))
        return path

    return write


@pytest.fixture
def calibrated(write_rig, repository: Path):
    """Return a function that writes a rig file, and the calibrations of its arms beside it."""

    def write(simulation: str = "") -> Path:
        path = write_rig(simulation)
        for arm in ("follower", "leader"):
            source = repository / f"config/calibration/sim_{arm}.json"
            (path.parent / f"{arm}.json").write_text(source.read_text())
        return path

    return write


@pytest.fixture
def script(tmp_path: Path):
    """Return a function that makes a node out of Python source."""

    def make(name: str, source: str, **changes: object) -> NodeSpec:
        path = tmp_path / f"{name}.py"
        path.write_text(source)
        fields: dict[str, object] = {"respawn": False, "arguments": (str(path),), **changes}
        return NodeSpec("scripts", name, name, **fields)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def repository() -> Path:
    """Top of the repository."""
    return Path(__file__).resolve().parents[3]
