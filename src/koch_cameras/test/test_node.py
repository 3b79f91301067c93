# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The camera node over real DDS: content, stamps, laziness, reconnect, exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import rclpy
import simplejpeg
from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.msg import StreamState
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from koch_cameras.nodes.camera import CameraNode
from koch_ros.qos import IMAGE, LATCHED

pytestmark = pytest.mark.ros


class Rig:
    """A camera node, a listener, and an executor for both."""

    def __init__(self, rig_path: object, **parameters: object) -> None:
        overrides = {"rig": str(rig_path), "camera": "above", **parameters}
        self.node = CameraNode(
            parameter_overrides=[Parameter(key, value=value) for key, value in overrides.items()]
        )
        self.listener = Node("listener")
        self.got: dict[str, list] = {}
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.listener)

    def listen(self, kind: type, topic: str) -> list:
        found: list = []
        self.got[topic] = found
        self.listener.create_subscription(kind, topic, found.append, IMAGE)
        return found

    def spin(self, until: Callable[[], bool], timeout_s: float = 6.0) -> bool:
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.executor.spin_once(timeout_sec=0.05)
            if until():
                return True
        return False

    def close(self) -> None:
        self.node.close()
        self.executor.shutdown()
        self.node.destroy_node()
        self.listener.destroy_node()


@pytest.fixture
def start() -> Iterator[Callable[..., Rig]]:
    rclpy.init()
    rigs: list[Rig] = []

    def make(*args: object, **parameters: object) -> Rig:
        rigs.append(Rig(*args, **parameters))
        return rigs[-1]

    yield make
    for rig in rigs:
        rig.close()
    rclpy.shutdown()


def stamp_ns(message: object) -> int:
    return message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec


def test_jpeg_passes_untouched_with_the_servers_stamp_and_camera_info(
    start, mjpeg_server, rig_file, jpeg
):
    began_ns = time.time_ns()

    def text(index: int) -> str:
        now_ns = began_ns + index * 1_000_000
        return f"{now_ns // 10**9}.{now_ns % 10**9:09d}"

    server = mjpeg_server(stamp=text)
    rig = start(rig_file(server.url, fovy_deg=45))
    images = rig.listen(CompressedImage, "/cameras/above/image_raw/compressed")
    infos = rig.listen(CameraInfo, "/cameras/above/camera_info")
    assert rig.spin(lambda: len(images) >= 5 and len(infos) >= 5)
    for message in images:
        index = round((stamp_ns(message) - began_ns) / 1e6)
        assert stamp_ns(message) == began_ns + index * 1_000_000
        assert bytes(message.data) == jpeg(index)
        assert (message.format, message.header.frame_id) == ("jpeg", "above_optical_frame")
    shared = {stamp_ns(message) for message in images} & {stamp_ns(info) for info in infos}
    assert len(shared) >= 4
    assert infos[0].k[0] == pytest.approx(24 / np.tan(np.radians(22.5)))
    assert (infos[0].width, infos[0].height, infos[0].distortion_model) == (64, 48, "plumb_bob")


def test_raw_images_come_only_while_someone_listens(start, mjpeg_server, rig_file, monkeypatch):
    decoded = []
    real = simplejpeg.decode_jpeg

    def spy(data: bytes, *args: object, **kwargs: object) -> np.ndarray:
        if "min_factor" not in kwargs:
            decoded.append(time.monotonic())
        return real(data, *args, **kwargs)

    monkeypatch.setattr(simplejpeg, "decode_jpeg", spy)
    rig = start(rig_file(mjpeg_server().url, width=48, height=64, rotation=90, color_mode="bgr"))
    assert rig.spin(lambda: rig.node._watch.frames > 10)
    assert decoded == []
    images = rig.listen(Image, "/cameras/above/image_raw")
    assert rig.spin(lambda: len(images) >= 2)
    assert decoded
    pixels = np.frombuffer(images[0].data, np.uint8).reshape(64, images[0].step // 3, 3)
    assert (images[0].encoding, pixels.shape) == ("bgr8", (64, 48, 3))
    # Turned clockwise, the sensor's top edge (dark green) is on the right.
    assert pixels[:, -3, 1].mean() < pixels[:, 3, 1].mean()


def test_stall_and_restart_publish_no_old_image_and_are_diagnosed(start, mjpeg_server, rig_file):
    server = mjpeg_server()
    rig = start(rig_file(server.url), timeout_s=0.4, reconnect_longest_s=0.25)
    images = rig.listen(CompressedImage, "/cameras/above/image_raw/compressed")
    health = rig.listen(DiagnosticArray, "/diagnostics")
    assert rig.spin(lambda: len(images) >= 3)
    server.stalled.set()
    server.stop()
    assert rig.spin(lambda: any(item.status[0].level == b"\x02" for item in health))
    worst = next(item.status[0] for item in health if item.status[0].level == b"\x02")
    assert "/cameras" in worst.name
    assert "lost" in worst.message or "no image" in worst.message
    count = len(images)
    assert not rig.spin(lambda: len(images) > count, 0.5)
    server.stalled.clear()
    server.start()
    assert rig.spin(lambda: len(images) >= count + 3)
    stamps = [stamp_ns(message) for message in images]
    assert stamps == sorted(set(stamps))
    assert len({bytes(message.data) for message in images}) == len(images)


def test_damaged_images_are_not_published(start, mjpeg_server, rig_file, jpeg):
    def frame(index: int) -> bytes:
        return jpeg(index)[:-50] if index % 2 else jpeg(index)

    rig = start(rig_file(mjpeg_server(frame=frame).url))
    images = rig.listen(CompressedImage, "/cameras/above/image_raw/compressed")
    assert rig.spin(lambda: len(images) >= 5)
    for message in images:
        simplejpeg.decode_jpeg(bytes(message.data))
    assert rig.node._capture.state().corrupt >= 4


def damaged_inside(data: bytes) -> bytes:
    """Header and end are whole, the image between them is not."""
    third = len(data) // 3
    noise = bytes((7 * k + 3) % 250 for k in range(200))
    return data[:third] + noise + data[third + 200 :]


@pytest.mark.parametrize("kind", ["frozen", "black", "one colour", "damaged"])
def test_unusable_images_are_told_to_every_reader_until_they_are_fine(
    start, mjpeg_server, rig_file, jpeg, kind
):
    broken = threading.Event()
    flat = {
        name: simplejpeg.encode_jpeg(np.full((48, 64, 3), level, np.uint8))
        for name, level in (("black", 0), ("one colour", 130))
    }

    def frame(index: int) -> bytes:
        if not broken.is_set():
            return jpeg(index)
        if kind == "damaged":
            return damaged_inside(jpeg(index)) if index % 4 == 0 else jpeg(index)
        # Bytes behind the end mark make black images differ, as those of a camera do.
        return jpeg(7) if kind == "frozen" else flat[kind] + b"%d" % index

    rig = start(rig_file(mjpeg_server(frame=frame).url))
    images = rig.listen(CompressedImage, "/cameras/above/image_raw/compressed")
    told: list = []
    rig.listener.create_subscription(StreamState, "/cameras/above/state", told.append, LATCHED)
    assert rig.spin(lambda: len(images) > 20 and told)
    assert (told[-1].stream, told[-1].usable, told[-1].reason) == ("cameras/above", True, "")
    before = stamp_ns(images[-1])
    broken.set()
    assert rig.spin(lambda: not told[-1].usable)
    since = told[-1].since.sec * 10**9 + told[-1].since.nanosec
    assert kind in told[-1].reason
    assert before - 0.5e9 < since < stamp_ns(images[-1]) + 0.3e9
    late: list = []  # anyone who comes later is told as well
    rig.listener.create_subscription(StreamState, "/cameras/above/state", late.append, LATCHED)
    assert rig.spin(lambda: bool(late))
    assert not late[0].usable
    broken.clear()
    assert rig.spin(lambda: told[-1].usable)
    assert told[-1].since.sec * 10**9 + told[-1].since.nanosec > since


def test_simulation_time_of_the_server_is_the_stamp(start, mjpeg_server, rig_file):
    server = mjpeg_server(stamp=lambda index: f"{5 + index}.5")
    rig = start(rig_file(server.url), use_sim_time=True)
    clock = rig.listener.create_publisher(Clock, "/clock", 1)
    images = rig.listen(CompressedImage, "/cameras/above/image_raw/compressed")
    message = Clock()
    message.clock.sec = 8

    def tick() -> bool:
        clock.publish(message)
        return len(images) >= 3

    assert rig.spin(tick)
    assert all(stamp_ns(image) % 10**9 == 500_000_000 for image in images)
    assert stamp_ns(images[0]) < 10**12


@pytest.mark.parametrize(
    ("settings", "reason"),
    [({"width": 640, "height": 480}, "got MJPG 64x48"), ({"intrinsics": "none.yaml"}, "be read")],
)
def test_unusable_settings_end_the_node_with_2(mjpeg_server, rig_file, settings, reason):
    path = rig_file(mjpeg_server().url, **settings)
    arguments = ["--ros-args", "-p", f"rig:={path}", "-p", "camera:=above"]
    done = subprocess.run(
        [sys.executable, "-m", "koch_cameras.nodes.camera", *arguments],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert reason in done.stdout + done.stderr
