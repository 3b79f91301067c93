# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A graph does not start beside nodes of its own names."""

from __future__ import annotations

import threading

import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor

from koch_vla.errors import NamesakesError
from koch_vla.node_spec import NodeSpec
from koch_vla.nodes.namesakes import refuse_namesakes, twins

pytestmark = pytest.mark.ros
DRIVER = NodeSpec("koch_driver", "follower", "driver", "/follower")
CAMERA = NodeSpec("koch_cameras", "camera", "above", "/cameras")


@pytest.fixture
def somebody():
    """Somebody's follower driver in this domain; yields its node and its executor."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    node = rclpy.create_node("driver", namespace="/follower", context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    yield node, executor
    executor.shutdown()
    node.destroy_node()
    rclpy.shutdown(context=context)


def test_a_live_node_of_the_same_name_is_named(somebody):
    node, executor = somebody
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    with pytest.raises(NamesakesError, match=r"/follower/driver\. Two"):
        refuse_namesakes([DRIVER, CAMERA])
    refuse_namesakes([CAMERA])
    assert twins(node, [DRIVER]) == set()
    second = rclpy.create_node("driver", namespace="/follower", context=node.context)
    assert twins(node, [DRIVER, CAMERA]) == {"follower/driver"}
    second.destroy_node()


def test_a_node_that_does_not_answer_any_more_is_no_hindrance(somebody):
    refuse_namesakes([DRIVER])  # nobody spins it: as one that was killed, it is only a name
