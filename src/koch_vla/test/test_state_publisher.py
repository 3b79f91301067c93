# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The state publisher as a process: what it latches, what it sends for a joint state."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.ros


class Listener:
    """A node in a context of its own that hears everything the state publisher says."""

    def __init__(self):
        import rclpy
        from rclpy.executors import SingleThreadedExecutor
        from sensor_msgs.msg import JointState
        from std_msgs.msg import String
        from tf2_msgs.msg import TFMessage

        from koch_ros.qos import LATCHED
        from koch_vla.nodes.state_publisher import TRANSFORMS

        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.node = rclpy.create_node("listener", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.static, self.moving, self.texts = {}, [], {}
        self.node.create_subscription(TFMessage, "/tf", self.moving.append, TRANSFORMS)
        self.node.create_subscription(TFMessage, "/tf_static", self._on_static, LATCHED)
        for topic in (
            "/robot_description",
            "/follower/robot_description",
            "/leader/robot_description",
        ):
            self.node.create_subscription(String, topic, self._on_text(topic), LATCHED)
        self.states = self.node.create_publisher(JointState, "/follower/joint_states", 5)
        self.ghost = self.node.create_publisher(JointState, "/policy/ghost/joint_states", 5)

    def _on_static(self, message):
        self.static.update({t.child_frame_id: t for t in message.transforms})

    def _on_text(self, topic):
        def hear(message):
            self.texts[topic] = message.data

        return hear

    def wait(self, condition, timeout_s=20.0):
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, "nothing heard"
            self.executor.spin_once(timeout_sec=0.1)

    def spin(self, duration_s):
        deadline = time.monotonic() + duration_s
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)

    def send(self, names, positions, second):
        from sensor_msgs.msg import JointState

        message = JointState(name=names, position=positions)
        message.header.stamp.sec = second
        self.states.publish(message)

    def close(self):
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


def start(rig, *arguments):
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "koch_vla.nodes.state_publisher",
            "--ros-args",
            "-p",
            f"rig:={rig}",
            *arguments,
        ],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture
def listener():
    made = Listener()
    yield made
    made.close()


def test_it_latches_descriptions_and_turns_joint_states_into_transforms(write_rig, listener):
    process = start(write_rig())
    try:
        # The listener subscribes first or last, whichever; latched topics reach it either way.
        listener.wait(lambda: len(listener.texts) == 3 and listener.static)
        assert (
            listener.texts["/robot_description"] == listener.texts["/follower/robot_description"]
        )
        assert "leader/base_link" in listener.texts["/leader/robot_description"]
        assert listener.static["follower/base_link"].header.frame_id == "world"
        assert listener.static["leader/base_link"].transform.translation.y == pytest.approx(0.4)
        assert listener.static["above_optical_frame"].header.frame_id == "above_camera_link"
        assert "follower/jaw_link" not in listener.static

        listener.wait(lambda: listener.states.get_subscription_count() == 1)
        listener.send(["gripper", "wrist_roll"], [math.nan, 0.5], second=7)
        listener.wait(lambda: listener.moving)
        (transform,) = listener.moving[0].transforms  # the gripper's angle is not known
        assert transform.child_frame_id == "follower/gripper_link"
        assert transform.header.stamp.sec == 7
        assert transform.transform.rotation.x == pytest.approx(math.sin(0.25))
    finally:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output


def test_the_ghosts_of_two_arms_move_by_one_message(listener, repository):
    process = start(repository / "config" / "rig.two_arms.yaml")
    try:
        listener.wait(lambda: listener.ghost.get_subscription_count() == 1)
        from sensor_msgs.msg import JointState

        names = ["left_wrist_roll", "right_wrist_roll"]  # as the policy's layout

        def shown() -> bool:  # a message may precede the other side's discovery
            listener.ghost.publish(JointState(name=names, position=[0.5, -0.25]))
            return len(listener.moving) >= 2 and "ghost/right/base_link" in listener.static

        listener.wait(shown)
        turned = {
            each.child_frame_id: each.transform.rotation.x
            for message in listener.moving
            for each in message.transforms
        }
        assert turned == {
            "ghost/left/gripper_link": pytest.approx(math.sin(0.25)),
            "ghost/right/gripper_link": pytest.approx(math.sin(-0.125)),
        }
        for arm in ("left", "right"):
            assert listener.static[f"ghost/{arm}/base_link"].header.frame_id == "ghost/world"
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output


def test_the_ghost_appears_with_its_first_message(write_rig, listener):
    process = start(write_rig())
    try:
        listener.wait(lambda: listener.static)
        assert not any(name.startswith("ghost/") for name in listener.static)
        listener.wait(lambda: listener.ghost.get_subscription_count() == 1)
        from sensor_msgs.msg import JointState

        message = JointState(name=["wrist_roll"], position=[0.5])
        message.header.stamp.sec = 9
        listener.ghost.publish(message)
        listener.wait(lambda: listener.moving and "ghost/world" in listener.static)
        assert listener.static["ghost/world"].header.frame_id == "world"
        assert listener.static["ghost/follower/base_link"].header.frame_id == "ghost/world"
        assert listener.static["follower/base_link"].header.frame_id == "world"
        (transform,) = listener.moving[0].transforms
        assert transform.child_frame_id == "ghost/follower/gripper_link"
        assert transform.header.frame_id == "ghost/follower/wrist_link"
        assert transform.header.stamp.sec == 9
        listener.spin(0.3)
        assert len(listener.moving) == 1  # it does not move by itself
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output


def test_many_joint_states_are_thinned_to_the_publishing_rate(write_rig, listener):
    process = start(write_rig(), "-p", "publish_frequency:=10.0")
    try:
        listener.wait(lambda: listener.states.get_subscription_count() == 1)
        started = time.monotonic()
        for index in range(100):
            listener.send(["gripper"], [0.0], second=index)
            listener.spin(0.01)
        listener.spin(0.2)
        periods = (time.monotonic() - started) * 10.0
    finally:
        process.terminate()
        output, _ = process.communicate(timeout=20)
    assert process.returncode == 0, output
    assert 3 <= len(listener.moving) <= 1.1 * periods + 2  # of 100 that were sent


def test_a_wrong_rig_gives_one_message_and_exit_code_2(tmp_path):
    process = start(tmp_path / "nowhere.yaml")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2
    assert "nowhere.yaml" in output
    assert "Traceback" not in output
