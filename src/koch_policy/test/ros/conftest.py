# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node over DDS, with a stand-in for arm and camera that tests can kill."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("koch_interfaces.msg", reason="source install/local_setup.bash first")

import rclpy
import simplejpeg
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import ActionChunk, EpisodeEvent, PolicyStatus
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CompressedImage, JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.execution import StopReason
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.nodes.policy import PolicyNode
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

CONFIG = Path(__file__).resolve().parents[4] / "config"
INPUTS = {
    "observation.state": PolicyFeature(FeatureType.STATE, (J,)),
    "observation.images.above": PolicyFeature(FeatureType.VISUAL, (3, 48, 64)),
}
PATIENCE_S = 20.0  # for loaded machines; nothing waits so long when it works


def rig_file(folder: Path, width: int = 64) -> Path:
    """The emulated rig with a camera; ages that a loaded test machine keeps."""
    text = (CONFIG / "rig.emulated.yaml").read_text(encoding="utf-8")
    text = text.replace("calibration: calibration/", f"calibration: {CONFIG}/calibration/")
    text = text.replace("max_age_ms: 50", "max_age_ms: 400").replace(
        "streams:\n",
        f"cameras:\n  above: {{source: 0, width: {width}, height: 48, fps: 30}}\n"
        "streams:\n  cameras/above: {max_age_ms: 400}\n",
    )
    text = text.replace(
        "features:\n", "features:\n  observation.images.above: {stream: cameras/above}\n"
    )
    path = folder / "rig.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def wait_for(condition: Callable[[], Any], seconds: float = PATIENCE_S) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


class Spinner:
    """A node in a thread of its own."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(node)
        self.thread = threading.Thread(target=self.executor.spin, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.executor.shutdown(timeout_sec=2.0)
        self.thread.join(2.0)
        self.node.destroy_node()


def ns(stamp: Any) -> int:
    """A ROS time as nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


class Probe(Node):
    """Arm, camera, leader and client in one.

    Args:
        prefix: Namespace of everything.
        clock: Gives the stamps [ns]; one that is not the computer's is published on /clock.
    """

    def __init__(self, prefix: str = "", clock: Callable[[], int] = time.time_ns) -> None:
        super().__init__("probe", namespace=prefix or None)
        self._clock_ns = clock
        self._clock_topic = (
            None if clock is time.time_ns else self.create_publisher(Clock, "/clock", 5)
        )
        self.arm_alive = self.camera_alive = True
        self.human_drives = False
        self.pose = [0.0] * J
        self.stamps: set[int] = set()  # of what was published [ns]
        self.commands: list[JointState] = []
        self.chunks: list[ActionChunk] = []
        self.statuses: list[PolicyStatus] = []
        self.ghosts: list[JointState] = []
        self.events: list[EpisodeEvent] = []
        many = QoSProfile(depth=1000)
        self.create_subscription(
            JointState, f"{prefix}/follower/command/policy", self._on_command, many
        )
        for kind, topic, target in (
            (ActionChunk, f"{prefix}/policy/action_chunk", self.chunks),
            (PolicyStatus, f"{prefix}/policy/status", self.statuses),
            (JointState, f"{prefix}/policy/ghost/joint_states", self.ghosts),
            (EpisodeEvent, f"{prefix}/episodes/events", self.events),
        ):
            self.create_subscription(kind, topic, target.append, many)
        self._states = self.create_publisher(JointState, f"{prefix}/follower/joint_states", 5)
        self._goals = self.create_publisher(JointState, f"{prefix}/follower/joint_command", 5)
        self._teleop = self.create_publisher(JointState, f"{prefix}/follower/command/teleop", 1)
        topic = f"{prefix}/cameras/above/image_raw/compressed"
        self._images = self.create_publisher(CompressedImage, topic, 5)
        draw = np.random.default_rng(0)
        image = draw.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        self._jpeg = simplejpeg.encode_jpeg(image, quality=90)
        self.client = ActionClient(self, RunPolicy, f"{prefix}/policy/run")
        self.pause = self.create_client(Trigger, f"{prefix}/policy/pause")
        self.resume = self.create_client(Trigger, f"{prefix}/policy/resume")
        self.task = self.create_publisher(String, f"{prefix}/policy/task", 1)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._feed, daemon=True)
        self._thread.start()

    def _on_command(self, message: JointState) -> None:
        self.commands.append(message)
        self.pose = list(message.position)

    def _feed(self) -> None:
        while not self._closing.wait(0.02):
            now = self._clock_ns()
            self.stamps.add(now)
            joints = JointState(name=list(KOCH_V1_1.joints), position=self.pose)
            joints.header.stamp.sec, joints.header.stamp.nanosec = divmod(now, 1_000_000_000)
            if self._clock_topic is not None:
                self._clock_topic.publish(Clock(clock=joints.header.stamp))
            if self.arm_alive:
                self._states.publish(joints)
                self._goals.publish(joints)
            if self.human_drives:
                self._teleop.publish(joints)
            if self.camera_alive:
                image = CompressedImage(format="jpeg", data=self._jpeg)
                image.header.stamp = joints.header.stamp
                self._images.publish(image)

    @property
    def state(self) -> int | None:
        """The node's state as last heard; None before."""
        return self.statuses[-1].state if self.statuses else None

    def close(self) -> None:
        self._closing.set()
        self._thread.join(2.0)

    def forget(self) -> None:
        """Back to the beginning, between two tests."""
        self.arm_alive = self.camera_alive = True
        self.human_drives = False
        for messages in (self.commands, self.chunks, self.ghosts, self.events, self.statuses):
            messages.clear()

    def start(self, seconds: float = 0.0, task: str = "", strategy: str = "") -> Any:
        """Send a goal; the accepted handle."""
        assert self.client.wait_for_server(PATIENCE_S)
        goal = RunPolicy.Goal(task=task, max_duration_s=seconds, strategy=strategy)
        return self.finish(self.client.send_goal_async(goal))

    def result(self, handle: Any) -> RunPolicy.Result:
        return self.finish(handle.get_result_async()).result

    def finish(self, future: Any) -> Any:
        """Wait for a future that the spinning thread completes."""
        assert wait_for(future.done)
        return future.result()

    def ask(self, client: Any) -> Any:
        assert client.wait_for_service(PATIENCE_S)
        return self.finish(client.call_async(Trigger.Request()))


class Brain:
    """The policy of a test: moves slowly from the pose it sees; tests replace the function."""

    def __init__(self) -> None:
        self.policy = FunctionPolicy(self._call, inputs=INPUTS, n_action_steps=10, chunk_size=30)
        self.behave: Callable[[int, Any], Any] = self.wave
        self.delay_s = 0.0

    def _call(self, call: int, observation: Any) -> Any:
        time.sleep(self.delay_s)
        return self.behave(call, observation)

    @staticmethod
    def wave(call: int, observation: Any) -> np.ndarray:
        """One milliradian per step from the pose."""
        ahead = 0.001 * np.arange(30, dtype=np.float32)[:, None]
        return observation["observation.state"][None, :] + ahead

    def reset(self) -> None:
        self.behave, self.delay_s = self.wave, 0.0
        self.policy.calls = 0


def make_node(load: Any, rig: Path, prefix: str = "", **parameters: Any) -> PolicyNode:
    """A policy node in this process; `load` is a Brain or what makes a policy of parameters."""
    values = {"rig": str(rig), "checkpoint": "none", "stale_abort": 1.0, **parameters}
    return PolicyNode(
        (lambda _: load.policy) if isinstance(load, Brain) else load,
        namespace=prefix or None,
        parameter_overrides=[Parameter(name, value=value) for name, value in values.items()],
    )


@pytest.fixture(scope="module")
def ros() -> Iterator[None]:
    """An initialised rclpy."""
    rclpy.init()
    yield
    rclpy.shutdown()


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rig file."""
    return rig_file(tmp_path_factory.mktemp("rig"))


@pytest.fixture(scope="module")
def _probe(ros: None) -> Iterator[Probe]:
    spinner = Spinner(Probe())
    yield spinner.node  # type: ignore[misc]  # the node given
    spinner.node.close()  # type: ignore[attr-defined]
    spinner.close()


@pytest.fixture(scope="module")
def _brain() -> Brain:
    return Brain()


@pytest.fixture(scope="module")
def node(_probe: Probe, _brain: Brain, rig: Path) -> Iterator[PolicyNode]:
    """One node for all tests of a module; gone before another module starts processes."""
    spinner = Spinner(make_node(_brain, rig, strategy="queue"))
    yield spinner.node  # type: ignore[misc]
    spinner.node.close()  # type: ignore[attr-defined]
    spinner.close()


@pytest.fixture
def probe(_probe: Probe, node: PolicyNode) -> Probe:
    """The world as seen from outside, fresh, with the arm free and no run under way.

    A test that failed leaves its run; the next test shall not fail for that.
    """
    _probe.forget()
    if node.run is not None:
        node.run.request_end(StopReason.CANCELLED, "the test is over")
        assert wait_for(lambda: node.run.end is not None)
    assert wait_for(lambda: node.takeover.driver() is None)
    return _probe


@pytest.fixture
def brain(_brain: Brain) -> Brain:
    """The node's policy, well-behaved until told otherwise."""
    _brain.reset()
    return _brain


class Kit:
    """What tests build further nodes with."""

    make_node = staticmethod(make_node)
    rig_file = staticmethod(rig_file)
    spinner = Spinner
    probe = Probe
    brain = Brain
    wait_for = staticmethod(wait_for)
    ns = staticmethod(ns)
    patience_s = PATIENCE_S


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    """Helpers; test modules cannot import each other."""
    return Kit
