# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The world node over DDS."""

import socket
import threading
import time

import pytest

pytest.importorskip("koch_interfaces", reason="source install/local_setup.bash first")

import rclpy
from koch_interfaces.msg import NamedVector
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from koch_sim.nodes.world import WorldNode

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.alone]


@pytest.fixture
def world_node(rig, monkeypatch):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KOCH_SIM_PORT", str(probe.getsockname()[1]))
    arguments = ["--ros-args", "-p", f"rig:={rig.path}"]
    rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    node = WorldNode()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(5.0)
    node.close()
    node.destroy_node()
    rclpy.try_shutdown()


def test_truth_goes_on_while_a_demonstration_is_planned(world_node, monkeypatch):
    planning = threading.Event()

    def plan() -> None:
        planning.set()
        time.sleep(1.0)

    monkeypatch.setattr(world_node.simulation.world, "demonstrate", plan)
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    listener = rclpy.create_node("listener", context=context)
    heard = []
    listener.create_subscription(
        NamedVector, "/sim/environment_state", lambda _: heard.append(planning.is_set()), 10
    )
    client = listener.create_client(Trigger, "/sim/demonstrate")
    assert client.wait_for_service(10.0)
    future = client.call_async(Trigger.Request())
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(listener)
    executor.spin_until_future_complete(future, timeout_sec=20.0)
    assert future.done()
    assert future.result().success
    assert sum(heard) > 10  # of fifty a second; none with the executor in the planner
    executor.shutdown()
    listener.destroy_node()
    context.try_shutdown()
