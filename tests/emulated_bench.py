# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Two emulated arms that a test's hand moves, and a camera that is a file."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from repository import ROOT

from koch_rig.arm_model import KOCH_V1_1

MIDDLE_RAD = (0.0, -0.485, -0.06, 0.0, 0.0, -0.784)  # config/rig.yaml: tick 2047
MOVED = ("shoulder_lift", "elbow_flex", "wrist_flex", "gripper")


def camera_file(path: Path, shade: int) -> Path:
    """Two seconds of a moving bar; the camera node plays it again and again."""
    path = path.with_suffix(".mp4")
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index in range(60):
            image = np.full((64, 96, 3), shade, np.uint8)
            image[:, index : index + 8] = 255
            file.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        file.mux(stream.encode(None))
    return path


# A process of its own, as their answers must not wait for this one's other threads. Each line on
# its input holds a joint of an arm at an angle, or lets it go; the answer is the joint's position.
ARMS = """
import sys
from koch_core.realtime import request_realtime
from koch_driver.emulator.build import build_chain
from koch_rig.load import load_rig
rig, middle = load_rig(sys.argv[1]), [float(word) for word in sys.argv[2:]]
request_realtime()
arms = {name: build_chain(rig, name, initial_rad=middle) for name in ("follower", "leader")}
for arm in arms.values():
    arm.open()
print("ready", flush=True)
for line in sys.stdin:
    arm, joint, angle = line.split()
    if angle != "look":
        arms[arm].hold(joint, None if angle == "free" else float(angle))
    print(arms[arm].read(joint, "Present_Position"), flush=True)
for arm in arms.values():
    arm.close()
"""


class Arms:
    """The emulated arms, and what a hand does to them."""

    def __init__(self, rig: Path) -> None:
        self._lock = threading.Lock()
        words = [str(rig), *map(str, MIDDLE_RAD)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", ARMS, *words], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def move(self, arm: str, joint: str, angle: float | str) -> int:
        """Hold a joint at an angle [rad], let it go (free), or only look; its ticks."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            print(arm, joint, angle, file=self._process.stdin, flush=True)
            return int(self._process.stdout.readline())

    def move_through_ranges(self, arm: str) -> None:
        for joint in MOVED:
            middle = MIDDLE_RAD[KOCH_V1_1.joints.index(joint)]
            for angle in (-0.6, 0.6, 0.0):
                self.move(arm, joint, middle + angle)
                time.sleep(0.5)

    def close(self) -> None:
        self._process.communicate(timeout=20.0)


def emulated_rig(folder: Path) -> Path:
    """A rig file of these arms, as real ones are written: nothing in it says that they are not."""
    text = (ROOT / "config/rig.emulated.yaml").read_text(encoding="utf-8")
    text = text.replace("${KOCH_RUN_DIR:-/tmp/koch}", str(folder))
    text = text.replace("simulation: {physics: first_order, seed: 0}\n", "")
    path = folder / "rig.yaml"
    path.write_text(text.replace("calibration/", f"{ROOT}/config/calibration/"))
    return path


@contextlib.contextmanager
def swinging(arms: Arms) -> Iterator[None]:
    """A hand swings the leader's joints."""
    stop = threading.Event()

    def swing() -> None:
        begin = time.monotonic()
        while not stop.wait(0.04):
            angle = 0.4 * math.sin(2.0 * math.pi * (time.monotonic() - begin) / 3.0)
            for joint, middle in zip(KOCH_V1_1.joints, MIDDLE_RAD, strict=True):
                arms.move("leader", joint, middle + angle)

    thread = threading.Thread(target=swing)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for joint, middle in zip(KOCH_V1_1.joints, MIDDLE_RAD, strict=True):
            arms.move("leader", joint, middle)
