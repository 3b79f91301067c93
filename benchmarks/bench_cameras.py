# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""CPU per image and latency of camera nodes: 2 cameras of 640x480 at 30 images/s.

Three ways from an MJPEG stream to ``image_raw/compressed``, each node in its own process, fed by
one server process that stamps each image as it sends it:

- pass-through: koch_cameras' node as it is;
- rotate: the same node with rotation 180, that is decode, turn, encode;
- opencv: a node with cv2.VideoCapture and cv2.imencode, as camera packages do it. OpenCV hides the
  part headers, so its latency counts from a stamp taken after read().

CPU is utime + stime of the node's process. Run alone: python benchmarks/bench_cameras.py
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import simplejpeg
from watch import cpu_s

SIZE = (640, 480)
RATE_HZ = 30.0
CAMERAS = 2
WARM_UP_S = 3.0
SOURCES = Path(__file__).resolve().parent.parent / "src"


def images(count: int = 30) -> list[bytes]:
    """JPEGs of about 60 kB: smooth shapes that move, and sensor noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]]
    result = []
    for index in range(count):
        base = 128 + 60 * np.sin((x + 8 * index) / 40.0) * np.cos(y / 30.0)
        noisy = base[:, :, None] + rng.normal(0.0, 8.0, (SIZE[1], SIZE[0], 3))
        image = np.clip(noisy, 0, 255).astype(np.uint8)
        result.append(simplejpeg.encode_jpeg(image, quality=80))
    return result


def serve(port: int) -> None:
    """MJPEG server: one thread per client, each image stamped when it is sent."""
    frames = images()
    listener = socket.create_server(("127.0.0.1", port))

    def feed(client: socket.socket) -> None:
        client.recv(4096)
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=f\r\n\r\n--f\r\n"
        )
        client.sendall(head.encode())
        due_s, index = time.monotonic(), 0
        while True:
            data = frames[index % len(frames)]
            now_ns = time.time_ns()
            stamp = f"{now_ns // 10**9}.{now_ns % 10**9:09d}"
            part = (
                f"Content-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n"
                f"X-Timestamp: {stamp}\r\n\r\n"
            )
            # The boundary goes with the image before it: FFmpeg waits for it.
            client.sendall(part.encode() + data + b"\r\n--f\r\n")
            due_s, index = due_s + 1.0 / RATE_HZ, index + 1
            time.sleep(max(0.0, due_s - time.monotonic()))

    def guarded(client: socket.socket) -> None:
        try:
            feed(client)
        except OSError:
            client.close()  # the node under test has ended

    while True:
        client, _ = listener.accept()
        threading.Thread(target=guarded, args=(client,), daemon=True).start()


def opencv_node(url: str, name: str) -> None:
    """The node to compare with."""
    import array

    import cv2
    import rclpy
    from rclpy.node import Node
    from sensor_msgs.msg import CompressedImage

    cv2.setNumThreads(1)
    rclpy.init()
    node = Node("camera", namespace="cameras")
    publisher = node.create_publisher(CompressedImage, f"{name}/image_raw/compressed", 5)
    capture = cv2.VideoCapture(url)
    while rclpy.ok():
        good, image = capture.read()
        if not good:
            return
        message = CompressedImage(format="jpeg")
        message.header.stamp = node.get_clock().now().to_msg()
        _, encoded = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        message.data = array.array("B", encoded.tobytes())
        try:
            publisher.publish(message)
        except RuntimeError:  # rclpy's RCLError, when the benchmark ends the node
            return


def write_rig(folder: Path, port: int, rotation: int) -> Path:
    """A rig with the cameras of the benchmark."""
    cameras = "".join(
        f'  cam{index}: {{source: "http://127.0.0.1:{port}/", width: {SIZE[0]}, '
        f"height: {SIZE[1]}, fps: {RATE_HZ:g}, rotation: {rotation}, "
        "mount: {parent: world, xyz: [0, 0, 1], rpy_deg: [180, 0, 0]}}\n"
        for index in range(CAMERAS)
    )
    path = folder / f"rig{rotation}.yaml"
    path.write_text(
        "rig: bench\nfps: 30\narms:\n"
        "  follower: {role: follower, port: /dev/null, calibration: none.json}\n"
        f"cameras:\n{cameras}"
        "features:\n  observation.state: {stream: follower/joint_states}\n"
        "  action: {stream: follower/joint_command}\n"
    )
    return path


def commands(way: str, rig: Path, port: int) -> list[list[str]]:
    """Command lines of the nodes."""
    if way == "opencv":
        url = f"http://127.0.0.1:{port}/x.mjpg"
        return [
            [sys.executable, __file__, "--opencv-node", url, f"cam{index}"]
            for index in range(CAMERAS)
        ]
    module = [sys.executable, "-m", "koch_cameras.nodes.camera", "--ros-args"]
    return [
        [*module, "-p", f"rig:={rig}", "-p", f"camera:=cam{index}", "-r", f"__node:=cam{index}"]
        for index in range(CAMERAS)
    ]


def measure(way: str, rig: Path, port: int, seconds: float) -> dict[str, object]:
    """Run the nodes of one way and listen."""
    import rclpy
    from rclpy.node import Node
    from rclpy.qos import qos_profile_sensor_data
    from sensor_msgs.msg import CompressedImage

    latencies_s: list[float] = []
    counting = False

    def receive(message: CompressedImage) -> None:
        if counting:
            stamp = message.header.stamp
            latencies_s.append(time.time() - stamp.sec - stamp.nanosec * 1e-9)

    node = Node("listener")
    for index in range(CAMERAS):
        topic = f"/cameras/cam{index}/image_raw/compressed"
        node.create_subscription(CompressedImage, topic, receive, qos_profile_sensor_data)
    packages = [str(SOURCES / name) for name in ("koch_rig", "koch_cameras")]
    path = os.pathsep.join([*packages, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path}
    started = commands(way, rig, port)
    processes = [subprocess.Popen(command, env=environment) for command in started]
    try:
        end_s = time.monotonic() + WARM_UP_S
        while time.monotonic() < end_s:
            rclpy.spin_once(node, timeout_sec=0.1)
        counting = True
        before = [cpu_s(process.pid) for process in processes]
        began_s = time.monotonic()
        while time.monotonic() < began_s + seconds:
            rclpy.spin_once(node, timeout_sec=0.1)
        took_s = time.monotonic() - began_s
        used_s = sum(cpu_s(p.pid) - b for p, b in zip(processes, before, strict=True))
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(timeout=10)
        node.destroy_node()
    return summary(way, latencies_s, used_s, took_s)


def summary(way: str, latencies_s: list[float], used_s: float, took_s: float) -> dict[str, object]:
    """The row of one way."""
    count = len(latencies_s)
    if count == 0:
        raise SystemExit(f"{way}: no image arrived; is the workspace sourced?")
    milliseconds = np.array(latencies_s) * 1e3
    return {
        "way": way,
        "N": count,
        "rate_hz_per_camera": count / took_s / CAMERAS,
        "cpu_ms_per_image": used_s * 1e3 / count,
        "core_percent_per_camera": used_s / took_s / CAMERAS * 100.0,
        "latency_ms_median": float(np.median(milliseconds)),
        "latency_ms_p95": float(np.percentile(milliseconds, 95)),
        "latency_ms_p99": float(np.percentile(milliseconds, 99)),
        "latency_ms_max": float(milliseconds.max()),
    }


def main() -> None:
    """Measure all ways, print a table, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve", type=int)
    parser.add_argument("--opencv-node", nargs=2)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.serve)
    if arguments.opencv_node:
        opencv_node(*arguments.opencv_node)
        return
    import rclpy

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen([sys.executable, __file__, "--serve", str(port)])
    rclpy.init()
    try:
        with tempfile.TemporaryDirectory() as folder:
            socket_ready(port)
            plain, turned = (write_rig(Path(folder), port, angle) for angle in (0, 180))
            ways = (("pass-through", plain), ("rotate", turned), ("opencv", plain))
            rows = [measure(way, rig, port, arguments.seconds) for way, rig in ways]
    finally:
        server.terminate()
        server.wait(timeout=10)
        rclpy.shutdown()
    size = sum(map(len, images(5))) // 5
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    print(f"{CAMERAS} x {SIZE[0]}x{SIZE[1]} at {RATE_HZ:g}/s, {size / 1e3:.0f} kB each; {machine}")
    for row in rows:
        print("  ".join(f"{k}={v if isinstance(v, str) else f'{v:.2f}'}" for k, v in row.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))


def socket_ready(port: int) -> None:
    """Wait until the server listens."""
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return


if __name__ == "__main__":
    main()
