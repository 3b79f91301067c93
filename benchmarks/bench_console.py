# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the console costs: CPU of its process while tiles are shown, and while no page is open.

`python benchmarks/bench_console.py` publishes two cameras of 640x480 at 30/s and reads them as a
browser does. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import rclpy
import simplejpeg
from aiohttp import ClientSession
from sensor_msgs.msg import CompressedImage, JointState

from koch_rig.load import load_rig
from koch_ros.qos import IMAGE, STATE

RIG = Path(__file__).resolve().parents[1] / "config" / "rig.sim.yaml"
CAMERAS = ("above", "left")
PORT = 8799
URL = f"http://127.0.0.1:{PORT}"


def publish(stopped: threading.Event) -> None:
    """Two cameras at 30/s and the joint states of two arms at 100/s."""
    node = rclpy.create_node("bench_publisher")
    topics = [f"/cameras/{name}/image_raw/compressed" for name in CAMERAS]
    cameras = [node.create_publisher(CompressedImage, topic, IMAGE) for topic in topics]
    arms = [
        node.create_publisher(JointState, f"/{arm}/joint_states", STATE)
        for arm in ("follower", "leader")
    ]
    noise = np.random.default_rng(0).integers(0, 40, (480, 640, 3))
    ramp = np.add.outer(np.arange(480), np.arange(640))[..., None] // 6 + noise
    image = simplejpeg.encode_jpeg(ramp.astype(np.uint8), quality=80)
    joints = list(load_rig(RIG).follower.model.joints)
    sys.stderr.write(f"one image has {len(image) / 1000:.0f} kB\n")
    due = time.monotonic()
    for count in range(1 << 30):
        if stopped.is_set():
            break
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
        state = JointState(name=joints, position=[1e-4 * (count % 900)] * len(joints))
        state.header.stamp = node.get_clock().now().to_msg()
        for arm in arms:
            arm.publish(state)
        if count % 10 in (0, 3, 7):
            message = CompressedImage(format="jpeg", data=image)
            message.header.stamp = state.header.stamp
            for camera in cameras:
                camera.publish(message)
    node.destroy_node()


def cpu_s(pid: int) -> float:
    """CPU time of a process [s]."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def read_images(name: str, count: list[int]) -> None:
    """Read a camera's stream."""
    async with ClientSession() as session, session.get(f"{URL}/cameras/{name}") as answer:
        async for line in answer.content:
            count[0] += line.startswith(b"--koch-image")


async def read_states(count: list[int]) -> None:
    """Read the state."""
    async with ClientSession() as session, session.ws_connect(f"{URL}/socket") as page:
        async for _ in page:
            count[0] += 1


async def measure(pid: int, seconds: float, pages: int) -> dict[str, float]:
    """CPU while some pages are open, each with both cameras."""
    images, states = [0], [0]
    tasks = [
        asyncio.ensure_future(read_images(name, images)) for _ in range(pages) for name in CAMERAS
    ]
    tasks += [asyncio.ensure_future(read_states(states)) for _ in range(pages)]
    await asyncio.sleep(3.0)
    images[0] = states[0] = 0
    before_s, began_s = cpu_s(pid), time.monotonic()
    await asyncio.sleep(seconds)
    took_s = time.monotonic() - began_s
    used_s = cpu_s(pid) - before_s
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    per = max(1, pages)
    return {
        "pages": pages,
        "cpu_percent": round(100.0 * used_s / took_s, 1),
        "images_hz": round(images[0] / took_s / per / len(CAMERAS), 1),
        "states_hz": round(states[0] / took_s / per, 1),
    }


def main() -> None:
    """Measure no page, one page, ten pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rclpy.init()
    stopped = threading.Event()
    publisher = threading.Thread(target=publish, args=(stopped,), daemon=True)
    publisher.start()
    words = ["--ros-args", "-p", f"rig:={RIG}", "-p", f"port:={PORT}"]
    console = subprocess.Popen([sys.executable, "-m", "koch_console.nodes.console", *words])
    try:
        time.sleep(5.0)
        results = [
            asyncio.run(measure(console.pid, arguments.seconds, pages)) for pages in (0, 1, 10)
        ]
    finally:
        console.terminate()
        console.wait(10.0)
        stopped.set()
        publisher.join()
        rclpy.shutdown()
    for result in results:
        print(result)
    print(f"{arguments.seconds:.0f} s each, {platform.processor() or platform.machine()}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
