# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A console node in this process, a camera beside it, and real drivers on emulated servos."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("aiohttp", reason="the console was left out of this set-up")

import rclpy
import simplejpeg
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import CompressedImage

from koch_console.access import OPERATE_TOKEN, READ_TOKEN
from koch_console.nodes.console import ConsoleNode
from koch_ros.qos import IMAGE

RIG = """
rig: koch_page
fps: 30
task: "Move the arm."
robot_type: koch_follower
simulation: {{physics: first_order, seed: 0}}
arms:
  follower:
    role: follower
    port: {folder}/follower
    calibration: {config}/calibration/sim_follower.json
    base: {{parent: world, xyz: [0, 0, 0], rpy_deg: [0, 0, 0]}}
    rate_hz: 100
    joints:
      shoulder_lift: {{offset_rad: -0.485}}
      elbow_flex: {{offset_rad: -0.06}}
      gripper: {{sign: -1, offset_rad: -0.784}}
cameras:
  above:
    source: 0
    width: 320
    height: 240
    fps: 30
    mount: {{parent: world, xyz: [0.3, 0, 0.6], rpy_deg: [180, 0, 90]}}
limits: {{max_speed: 3.0, max_acceleration: 20.0, table_z: 0.005}}
streams:
  follower/joint_states: {{max_age_ms: 200}}
  follower/joint_command: {{max_age_ms: 200}}
  cameras/above: {{max_age_ms: 300}}
features:
  observation.state: {{stream: follower/joint_states}}
  observation.images.above: {{stream: cameras/above}}
  action: {{stream: follower/joint_command}}
"""
REPOSITORY = Path(__file__).resolve().parents[3]


def wait_for(condition: Callable[[], Any], seconds: float = 10.0) -> Any:
    """What a condition gives once that is true; what it gives at last otherwise."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.01)
    return condition()


@pytest.fixture(name="wait_for")
def wait_for_fixture() -> Callable[..., Any]:
    """Wait for a condition."""
    return wait_for


def jpeg(index: int, width: int = 320, height: int = 240) -> bytes:
    """An image that differs with its index."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([(x + 7 * index) % 256, y % 256, np.full_like(x, 60)], axis=2)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(pixels.astype(np.uint8))))


class Camera:
    """Publishes JPEGs on a camera's topic, thirty a second or when it is told to."""

    def __init__(self) -> None:
        self.node = Node("above", namespace="/cameras")
        self._publisher = self.node.create_publisher(
            CompressedImage, "/cameras/above/image_raw/compressed", IMAGE
        )
        self.images = [jpeg(index) for index in range(8)]
        self.sent = 0

    @property
    def readers(self) -> int:
        """Who subscribes."""
        return int(self._publisher.get_subscription_count())

    def publish(self) -> bytes:
        """Send the next image."""
        image = self.images[self.sent % len(self.images)]
        message = CompressedImage(format="jpeg", data=image)
        message.header.stamp = self.node.get_clock().now().to_msg()
        self._publisher.publish(message)
        self.sent += 1
        return image

    def run(self) -> None:
        """Thirty a second from now on."""
        self._timer = self.node.create_timer(1.0 / 30.0, self.publish)

    def freeze(self) -> None:
        """No image from now on."""
        self._timer.cancel()


class Bench:
    """The console and what stands beside it, spun by one thread."""

    def __init__(self, rig: Path, **parameters: Any) -> None:
        overrides = {"rig": str(rig), "port": 0, **parameters}
        self.rig_file = rig
        self.console = ConsoleNode(
            parameter_overrides=[Parameter(name, value=value) for name, value in overrides.items()]
        )
        self.camera = Camera()
        self.url = self.console.address
        self._others: list[Node] = []
        self._executor = SingleThreadedExecutor()
        for node in (self.console, self.camera.node):
            self._executor.add_node(node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def close(self) -> None:
        """End all of it; idempotent."""
        if not self._thread.is_alive():
            return
        self.console.close()
        self._executor.shutdown(timeout_sec=2.0)
        self._thread.join(5.0)
        for node in (self.console, self.camera.node, *self._others):
            node.destroy_node()

    def spin(self, node: Node) -> None:
        """Spin another node as well, and destroy it in the end."""
        self._others.append(node)
        self._executor.add_node(node)

    def _command(self, module: str, name: str) -> list[str]:
        words = ["--ros-args", "-r", f"__node:={name}", "-r", "__ns:=/follower"]
        words += ["-p", f"rig:={self.rig_file}", "-p", "arm:=follower"]
        return [sys.executable, "-m", module, *words]

    @contextmanager
    def driver(self, *, jog: bool = False) -> Iterator[None]:
        """The real follower driver, on emulated servos; each in a process of its own."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        commands = [
            [sys.executable, "-m", "koch_driver.emulator", "--rig", str(self.rig_file)],
            self._command("koch_driver.nodes.follower", "driver"),
            *([self._command("koch_driver.nodes.jog", "teleop")] if jog else []),
        ]
        started = [subprocess.Popen(command, env=environment) for command in commands]
        try:
            yield
        finally:
            for process in reversed(started):
                process.terminate()
                process.wait(15.0)


@pytest.fixture
def rig_file(tmp_path: Path) -> Path:
    """A follower and a camera."""
    path = tmp_path / "rig.yaml"
    path.write_text(RIG.format(folder=tmp_path, config=REPOSITORY / "config"), encoding="utf-8")
    return path


@pytest.fixture
def bench(rig_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Bench]]:
    """Makes a Bench; its tokens go into the environment."""
    rclpy.init()
    made: list[Bench] = []

    def make(token: str = "", read_token: str = "", **parameters: Any) -> Bench:
        monkeypatch.setenv(OPERATE_TOKEN, token)
        monkeypatch.setenv(READ_TOKEN, read_token)
        made.append(Bench(rig_file, **parameters))
        return made[-1]

    yield make
    for item in made:
        item.close()
    rclpy.try_shutdown()
