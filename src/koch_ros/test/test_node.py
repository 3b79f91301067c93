# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How a node's process ends when it cannot begin."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy", reason="source install/local_setup.bash first")

from rclpy.node import Node

from koch_core.errors import KochError
from koch_ros.node import EXIT_CONFIGURATION, run_node

pytestmark = pytest.mark.ros


def test_an_error_of_several_lines_is_one_message(capfd) -> None:
    def build() -> Node:
        raise KochError("the policy does not fit:\n  fps: 15, expected 30\nTrain again.")

    assert run_node(build, [], realtime=False) == EXIT_CONFIGURATION
    first, *more = capfd.readouterr().err.splitlines()
    assert first == "the policy does not fit:"
    assert [line.strip() for line in more] == ["fps: 15, expected 30", "Train again."]
    assert all(line.startswith("  ") for line in more), (
        "a reader would take it for another message"
    )
