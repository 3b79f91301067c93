# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The driver's nodes on emulated arms: jitter, latency and CPU, idle and beside busy processes.

Starts the emulator, follower, leader and teleop nodes as processes of their own, at 100 and
200 Hz, without wire delay, and reads what they publish:

- jitter: intervals between the stamps of `joint_states` (taken in the middle of each bus read);
- latency: leader's stamp -> follower's goal written, from the follower's diagnostics;
- CPU per process; the guard's share measured alone, in this process.

Run alone, with the workspace sourced: python benchmarks/bench_driver_nodes.py [--seconds N]
[--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from watch import cpu_s

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("koch_rig", "koch_driver")
RIG = REPO / "config" / "rig.emulated.yaml"
NODES = {
    "follower": ("follower", {"arm": "follower"}),
    "leader": ("leader", {"arm": "leader"}),
    "teleop": ("follower", {"leader": "leader"}),
}


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, p95, p99 and maximum."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "median": ordered[last // 2],
        "p95": ordered[int(0.95 * last)],
        "p99": ordered[int(0.99 * last)],
        "max": ordered[last],
        "n": float(len(ordered)),
    }


@contextlib.contextmanager
def graph(rate_hz: int) -> Iterator[dict[str, int]]:
    """Processes of the emulated rig at a bus rate: name -> pid."""
    with tempfile.TemporaryDirectory(prefix="koch_bench_") as folder:
        text = RIG.read_text(encoding="utf-8")
        text = text.replace("rate_hz: 100", f"rate_hz: {rate_hz}")
        text = text.replace("calibration: ", f"calibration: {RIG.parent}/")
        rig = Path(folder) / "rig.yaml"
        rig.write_text(text, encoding="utf-8")
        sources = [str(REPO / "src" / name) for name in PACKAGES]
        path = os.pathsep.join([*sources, os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "KOCH_RUN_DIR": folder, "PYTHONPATH": path}
        commands = {"emulator": ["koch_driver.emulator", "--rig", str(rig)]}
        for name, (namespace, parameters) in NODES.items():
            arguments = ["--ros-args", "-r", f"__ns:=/{namespace}", "-p", f"rig:={rig}"]
            for key, value in parameters.items():
                arguments += ["-p", f"{key}:={value}"]
            commands[name] = [f"koch_driver.nodes.{name}", *arguments]
        running = {
            name: subprocess.Popen(
                [sys.executable, "-m", *command], env=environment, stderr=subprocess.DEVNULL
            )
            for name, command in commands.items()
        }
        try:
            yield {name: process.pid for name, process in running.items()}
        finally:
            for process in reversed(running.values()):
                process.terminate()
                process.wait(10.0)


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes that use all the CPU they get."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in loops:
            process.kill()
            process.wait()


_READY = "latency_teleop_p50_ms"


def listen(
    node: Any, seconds: float, *, until_ready: bool = False
) -> tuple[list[float], dict[str, dict[str, str]]]:
    """Stamps of the follower's states and the newest diagnostics.

    Args:
        node: Listens.
        seconds: How long.
        until_ready: End as soon as the follower has obeyed the leader.
    """
    import rclpy
    from diagnostic_msgs.msg import DiagnosticArray
    from sensor_msgs.msg import JointState

    stamps: list[float] = []
    diagnostics: dict[str, dict[str, str]] = {}

    def on_state(message: JointState) -> None:
        stamps.append(message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)

    def on_diagnostics(message: DiagnosticArray) -> None:
        for status in message.status:
            diagnostics[status.name] = {pair.key: pair.value for pair in status.values}

    subscriptions = [
        node.create_subscription(JointState, "/follower/joint_states", on_state, 1000),
        node.create_subscription(DiagnosticArray, "/diagnostics", on_diagnostics, 10),
    ]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.1)
        if until_ready and _READY in diagnostics.get("follower: guard", {}):
            break
    for subscription in subscriptions:
        node.destroy_subscription(subscription)
    return stamps, diagnostics


def measure_nodes(node: Any, rate_hz: int, n_busy: int, seconds: float) -> dict[str, Any]:
    """One run of the graph."""
    with graph(rate_hz) as pids:
        listen(node, 60.0, until_ready=True)
        with busy(n_busy):
            before = {name: cpu_s(pid) for name, pid in pids.items()}
            stamps, diagnostics = listen(node, seconds)
            cpu = {name: (cpu_s(pid) - before[name]) / seconds for name, pid in pids.items()}
    intervals = [1e3 * (b - a) for a, b in itertools.pairwise(stamps)]
    guard, bus = diagnostics.get("follower: guard", {}), diagnostics.get("follower: bus", {})

    def figure(values: dict[str, str], key: str) -> float:
        return float(values.get(key, "nan"))

    return {
        "rate_hz": rate_hz,
        "busy_processes": n_busy,
        "real_rate_hz": (len(stamps) - 1) / (stamps[-1] - stamps[0]),
        "interval_ms": spread(intervals),
        "missed_cycles": figure(bus, "missed_cycles"),
        "cycle_p50_ms": figure(bus, "cycle_p50_ms"),
        "cycle_p99_ms": figure(bus, "cycle_p99_ms"),
        "latency_p50_ms": figure(guard, "latency_teleop_p50_ms"),
        "latency_p99_ms": figure(guard, "latency_teleop_p99_ms"),
        "cpu_fraction": cpu,
    }


def measure_guard(cycles: int = 5000) -> dict[str, dict[str, float]]:
    """Cost of one guard cycle in us: free motion, and pressed into the table."""
    from koch_driver.guard import Guard, GuardLimits, workspace_from_rig
    from koch_rig.arm_model import KOCH_V1_1
    from koch_rig.load import load_rig

    rig = load_rig(RIG)
    workspace = workspace_from_rig(rig.limits, rig.arms["follower"])
    result = {}
    for name, lift in (("free", 0.0), ("pressed into the table", -1.3)):
        guard = Guard(GuardLimits.from_rig(rig.limits), period_s=0.01, workspace=workspace)
        pose: Sequence[float] = [0.0] * len(KOCH_V1_1.joints)
        times = []
        for cycle in range(cycles):
            now = 0.01 * cycle
            swing = math.sin(1.5 * now)
            command = [swing, lift + 0.2 * swing, 0.3 * swing, 0.3 * swing, swing, -0.5]
            if cycle % 3 == 0:
                guard.submit("teleop", KOCH_V1_1.joints, command, age_s=0.0, now_s=now)
            begin = time.perf_counter()
            goal = guard.step(now, pose).goal
            times.append(1e6 * (time.perf_counter() - begin))
            pose = pose if goal is None else goal
        result[name] = spread(times[100:])
    return result


def figures(seconds: float = 10.0) -> dict[str, Any]:
    """All figures; needs the workspace's messages on the path."""
    sys.path[:0] = [str(REPO / "src" / name) for name in PACKAGES]
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    import rclpy
    from rclpy.node import Node

    guard = measure_guard()
    rclpy.init()
    node = Node("bench")
    runs = [
        measure_nodes(node, rate_hz, n_busy, seconds)
        for rate_hz, n_busy in ((100, 0), (200, 0), (100, 2), (200, 2))
    ]
    node.destroy_node()
    rclpy.shutdown()
    return {"guard_us": guard, "nodes": runs}


def show(result: dict[str, Any]) -> None:
    """Print figures for a person."""
    for name, times in result["guard_us"].items():
        print(
            f"guard cycle, {name}: " + ", ".join(f"{k} {v:.0f}" for k, v in times.items()) + " us"
        )
    for run in result["nodes"]:
        interval = ", ".join(f"{k} {v:.2f}" for k, v in run["interval_ms"].items())
        shares = ", ".join(f"{k} {100 * v:.0f} %" for k, v in run["cpu_fraction"].items())
        print(
            f"{run['rate_hz']} Hz, {run['busy_processes']} busy processes: "
            f"real rate {run['real_rate_hz']:.1f} Hz"
        )
        print(f"  interval ms: {interval}; missed cycles {run['missed_cycles']}")
        print(f"  cycle ms: p50 {run['cycle_p50_ms']:.2f}, p99 {run['cycle_p99_ms']:.2f}")
        print(
            f"  leader stamp -> goal written ms: p50 {run['latency_p50_ms']:.1f}, "
            f"p99 {run['latency_p99_ms']:.1f}"
        )
        print(f"  CPU: {shares}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each run")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    options = parser.parse_args()
    print(
        f"machine: {platform.machine()}, {os.cpu_count()} cores, Python {sys.version.split()[0]}"
    )
    result = figures(options.seconds)
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
