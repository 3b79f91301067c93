# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the console costs: its CPU, how fast the page loads, and what others notice of it.

`python benchmarks/bench_console.py` publishes two cameras of 640x480 at 30/s and reads them as a
browser does, with no page, one, and ten. `--graph` does so beside a driver on emulated servos and
a recorder, and tells what the recorder missed and how even the driver's cycles were. `--load`
loads the page in Chromium, for which Playwright's Python package is needed. `--json FILE` writes
the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
import simplejpeg
from aiohttp import ClientSession
from koch_interfaces.srv import StartEpisode, StopEpisode
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState
from watch import cpu_s

from koch_episodes import cdr
from koch_episodes.bag import open_bag
from koch_rig.load import load_rig
from koch_ros.qos import IMAGE, STATE

REPOSITORY = Path(__file__).resolve().parents[1]
RIG = REPOSITORY / "config" / "rig.sim.yaml"
GRAPH_CAMERAS = """cameras:
  above: {source: 0, width: 640, height: 480, fps: 30, mount: {parent: world}}
  left: {source: 1, width: 640, height: 480, fps: 30, mount: {parent: world}}
streams:
  cameras/above: {max_age_ms: 500}
  cameras/left: {max_age_ms: 500}
"""
CAMERAS = ("above", "left")
PORT = 8799
URL = f"http://127.0.0.1:{PORT}"


def one_image() -> bytes:
    """A JPEG of 640x480 with noise, as a camera's."""
    noise = np.random.default_rng(0).integers(0, 40, (480, 640, 3))
    ramp = np.add.outer(np.arange(480), np.arange(640))[..., None] // 6 + noise
    return bytes(simplejpeg.encode_jpeg(ramp.astype(np.uint8), quality=80))


def publish(stopped: threading.Event, arms: Sequence[str], sent_ns: list[int]) -> None:
    """Two cameras at 30/s and the joint states of some arms at 100/s."""
    node = rclpy.create_node("bench_publisher")
    topics = [f"/cameras/{name}/image_raw/compressed" for name in CAMERAS]
    cameras = [node.create_publisher(CompressedImage, topic, IMAGE) for topic in topics]
    joints = [node.create_publisher(JointState, f"/{arm}/joint_states", STATE) for arm in arms]
    image = one_image()
    names = list(load_rig(RIG).follower.model.joints)
    sys.stderr.write(f"one image has {len(image) / 1000:.0f} kB\n")
    due = time.monotonic()
    for count in range(1 << 30):
        if stopped.is_set():
            break
        due += 0.01
        time.sleep(max(0.0, due - time.monotonic()))
        state = JointState(name=names, position=[1e-4 * (count % 900)] * len(names))
        state.header.stamp = node.get_clock().now().to_msg()
        for arm in joints:
            arm.publish(state)
        if count % 10 in (0, 3, 7):
            message = CompressedImage(format="jpeg", data=image)
            message.header.stamp = state.header.stamp
            sent_ns.append(message.header.stamp.sec * 10**9 + message.header.stamp.nanosec)
            for camera in cameras:
                camera.publish(message)
    node.destroy_node()


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


@contextlib.asynccontextmanager
async def browsers(pages: int) -> AsyncIterator[tuple[list[int], list[int]]]:
    """Some open pages, each with both cameras; counts images and states."""
    images, states = [0], [0]
    tasks = [
        asyncio.ensure_future(read_images(name, images)) for _ in range(pages) for name in CAMERAS
    ]
    tasks += [asyncio.ensure_future(read_states(states)) for _ in range(pages)]
    await asyncio.sleep(3.0)
    try:
        yield images, states
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(pid: int, seconds: float, pages: int) -> dict[str, float]:
    """CPU while some pages are open."""
    async with browsers(pages) as (images, states):
        images[0] = states[0] = 0
        before_s, began_s = cpu_s(pid), time.monotonic()
        await asyncio.sleep(seconds)
        took_s = time.monotonic() - began_s
        used_s = cpu_s(pid) - before_s
        per = max(1, pages)
        return {
            "pages": pages,
            "cpu_percent": round(100.0 * used_s / took_s, 1),
            "images_hz": round(images[0] / took_s / per / len(CAMERAS), 1),
            "states_hz": round(states[0] / took_s / per, 1),
        }


# -- beside driver and recorder -------------------------------------------------------------------


def graph_rig(folder: Path) -> Path:
    """The emulated rig with two cameras."""
    text = (REPOSITORY / "config" / "rig.emulated.yaml").read_text(encoding="utf-8")
    calibration = REPOSITORY / "config" / "calibration"
    text = text.replace("calibration: calibration/", f"calibration: {calibration}/")
    text = text.replace("${KOCH_RUN_DIR:-/tmp/koch}", str(folder))
    text = text.replace("streams:\n", GRAPH_CAMERAS).replace("max_age_ms: 50}", "max_age_ms: 500}")
    path = folder / "rig.yaml"
    path.write_text(text.replace("max_age_ms: 100}", "max_age_ms: 500}"), encoding="utf-8")
    return path


def ask(node: Node, kind: Any, name: str, request: Any) -> Any:
    """Call a service."""
    client = node.create_client(kind, name)
    if not client.wait_for_service(30.0):
        raise SystemExit(f"{name} is not offered")
    future = client.call_async(request)
    rclpy.spin_until_future_complete(node, future, timeout_sec=60.0)
    node.destroy_client(client)
    return future.result()


async def record(node: Node, seconds: float, pages: int, sent_ns: list[int]) -> dict[str, float]:
    """Record while some pages are open: what was lost, and the driver's periods."""
    async with browsers(pages) as (images, _):
        request = StartEpisode.Request(task="bench")
        started = await asyncio.to_thread(ask, node, StartEpisode, "episodes/start", request)
        if not started.success:
            raise SystemExit(started.message)
        images[0] = 0
        await asyncio.sleep(seconds)
        shown = images[0]
        end = StopEpisode.Request(keep=True)
        stopped = await asyncio.to_thread(ask, node, StopEpisode, "episodes/stop", end)
    path = Path(stopped.path)
    stamps: dict[str, list[int]] = defaultdict(list)
    with open_bag(path) as bag:
        wanted = [name for name in bag.topics if "image_raw" in name]
        for message in bag.messages([*wanted, "/follower/joint_states"]):
            stamps[message.topic].append(cdr.header_stamp_ns(message.data))
    found = [stamps[name] for name in wanted]
    sent = [[ns for ns in sent_ns if mine[0] <= ns <= mine[-1]] for mine in found]
    lost = sum(map(len, sent)) - sum(map(len, found))
    periods_ms = np.diff(sorted(stamps["/follower/joint_states"])) / 1e6
    return {
        "pages": pages,
        "images_sent": sum(map(len, sent)),
        "images_lost": lost,
        "shown_hz": round(shown / seconds / max(1, pages) / len(CAMERAS), 1),
        "cycles": len(periods_ms),
        "period_p50_ms": round(float(np.median(periods_ms)), 2),
        "period_p99_ms": round(float(np.quantile(periods_ms, 0.99)), 2),
        "period_max_ms": round(float(periods_ms.max()), 2),
    }


def beside_a_graph(seconds: float, rounds: int, sent_ns: list[int]) -> list[dict[str, float]]:
    """Record with no page and with ten, in turn, so that both meet the same machine."""
    folder = Path(tempfile.mkdtemp())
    rig = graph_rig(folder)
    modules = {
        "koch_driver.emulator": ["--rig", str(rig)],
        "koch_driver.nodes.follower": ["-r", "__ns:=/follower", "-r", "__node:=driver"],
        "koch_driver.nodes.leader": ["-r", "__ns:=/leader", "-r", "__node:=driver"],
        "koch_episodes.recorder.node": ["-p", f"root:={folder / 'episodes'}"],
        "koch_console.nodes.console": ["-p", f"port:={PORT}"],
    }
    arms = {"koch_driver.nodes.follower": "follower", "koch_driver.nodes.leader": "leader"}
    running = []
    for module, words in modules.items():
        if module != "koch_driver.emulator":
            words = ["--ros-args", "-p", f"rig:={rig}", *words]
        if module in arms:
            words += ["-p", f"arm:={arms[module]}"]
        running.append(subprocess.Popen([sys.executable, "-m", module, *words]))
    node = rclpy.create_node("bench_client")
    # Ten browsers run on other computers. Here this thread plays them, with what the robot leaves.
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    try:
        time.sleep(12.0)
        return [
            asyncio.run(record(node, seconds, pages, sent_ns))
            for _ in range(rounds)
            for pages in (0, 10)
        ]
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            process.wait(15.0)
        node.destroy_node()


# -- loading the page -----------------------------------------------------------------------------


def load_page(times: int) -> dict[str, float]:
    """Median times until the page is parsed, has state and buttons, and its bytes."""
    from playwright.sync_api import sync_playwright

    parsed, ready, sizes = [], [], []
    with sync_playwright() as started:
        switches = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
        browser = started.chromium.launch(executable_path=shutil.which("chromium"), args=switches)
        for _ in range(times):
            page = browser.new_page(viewport={"width": 1280, "height": 720})
            got: list[Any] = []

            def keep(item: Any, got: list[Any] = got) -> None:
                got.append(item)

            page.on("requestfinished", keep)
            began_s = time.monotonic()
            page.goto(URL, wait_until="domcontentloaded")
            parsed.append(time.monotonic() - began_s)
            page.wait_for_function(
                "() => document.getElementById('link').textContent === 'connected'"
            )
            page.wait_for_selector(".joint")
            ready.append(time.monotonic() - began_s)
            page.wait_for_selector("#view3d canvas", timeout=60_000)
            sizes.append(sum(item.sizes()["responseBodySize"] for item in got))
            page.close()
        browser.close()
    return {
        "loads": times,
        "parsed_s": round(float(np.median(parsed)), 2),
        "parsed_max_s": round(max(parsed), 2),
        "ready_s": round(float(np.median(ready)), 2),
        "ready_max_s": round(max(ready), 2),
        "megabytes": round(max(sizes) / 1e6, 2),
    }


def beside_publishers(seconds: float, loads: int) -> list[dict[str, float]]:
    """CPU of the console alone, and the loading of its page."""
    words = ["--ros-args", "-p", f"rig:={RIG}", "-p", f"port:={PORT}"]
    console = subprocess.Popen([sys.executable, "-m", "koch_console.nodes.console", *words])
    try:
        time.sleep(5.0)
        if loads:
            return [load_page(loads)]
        return [asyncio.run(measure(console.pid, seconds, pages)) for pages in (0, 1, 10)]
    finally:
        console.terminate()
        console.wait(10.0)


def main() -> None:
    """Measure what the options say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--graph", action="store_true", help="beside driver and recorder")
    parser.add_argument("--rounds", type=int, default=3, help="with --graph: of no page and ten")
    parser.add_argument("--load", type=int, default=0, metavar="N", help="load the page N times")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rclpy.init()
    stopped, sent_ns = threading.Event(), list[int]()
    arms = () if arguments.graph else ("follower", "leader")
    publisher = threading.Thread(target=publish, args=(stopped, arms, sent_ns), daemon=True)
    publisher.start()
    try:
        if arguments.graph:
            results = beside_a_graph(arguments.seconds, arguments.rounds, sent_ns)
        else:
            results = beside_publishers(arguments.seconds, arguments.load)
    finally:
        stopped.set()
        publisher.join()
        rclpy.shutdown()
    for result in results:
        print(result)
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}"
    print(f"{arguments.seconds:.0f} s each, {machine}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
