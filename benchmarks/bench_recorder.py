# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""CPU time and losses of the recorder: 2 cameras pass-through and 3 arms' states at 100 Hz.

Publishers run in their own process and send JPEG-sized random bytes (20 to 60 kB, 30 Hz) with
camera_info, and JointStates. The recorder is the real node in its own process; its CPU time is
read from /proc. Losses are counted in the bag, by the publication sequence numbers kept there.
"""

from __future__ import annotations

import argparse
import array
import json
import os
import platform
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from watch import cpu_s

RATE_HZ = 100
SEED = 0
RIG = """
rig: bench
fps: 30
robot_type: koch_follower
task: benchmark
arms:
  follower: {{role: follower, port: /dev/null, calibration: {calibration}}}
  leader: {{role: leader, drives: follower, port: /dev/null, calibration: {calibration}}}
cameras:
  above: {{source: 0, width: 640, height: 480, fps: 30, mount: {{parent: world, xyz: [0, 0, 1]}}}}
  wrist: {{source: 1, width: 640, height: 480, fps: 30, mount: {{parent: world, xyz: [0, 0, 1]}}}}
limits: {{max_speed: 3.0, max_acceleration: 20.0, command_timeout_s: 0.3, max_command_age_ms: 200}}
streams:
  follower/joint_states: {{max_age_ms: 500}}
  follower/joint_command: {{max_age_ms: 500}}
  leader/joint_states: {{max_age_ms: 500}}
  cameras/above: {{max_age_ms: 500}}
  cameras/wrist: {{max_age_ms: 500}}
features:
  observation.state: {{stream: follower/joint_states}}
  observation.images.above: {{stream: cameras/above}}
  observation.images.wrist: {{stream: cameras/wrist}}
  action: {{stream: follower/joint_command}}
"""


def publish() -> None:
    """Publish until the parent ends us."""
    import rclpy
    from rclpy.qos import QoSProfile
    from sensor_msgs.msg import CameraInfo, CompressedImage, JointState

    from koch_rig.arm_model import KOCH_V1_1

    rclpy.init()
    node = rclpy.create_node("bench_publisher")
    qos = QoSProfile(depth=5)
    arms = ("/follower/joint_states", "/follower/joint_command", "/leader/joint_states")
    states = [node.create_publisher(JointState, name, qos) for name in arms]
    prefix = [f"/cameras/{name}" for name in ("above", "wrist")]
    image_publishers = [
        node.create_publisher(CompressedImage, f"{p}/image_raw/compressed", qos) for p in prefix
    ]
    infos = [node.create_publisher(CameraInfo, f"{p}/camera_info", qos) for p in prefix]
    generator = random.Random(SEED)
    images = [
        array.array("B", generator.randbytes(generator.randint(20_000, 60_000))) for _ in range(30)
    ]
    zeros = array.array("d", [0.0] * len(KOCH_V1_1.joints))
    state = JointState(name=KOCH_V1_1.joints, position=zeros, velocity=zeros, effort=zeros)
    message_image, info = CompressedImage(format="jpeg"), CameraInfo()
    due = time.monotonic()
    for count in range(1 << 30):
        due += 1.0 / RATE_HZ
        time.sleep(max(0.0, due - time.monotonic()))
        stamp = node.get_clock().now().to_msg()
        state.header.stamp = message_image.header.stamp = info.header.stamp = stamp
        for publisher in states:
            publisher.publish(state)
        if count * 3 % 10 < 3:
            message_image.data = images[count % len(images)]
            for image_publisher, camera_info in zip(image_publishers, infos, strict=True):
                image_publisher.publish(message_image)
                camera_info.publish(info)


class Client:
    """Calls the recorder's services."""

    def __init__(self) -> None:
        import rclpy

        rclpy.init()
        self._rclpy = rclpy
        self._node = rclpy.create_node("bench_client")

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        client = self._node.create_client(kind, name)
        if not client.wait_for_service(15.0):
            raise SystemExit(f"{name}: no recorder")
        future = client.call_async(kind.Request(**fields))
        self._rclpy.spin_until_future_complete(self._node, future, timeout_sec=30.0)
        self._node.destroy_client(client)
        return future.result()


def lost_in_bag(folder: Path) -> dict[str, tuple[int, int]]:
    """Topic to (messages in the bag, messages missing between its first and last)."""
    from mcap.reader import make_reader

    numbers: dict[str, list[int]] = {}
    with next(folder.glob("*.mcap")).open("rb") as file:
        for _, channel, message in make_reader(file).iter_messages():
            if message.sequence:
                numbers.setdefault(channel.topic, []).append(message.sequence)
    return {
        topic: (len(found), max(found) - min(found) + 1 - len(found))
        for topic, found in numbers.items()
    }


def record(recorder: int, seconds: float) -> tuple[Any, list[float]]:
    """Record one episode; the recorder's answer and its share of a core in each second."""
    from koch_interfaces.srv import StartEpisode, StopEpisode

    client = Client()
    started = client.call(StartEpisode, "/episodes/start", start_timeout_s=15.0)
    if not started.success:
        raise SystemExit(started.message)
    time.sleep(1.0)  # warm
    shares, begin = [], time.monotonic()
    while time.monotonic() - begin < seconds:
        before, at = cpu_s(recorder), time.monotonic()
        time.sleep(1.0)
        shares.append((cpu_s(recorder) - before) / (time.monotonic() - at))
    return client.call(StopEpisode, "/episodes/stop", outcome="success", keep=True), shares


def measure(seconds: float, folder: Path) -> dict[str, Any]:
    """Record one episode and return the figures."""
    calibration = Path(__file__).resolve().parents[1] / "config/calibration/sim_follower.json"
    rig = folder / "rig.yaml"
    rig.write_text(RIG.format(calibration=calibration))
    publisher = subprocess.Popen([sys.executable, __file__, "--publish"])
    recorder = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "koch_episodes.recorder.node",
            "--ros-args",
            "-p",
            f"rig:={rig}",
            "-p",
            f"root:={folder / 'episodes'}",
            "--log-level",
            "warn",
        ]
    )
    try:
        stopped, shares = record(recorder.pid, seconds)
    finally:
        for process in (publisher, recorder):
            process.send_signal(signal.SIGTERM)
        for process in (publisher, recorder):
            process.wait(timeout=10)
    topics = lost_in_bag(Path(stopped.path))
    shares.sort()
    return {
        "cpu_of_one_core_median": statistics.median(shares),
        "cpu_of_one_core_p95": shares[round(0.95 * (len(shares) - 1))],
        "cpu_of_one_core_max": shares[-1],
        "n_seconds": len(shares),
        "messages": sum(count for count, _ in topics.values()),
        "lost": sum(missing for _, missing in topics.values()),
        "per_topic": {topic: list(figures) for topic, figures in sorted(topics.items())},
        "verdict": stopped.verdict,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, load {os.getloadavg()[0]:.1f}",
    }


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--publish", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.publish:
        try:
            publish()
        except Exception:  # the context ends under the publisher when the parent stops us
            return 0
    with tempfile.TemporaryDirectory(prefix="bench_recorder_") as folder:
        result = measure(arguments.seconds, Path(folder))
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
