# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The example package in Python moves the emulated follower and says what it did."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from koch_rig.arm_model import KOCH_V1_1

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timing]
NOD = Path(__file__).resolve().parents[4] / "examples/koch_example_py/koch_example_py/nod.py"
WRIST = KOCH_V1_1.joints.index("wrist_flex")


def test_the_wrist_goes_down_and_up_and_back(probe):
    start = probe.pose[WRIST]
    done = subprocess.run(
        [sys.executable, str(NOD), "--ros-args", "-r", "__ns:=/follower"],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "arrived: wrist_flex is 0.0" in done.stderr
    angles = [state.position[WRIST] - start for state in probe.states]
    assert max(angles) > 0.2
    assert min(angles) < -0.2
    assert abs(angles[-1]) < 0.05


def test_a_refused_goal_ends_with_a_failure(probe):
    assert probe.ask("stop").success
    done = subprocess.run(
        [sys.executable, str(NOD), "--ros-args", "-r", "__ns:=/follower"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert "refused" in done.stderr or "not done" in done.stderr
