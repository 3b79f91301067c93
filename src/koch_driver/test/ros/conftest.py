# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Real driver processes on emulated arms, and a probe that talks to them over DDS."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("control_msgs", reason="source install/local_setup.bash first")

import rclpy
from control_msgs.action import FollowJointTrajectory, GripperCommand
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.action import ActionClient
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool, Trigger

from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.guard import GuardLimits, Workspace, workspace_from_rig
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_ros.qos import COMMAND

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from koch_rig.rig import Rig

SOURCES = Path(__file__).resolve().parents[3]
RIG_FILE = SOURCES.parent / "config" / "rig.emulated.yaml"
RELIABLE = QoSProfile(depth=1000)


def seconds_of(message: Any) -> float:
    return message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec


def wait_for(condition: Callable[[], Any], seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())


class Processes:
    """Node processes as `ros2 run` would start them."""

    def __init__(self) -> None:
        paths = [str(SOURCES / name) for name in ("koch_driver", "koch_rig")]
        path = os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])
        self._environment = {**os.environ, "PYTHONPATH": path}
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, namespace: str, **parameters: str) -> subprocess.Popen[str]:
        """Start a node with the emulated rig."""
        node = "teleop" if name == "teleop" else "driver"
        arguments = ["--ros-args", "-r", f"__node:={node}", "-r", f"__ns:=/{namespace}"]
        for key, value in ({"rig": str(RIG_FILE)} | parameters).items():
            arguments += ["-p", f"{key}:={value}"]
        process = subprocess.Popen(
            [sys.executable, "-m", f"koch_driver.nodes.{name}", *arguments],
            env=self._environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.terminate()
        for process in self.running:
            sys.stderr.write(process.communicate(timeout=10.0)[1])


class Probe(Node):
    """Records what the follower says, and asks it for things."""

    def __init__(self) -> None:
        super().__init__("probe", namespace="/follower")
        self.now_ns: Callable[[], int] = time.time_ns  # what commands are stamped with
        self.states: list[JointState] = []
        self.commands: list[JointState] = []
        self.diagnostics: dict[str, Any] = {}
        self.create_subscription(JointState, "joint_states", self.states.append, RELIABLE)
        self.create_subscription(JointState, "joint_command", self.commands.append, RELIABLE)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.writers = {
            source: self.create_publisher(JointState, f"command/{source}", COMMAND)
            for source in ("teleop", "policy")
        }
        self.asked = {
            name: self.create_client(SetBool if name == "torque" else Trigger, name)
            for name in ("torque", "stop", "resume", "home")
        }
        self.clutch = self.create_client(SetBool, "teleop/clutch")
        self.follow_client = ActionClient(
            self, FollowJointTrajectory, "arm_controller/follow_joint_trajectory"
        )
        self.grip_client = ActionClient(self, GripperCommand, "gripper_controller/gripper_cmd")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for item in message.status:
            values = {pair.key: pair.value for pair in item.values}
            self.diagnostics[item.name] = (item.level, item.message, values)

    def wait(self, condition: Callable[[], Any], seconds: float = 5.0) -> bool:
        """Whether a condition came true in time."""
        return wait_for(condition, seconds)

    @property
    def stamps(self) -> list[float]:
        """Stamps of the recorded goals in [s]."""
        return [seconds_of(message) for message in self.commands]

    @property
    def pose(self) -> list[float]:
        return list(self.states[-1].position)

    def send(self, positions: Sequence[float], *, source: str = "policy", age: float = 0.0,
             names: Sequence[str] = KOCH_V1_1.joints) -> None:  # fmt: skip
        message = JointState(name=list(names), position=[float(p) for p in positions])
        ns = self.now_ns() - int(age * 1e9)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(ns, 1_000_000_000)
        self.writers[source].publish(message)

    def drive(
        self, target: Callable[[float], Sequence[float]], seconds: float,
        source: str = "policy", until: Callable[[], bool] | None = None,
    ) -> None:  # fmt: skip
        """Send commands at 30 Hz for some time, or until something came true."""
        begin = time.monotonic()
        for tick in itertools.count():
            elapsed = tick / 30.0
            if elapsed > seconds or (until is not None and until()):
                return
            time.sleep(max(0.0, begin + elapsed - time.monotonic()))
            self.send(target(elapsed), source=source)

    def drive_to(self, pose: Sequence[float], seconds: float = 3.0, source: str = "policy",
                 within: float = 0.03) -> None:  # fmt: skip
        """Command a pose until the arm is there, but no longer than this."""
        self.drive(
            lambda _: pose, seconds, source,
            until=lambda: max(abs(a - b) for a, b in zip(self.pose, pose, strict=True)) < within,
        )  # fmt: skip

    def go(self, joint: str, angle: float, seconds: float = 3.0) -> None:
        """Drive one joint somewhere and the others nowhere."""
        pose = self.pose
        pose[KOCH_V1_1.joints.index(joint)] = angle
        self.drive_to(pose, seconds)

    def ask(self, name: str, data: bool = True) -> Any:
        """Call a service of the follower."""
        client = self.clutch if name == "clutch" else self.asked[name]
        assert client.wait_for_service(5.0)
        request = SetBool.Request(data=data) if name in ("torque", "clutch") else Trigger.Request()
        return self.finish(client.call_async(request))

    def finish(self, future: Any, seconds: float = 10.0) -> Any:
        """Wait for a future that the spinning thread completes."""
        assert wait_for(future.done, seconds)
        return future.result()


class Bounds:
    """The guard's promises, checked on recorded `joint_command` messages."""

    def __init__(self, rig: Rig) -> None:
        arm = rig.arms["follower"]
        self.limits = GuardLimits.from_rig(rig.limits)
        self.period_s = 1.0 / arm.rate_hz
        workspace = workspace_from_rig(rig.limits, arm)
        assert workspace is not None
        self.workspace: Workspace = workspace

    def check(self, commands: Sequence[JointState]) -> int:
        """Assert the bounds; the number of consecutive pairs that were compared."""
        limits, period, pairs = self.limits, self.period_s, 0
        step = limits.max_acceleration * period
        for index, message in enumerate(commands):
            goal, velocity = message.position, message.velocity
            assert list(message.name) == list(KOCH_V1_1.joints)
            for low, value, high in zip(limits.lower, goal, limits.upper, strict=True):
                assert low <= value <= high
            assert all(abs(value) <= limits.max_speed * (1 + 1e-9) for value in velocity)
            assert self.workspace.room(goal) >= -1e-9
            if index == 0:
                continue
            before = commands[index - 1]
            follows = all(
                abs(b - a - v * period) < 1e-9
                for a, b, v in zip(before.position, goal, velocity, strict=True)
            )
            if not follows:
                # A new sequence after a pause: it begins at rest.
                assert seconds_of(message) - seconds_of(before) > 1.5 * period
                assert all(abs(value) <= step * (1 + 1e-6) for value in velocity)
                continue
            pairs += 1
            for a, b in zip(before.velocity, velocity, strict=True):
                assert abs(b - a) <= step * (1 + 1e-6) + 1e-9
        return pairs


@pytest.fixture(scope="session")
def rig_file() -> Path:
    """The emulated rig's file."""
    return RIG_FILE


@pytest.fixture(scope="module")
def rig_ros(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    os.environ["KOCH_RUN_DIR"] = str(tmp_path_factory.mktemp("run"))
    yield load_rig(RIG_FILE)
    del os.environ["KOCH_RUN_DIR"]


@pytest.fixture(scope="module")
def arm(rig_ros: Rig, prompt: None) -> Iterator[EmulatedChain]:
    with build_chain(rig_ros, "follower") as chain:
        yield chain


@pytest.fixture(scope="module")
def processes(rig_ros: Rig) -> Iterator[Processes]:
    made = Processes()
    yield made
    made.close()


@pytest.fixture(scope="module")
def bounds(rig_ros: Rig) -> Bounds:
    return Bounds(rig_ros)


@contextmanager
def spinning() -> Iterator[Probe]:
    """A probe whose callbacks run in a thread."""
    rclpy.init(args=[])
    node = Probe()
    executor = SingleThreadedExecutor()
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    yield node
    executor.shutdown()
    thread.join(2.0)
    node.destroy_node()
    rclpy.try_shutdown()


@pytest.fixture(scope="module")
def probe_maker() -> Callable[[], AbstractContextManager[Probe]]:
    """For modules that start their own nodes."""
    return spinning


@pytest.fixture(scope="module")
def session_probe(arm: EmulatedChain, processes: Processes) -> Iterator[Probe]:
    processes.start("follower", "follower", arm="follower")
    with spinning() as node:
        assert wait_for(lambda: len(node.commands) > 10, 15.0), "the follower does not run"
        yield node


@pytest.fixture
def probe(session_probe: Probe, arm: EmulatedChain) -> Probe:
    """The follower, holding, without faults; nothing recorded yet."""
    arm.faults.clear()
    session_probe.ask("stop")  # ends source timeouts and what is held
    assert wait_for(lambda: session_probe.ask("resume").success)
    session_probe.commands.clear()
    session_probe.states.clear()
    assert wait_for(lambda: session_probe.states and session_probe.commands)
    return session_probe
