# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Cost of one driver cycle: read current, velocity and position of six servos, write six goals.

Every driver talks to the same emulator, which runs in a process of its own, so that the figures
are of the driver alone:

- koch fast, koch classic: our bus with Fast Sync Read and with Sync Read;
- sdk: dynamixel-sdk's GroupSyncRead and GroupSyncWrite, nothing around them;
- lerobot: LeRobot's DynamixelMotorsBus, three sync reads and one sync write (it reads one register
  at a time), and, as "lerobot position", only what its KochFollower does: one read, one write.

Each runs freely, at 100 Hz, and freely again with the wire time of 1 Mbaud and a USB latency timer
of 1 ms. CPU is utime + stime of the driver's process per cycle.

Run alone: python benchmarks/bench_driver.py [--lerobot-python PATH] [--nodes] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from watch import cpu_s

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(__file__).resolve().parent.parent
PACKAGES = ("koch_rig", "koch_driver")
RIG = REPO / "config" / "rig.emulated.yaml"
FREE, PACED_HZ = 0.0, 100.0
WARM_UP = 50
DRIVERS = ("koch fast", "koch classic", "sdk", "lerobot position", "lerobot")


# -- the drivers: each returns a function that does cycle number k -----------------------------


def koch(port: str, *, fast: bool) -> Callable[[int], None]:
    """Our bus."""
    import numpy as np

    from koch_driver.bus.dynamixel import BusConfig, DynamixelBus
    from koch_driver.bus.motors import FOLLOWER_MOTORS

    bus = DynamixelBus(port, FOLLOWER_MOTORS, BusConfig(fast_read=fast))
    bus.open()
    if bus.fast_read is not fast:
        raise SystemExit("the emulator does not answer fast reads")
    bus.write_all("Torque_Enable", 1)
    start = bus.sync_read_state().position_ticks
    wave = [start + np.int64(k % 50) for k in range(50)]

    def cycle(k: int) -> None:
        bus.sync_read_state()
        bus.sync_write_goal(wave[k % 50])

    return cycle


def sdk(port: str) -> Callable[[int], None]:
    """dynamixel-sdk's group classes."""
    import dynamixel_sdk as dxl

    handler, packets = dxl.PortHandler(port), dxl.PacketHandler(2.0)
    handler.openPort()
    reader = dxl.GroupSyncRead(handler, packets, 126, 10)
    writer = dxl.GroupSyncWrite(handler, packets, 116, 4)
    ids = range(1, 7)
    for k in ids:
        reader.addParam(k)
        packets.write1ByteTxRx(handler, k, 64, 1)
    reader.txRxPacket()
    start = [signed(reader.getData(k, 132, 4)) for k in ids]

    def cycle(k: int) -> None:
        reader.txRxPacket()
        for i in ids:
            signed(reader.getData(i, 132, 4))
            signed(reader.getData(i, 128, 4))
            reader.getData(i, 126, 2)
        for i, ticks in zip(ids, start, strict=True):
            goal = ticks + k % 50
            writer.addParam(i, (goal & 0xFFFFFFFF).to_bytes(4, "little"))
        writer.txPacket()
        writer.clearParam()

    return cycle


def signed(value: int) -> int:
    """Two's complement of four bytes."""
    return value - (1 << 32) if value & 0x80000000 else value


def lerobot(port: str, *, everything: bool) -> Callable[[int], None]:
    """LeRobot's bus; runs in LeRobot's interpreter."""
    from lerobot.motors import Motor, MotorCalibration, MotorNormMode
    from lerobot.motors.dynamixel import DynamixelMotorsBus

    body, gripper = MotorNormMode.RANGE_M100_100, MotorNormMode.RANGE_0_100
    models = ["xl430-w250"] * 2 + ["xl330-m288"] * 4
    names = ["shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll", "gripper"]
    motors = {
        name: Motor(k, model, gripper if name == "gripper" else body)
        for k, (name, model) in enumerate(zip(names, models, strict=True), start=1)
    }
    file = json.loads((REPO / "config" / "calibration" / "sim_follower.json").read_text())
    calibration = {name: MotorCalibration(**row) for name, row in file.items()}
    bus = DynamixelMotorsBus(port, motors, calibration)
    bus.connect()
    bus.enable_torque()
    start = bus.sync_read("Present_Position")

    def cycle(k: int) -> None:
        bus.sync_read("Present_Position")
        if everything:
            bus.sync_read("Present_Velocity", normalize=False)
            bus.sync_read("Present_Current", normalize=False)
        bus.sync_write("Goal_Position", {n: v + (k % 50) * 0.05 for n, v in start.items()})

    return cycle


def make(driver: str, port: str) -> Callable[[int], None]:
    """The cycle of a driver by its name."""
    if driver.startswith("koch"):
        return koch(port, fast=driver == "koch fast")
    if driver == "sdk":
        return sdk(port)
    return lerobot(port, everything=driver == "lerobot")


# -- measuring ---------------------------------------------------------------------------------


def measure(cycle: Callable[[int], None], count: int, rate_hz: float) -> dict[str, float]:
    """Run cycles, freely or paced; figures of the cycle's own time and of the process's CPU."""
    failed = 0
    times = []
    for k in range(WARM_UP):
        with contextlib.suppress(ConnectionError):
            cycle(k)
    cpu, begin = time.process_time(), time.perf_counter()
    due = begin
    for k in range(count):
        start = time.perf_counter()
        try:
            cycle(k)
        except ConnectionError:  # LeRobot raises on every lost packet
            failed += 1
        times.append(time.perf_counter() - start)
        if rate_hz:
            due += 1.0 / rate_hz
            time.sleep(max(0.0, due - time.perf_counter()))
    wall = time.perf_counter() - begin
    cpu = time.process_time() - cpu
    times.sort()
    figures = {f"p{q}_us": times[min(count - 1, count * q // 100)] * 1e6 for q in (50, 95, 99)}
    return {
        "n": count,
        "median_us": figures.pop("p50_us"),
        **figures,
        "max_us": times[-1] * 1e6,
        "cpu_us_per_cycle": cpu / count * 1e6,
        "cycles_per_s": count / wall,
        "failed": failed,
    }


def worker(driver: str, port: str, count: int, rate_hz: float) -> None:
    """Measure one driver in this process and print JSON."""
    print("RESULT " + json.dumps(measure(make(driver, port), count, rate_hz)))


class Emulator:
    """The emulated follower in a process of its own."""

    def __init__(self, folder: str, latency_ms: float | None) -> None:
        words = [sys.executable, "-m", "koch_driver.emulator", "--rig", str(RIG)]
        words += ["--arm", "follower"]
        words += [] if latency_ms is None else ["--usb-latency-ms", str(latency_ms)]
        self.port = str(Path(folder) / "follower")
        self.process = subprocess.Popen(
            words, env={**environment(), "KOCH_RUN_DIR": folder}, stderr=subprocess.DEVNULL
        )

    def __enter__(self) -> Emulator:
        end = time.monotonic() + 20.0
        while not os.path.exists(self.port):
            if time.monotonic() > end or self.process.poll() is not None:
                raise SystemExit("the emulator did not start")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(10)

    def cpu_s(self) -> float:
        """CPU seconds it has used."""
        return cpu_s(self.process.pid)


def environment() -> dict[str, str]:
    """Environment with this checkout's packages first."""
    paths = [str(REPO / "src" / name) for name in PACKAGES]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1"}


def run_driver(
    driver: str, python: str, latency_ms: float | None, count: int, rate_hz: float
) -> dict[str, float] | None:
    """Measure one driver in a fresh process against a fresh emulator."""
    with tempfile.TemporaryDirectory() as folder, Emulator(folder, latency_ms) as emulator:
        words = [python, __file__, "--worker", driver, "--port", emulator.port]
        words += ["--count", str(count), "--rate", str(rate_hz)]
        before, start = emulator.cpu_s(), time.perf_counter()
        done = subprocess.run(words, env=environment(), capture_output=True, text=True)
        used = emulator.cpu_s() - before
        elapsed = time.perf_counter() - start
    lines = [x for x in done.stdout.splitlines() if x.startswith("RESULT ")]
    if not lines:
        print(f"{driver}: failed\n{done.stderr[-1500:]}", file=sys.stderr)
        return None
    figures: dict[str, float] = json.loads(lines[-1].removeprefix("RESULT "))
    figures["emulator_cpu_fraction"] = used / elapsed
    return figures


def machine() -> dict[str, object]:
    """What it ran on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.split(":", 1)[1].strip()
            break
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_1min": os.getloadavg()[0],
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--lerobot-python",
        default=os.environ.get("KOCH_LEROBOT_PYTHON", "").split(os.pathsep)[0],
        help="interpreter that has lerobot[dynamixel]",
    )
    parser.add_argument(
        "--nodes", action="store_true", help="also the ROS nodes (built workspace)"
    )
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--count", type=int, default=2000, help="cycles per measurement")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--port", help=argparse.SUPPRESS)
    parser.add_argument("--rate", type=float, default=FREE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(options.worker, options.port, options.count, options.rate)
        return
    result = {"benchmark": "driver", "machine": machine(), "bus": bus_figures(options)}
    if options.nodes:
        from bench_driver_nodes import figures  # the same folder; needs the built workspace

        result["nodes"] = figures()
        print(json.dumps(result["nodes"], indent=2))
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def bus_figures(options: argparse.Namespace) -> dict[str, dict[str, dict[str, float]]]:
    """All drivers under all conditions, printed as they come."""
    conditions = {
        "free": (None, options.count, FREE),
        "100 Hz": (None, options.count // 4, PACED_HZ),
        "free, wire 1 Mbaud, USB 1 ms": (1.0, options.count // 4, FREE),
    }
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for condition, (latency_ms, count, rate_hz) in conditions.items():
        print(f"\n{condition}")
        print(
            f"  {'driver':<18}{'median':>9}{'p95':>9}{'p99':>9}{'max':>9}  us   "
            f"{'CPU us/cycle':>12}{'cycles/s':>10}{'emulator':>10}{'N':>7}"
        )
        rows[condition] = {}
        for driver in DRIVERS:
            python = sys.executable
            if driver.startswith("lerobot"):
                if not options.lerobot_python:
                    continue
                python = options.lerobot_python
            row = run_driver(driver, python, latency_ms, count, rate_hz)
            if row is None:
                continue
            rows[condition][driver] = row
            print(
                f"  {driver:<18}{row['median_us']:9.0f}{row['p95_us']:9.0f}{row['p99_us']:9.0f}"
                f"{row['max_us']:9.0f}       {row['cpu_us_per_cycle']:12.0f}"
                f"{row['cycles_per_s']:10.0f}{row['emulator_cpu_fraction']:10.0%}{row['n']:7.0f}",
                flush=True,
            )
    return rows


if __name__ == "__main__":
    main()
