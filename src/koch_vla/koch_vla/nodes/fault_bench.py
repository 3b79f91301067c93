# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A running graph on emulated arms and a camera, with a hand on every switch."""

from __future__ import annotations

import importlib
import io
import math
import os
import re
import resource
import signal
import threading
import time
from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from koch_interfaces.msg import GuardStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_core.image import encode_jpeg
from koch_core.realtime import request_realtime
from koch_driver.emulator import build_chain
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_ros.qos import LATCHED
from koch_ros.shared_topics import chosen_namespace, namespace_arguments
from koch_vla.nodes.running_graph import RunningGraph, by_name, seconds_of
from koch_vla.paths import find_shared

_HZ = 30.0
_FPS = 30.0
_SIZE = (240, 320)
_HELD_RAD = 0.02
_CAMERA = """
cameras:
  above:
    source: {url}
    width: {width}
    height: {height}
    fps: 30
    mount: {{parent: world, xyz: [0.2, 0, 0.6], rpy_deg: [180, 0, 0]}}
"""


class CameraFeed:
    """Serves a moving image, or a faulty one.

    Attributes:
        kind: "good", or what is wrong with the images.
    """

    def __init__(self) -> None:
        self.kind = "good"
        # By name: the arm computer has no koch_sim, and needs it for this round only.
        self._module = importlib.import_module("koch_sim.camera_server")
        self._server = self._module.CameraServer(["above"], 0)
        rows, columns = np.mgrid[0 : _SIZE[0], 0 : _SIZE[1]]
        base = np.stack([columns % 256, rows % 256, (rows + columns) % 256], -1).astype(np.uint8)
        self._good = [self._encode(np.roll(base, 8 * k, axis=1)) for k in range(40)]
        self._black = self._encode(np.zeros_like(base))
        self._grey = self._encode(np.full_like(base, 130))
        self._small = self._encode(base[::2, ::2])
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._server.start()
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the images come from."""
        return f"http://127.0.0.1:{self._server.port}/above.mjpeg"

    @staticmethod
    def _encode(image: np.ndarray) -> bytes:
        return encode_jpeg(image, 80)

    def _image(self, index: int) -> bytes | None:
        good, kind = self._good[index % len(self._good)], self.kind
        third = len(good) // 3
        flat = b"%d" % index  # behind the end mark, so that flat images are not identical
        bad = {
            "frozen": self._good[0],
            "black": self._black + flat,
            "of one colour": self._grey + flat,
            "of half the size": self._small,
            "half as many": good if index % 2 else None,
            "not coming": None,
        }
        if index % 4 == 0:
            noise = bytes((7 * k + 3) % 250 for k in range(200))
            bad["damaged inside, one in four"] = good[:third] + noise + good[third + 200 :]
            bad["cut off, one in four"] = good[: 2 * third]
        return bad.get(kind, good)

    def _serve(self) -> None:
        begin, index = time.monotonic(), 0
        while not self._stop.wait(max(0.0, begin + index / _FPS - time.monotonic())):
            index += 1
            data = self._image(index)
            if data is not None:
                frame = self._module.EncodedFrame(data, time.time_ns(), index)
                self._server.put("above", frame)

    def close(self) -> None:
        """Stop serving."""
        self._stop.set()
        self._thread.join(2.0)
        self._server.close()


class BenchOfFaults(ABC):
    """A running graph under faults, and what could be seen since `begin`; kinds of rigs follow.

    Attributes:
        folder: For ptys, log and episodes.
        graph: What runs.
    """

    WELL_S = 60.0  # patience of `recover`
    graph: RunningGraph

    def __init__(self, folder: Path) -> None:
        """Prepare; entering starts everything."""
        self.folder = folder
        self._stack = ExitStack()
        self._limits: tuple[int, int] | None = None
        self._log_place = 0
        self._begin_s = 0.0
        self._hung: list[threading.Timer] = []
        self._guard_said: list[tuple[float, str]] = []
        self._counts: dict[str, int] = {}

    def __enter__(self) -> BenchOfFaults:
        self._start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.__exit__(None, None, None)

    @abstractmethod
    def _start(self) -> None:
        """Start the graph and its hardware."""

    @abstractmethod
    def drive_by(self, who: str) -> None:
        """Let the leader's hand ("leader") or a policy ("sender") move the arm."""

    @abstractmethod
    def lost(self) -> str:
        """What did not come: gaps in the states, images."""

    @abstractmethod
    def _repair(self) -> None:
        """Give back what a fault took."""

    @abstractmethod
    def _well(self) -> bool:
        """Whether the arm follows, and all else goes on as well."""

    @abstractmethod
    def _take_up(self) -> None:
        """Do what a person does where the arm does not follow by itself."""

    def recover(self) -> float | None:
        """Mend everything; seconds until the arm follows again, None if it never did."""
        begin_s = time.monotonic()
        self._repair()
        self._wait_for_the_hung()
        asked_s = 0.0
        while time.monotonic() - begin_s < self.WELL_S:
            if self._well():
                return time.monotonic() - begin_s
            if time.monotonic() - asked_s > 3.0 and not self._follows():
                asked_s = time.monotonic()
                with suppress(AssertionError):  # a service that is not there yet
                    self._take_up()
            time.sleep(0.1)
        return None

    def _listen(self) -> None:
        """Hear the follower's guard, in a thread of its own."""
        context = self.graph.watcher.context
        self._node = Node("fault_bench", context=context)
        self._node.create_subscription(
            GuardStatus, "follower/guard_status", self._on_guard, LATCHED
        )
        executor = SingleThreadedExecutor(context=context)
        executor.add_node(self._node)
        threading.Thread(target=executor.spin, daemon=True).start()
        self._stack.callback(executor.shutdown)
        self._stack.callback(self._node.destroy_node)

    # -- switches -------------------------------------------------------------------------------

    def kill(self, node: str) -> None:
        """SIGKILL a node."""
        self.graph.kill(node)

    def hang(self, node: str, seconds: float) -> None:
        """Stop a node's process for some time."""
        pid = self.graph.pids()[node]
        os.kill(pid, signal.SIGSTOP)

        def go_on() -> None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

        timer = threading.Timer(seconds, go_on)
        timer.start()
        self._hung.append(timer)

    def _wait_for_the_hung(self) -> None:
        """Wait until every process that was stopped goes on."""
        for timer in self._hung:
            timer.join()
        self._hung.clear()

    def fill_disk(self) -> None:
        """Record an episode; writing fails after a megabyte, as on a full disk."""
        pid = self.graph.pids()["/recorder"]
        self._limits = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        assert self.graph.start_episode().success
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (400_000, self._limits[1]))

    def free_disk(self) -> None:
        """There is room again."""
        assert self._limits is not None
        resource.prlimit(self.graph.pids()["/recorder"], resource.RLIMIT_FSIZE, self._limits)

    # -- what can be seen -----------------------------------------------------------------------

    def _on_guard(self, message: GuardStatus) -> None:
        """Note what the guard refuses or changes more than before."""
        now_s = time.monotonic()
        counts = {f"guard refuses {r.source}: {r.text}": r.count for r in message.refusals}
        counts |= {f"guard holds back {c.joint}: rule {c.rule}": c.count for c in message.changes}
        for text, count in counts.items():
            if count > self._counts.get(text, 0):
                self._guard_said.append((now_s, text))
        self._counts |= counts

    def begin(self) -> None:
        """Look at what comes from now on."""
        watcher = self.graph.watcher
        self._begin_s = time.monotonic()
        self._begin_stamp_s = time.time()
        self._first_goal = max(0, len(watcher.goals) - 1)
        self._first_state = max(0, len(watcher.states) - 1)
        self._first_said = len(watcher.diagnosed)
        self._images = dict(watcher.images)
        self._log_place = self.graph.log.stat().st_size if self.graph.log.exists() else 0

    def named(self, cause: re.Pattern[str]) -> tuple[float, str] | None:
        """When and how a cause was named, on /diagnostics or in the log; None where it was not."""
        for when, name, level, text in self.graph.watcher.diagnosed[self._first_said :]:
            if level >= 1 and cause.search(f"{name}: {text}"):
                return when, f"{name}: {text}"
        for when, text in list(self._guard_said):
            if when >= self._begin_s and cause.search(text):
                return when, text
        with self.graph.log.open("rb") as log:
            log.seek(self._log_place)
            for line in io.TextIOWrapper(log, errors="replace"):
                if cause.search(line) and re.search("WARN|ERROR|FATAL|SIGKILL", line):
                    return time.monotonic(), line.strip()
        return None

    def quiet(self, cause: re.Pattern[str], seconds: float) -> None:
        """Wait until nothing says this cause any more: an older fault may still be told."""
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            newest: dict[str, tuple[int, str]] = {}
            for _, name, level, text in self.graph.watcher.diagnosed[-200:]:
                newest[name] = (level, f"{name}: {text}")
            if not any(level >= 1 and cause.search(text) for level, text in newest.values()):
                return
            time.sleep(0.1)

    def arm_did(self) -> str:
        """What the arm did from half a second after the fault on."""
        after_s = self._begin_stamp_s + 0.5
        watcher = self.graph.watcher
        goals = [m for _, m in watcher.goals[self._first_goal :] if seconds_of(m) > after_s]
        states = [m for m in watcher.states[self._first_state :] if seconds_of(m) > after_s]
        speed = max((max(map(abs, m.velocity)) for m in goals), default=0.0)
        if not goals and not states:
            return "nothing was read, no goal written"
        if not goals or time.time() - seconds_of(goals[-1]) > 1.0:
            return f"no goal written{self._sank(states)}"
        ways = np.ptp([by_name(m) for m in goals], axis=0)
        if ways.max() < _HELD_RAD:
            return f"held{self._sank(states)}"
        return f"moved on, {speed:.1f} rad/s at most"

    def _sank(self, states: list[JointState]) -> str:
        if len(states) < 2:
            return ""
        way = float(np.ptp([by_name(m) for m in states], axis=0).max())
        return f", moved {way:.2f} rad" if way > 0.05 else ""

    def _follows(self) -> bool:
        goals = self.graph.watcher.goals[-60:]
        if len(goals) < 60 or time.time() - seconds_of(goals[-1][1]) > 0.3:
            return False
        return bool(np.ptp([by_name(m) for _, m in goals], axis=0).max() > _HELD_RAD)


class FaultBench(BenchOfFaults):
    """The graph on emulated arms and a camera, with a sender of commands."""

    def __init__(self, folder: Path) -> None:
        """Prepare a rig in a folder; entering starts everything."""
        super().__init__(folder)
        self._mode = "good"
        self._by = "leader"
        self._second: Any = None
        self._off: dict[str, set[str]] = {"follower": set(), "leader": set()}

    def _start(self) -> None:
        stack = self._stack
        self.camera = CameraFeed()
        stack.callback(self.camera.close)
        rig_file = self._write_rig(self.camera.url)
        request_realtime()
        run = self.folder / "run"
        run.mkdir()
        os.environ["KOCH_RUN_DIR"] = str(run)
        rig = load_rig(rig_file)
        self._chains = {name: stack.enter_context(build_chain(rig, name)) for name in rig.arms}
        self.graph = stack.enter_context(RunningGraph(self.folder, rig_file))
        self._listen()
        self._publisher = self._node.create_publisher(
            JointState, "follower/command/policy", QoSProfile(depth=1)
        )
        self._home = [0.0, 0.0, 0.0, 0.0, 0.0, -0.5]
        self._stop = threading.Event()
        self._sender = threading.Thread(target=self._send_all, daemon=True)
        self._sender.start()
        stack.callback(self._stop.set)

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._sender.join(2.0)
        super().__exit__(*exc)

    def _write_rig(self, url: str) -> Path:
        """The emulated rig with a camera, and without `simulation`: a real one to every node."""
        source = find_shared("config/rig.emulated.yaml")
        assert source is not None
        text = source.read_text(encoding="utf-8")
        text = re.sub(r"^simulation:.*\n", "", text, flags=re.MULTILINE)
        text = text.replace("calibration: ", f"calibration: {source.parent}/")
        height, width = _SIZE
        text = text.replace(
            "\nlimits:", _CAMERA.format(url=url, width=width, height=height) + "\nlimits:"
        )
        text = text.replace(
            "\nfeatures:", "\n  cameras/above: {max_age_ms: 150}\n\nfeatures:\n"
            "  observation.images.above: {stream: cameras/above}",
        )  # fmt: skip
        path = self.folder / "rig.faults.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    # -- switches -------------------------------------------------------------------------------

    def arm(self, action: str, *arguments: object) -> None:
        """A fault of the follower's emulator."""
        self._do("follower", action, *arguments)

    def leader(self, action: str, *arguments: object) -> None:
        """A fault of the leader's emulator."""
        self._do("leader", action, *arguments)

    def _do(self, arm: str, action: str, *arguments: object) -> None:
        self._off[arm].add(action)
        getattr(self._chains[arm].faults, action)(*arguments)

    def hold(self, joint: str) -> None:
        """Someone holds a joint where it is."""
        angle = by_name(self.graph.watcher.states[-1])[KOCH_V1_1.joints.index(joint)]
        self.arm("hold", joint, float(angle))

    def restart(self, joint: str) -> None:
        """One servo restarts, as at a dip of its supply."""
        servo = self._chains["follower"].servo(joint)
        servo.power_up(servo.shaft_rad)

    def limp(self, joint: str) -> None:
        """A servo's torque is off without anyone having asked."""
        self._chains["follower"].servo(joint).set("Torque_Enable", 0)

    def blink(self, what: str, seconds: float) -> None:
        """Power or plug away for a moment."""
        off, on = {"power": ("power_cut", "power_return"), "plug": ("unplug", "replug")}[what]
        self.arm(off)
        time.sleep(seconds)
        self.arm(on)

    def send(self, mode: str) -> None:
        """What the sender does wrong."""
        self._mode = mode

    def second_sender(self) -> None:
        """Someone else sends on the same topic."""
        context = rclpy.Context()
        rclpy.init(args=namespace_arguments(chosen_namespace()), context=context)
        node = Node("second_sender", context=context)
        publisher = node.create_publisher(
            JointState, "follower/command/policy", QoSProfile(depth=1)
        )
        stop = threading.Event()

        def send() -> None:
            while not stop.wait(1.0 / _HZ):
                publisher.publish(self._message([0.5, 0.1, 0.1, 0.0, 0.5, -0.5], time.time_ns()))
            node.destroy_node()
            context.try_shutdown()

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        self._second = (stop, thread)

    def one_sender(self) -> None:
        """The other one has gone."""
        stop, thread = self._second
        stop.set()
        thread.join(2.0)

    # -- the sender -----------------------------------------------------------------------------

    def _message(self, positions: list[float], stamp_ns: int) -> JointState:
        message = JointState(name=list(KOCH_V1_1.joints), position=positions)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
        return message

    def drive_by(self, who: str) -> None:
        """Let the leader's hand ("leader") or a policy ("sender") move the arm."""
        self._by = who
        with suppress(AssertionError):
            self.graph.call(SetBool, "follower/teleop/clutch", data=who == "leader")

    def _send_all(self) -> None:
        """A slow swing of all joints, by the leader or as `send` asked for."""
        begin = time.monotonic()
        leader = self._chains["leader"].faults
        while not self._stop.wait(1.0 / (500.0 if self._mode == "flood" else _HZ)):
            swing = math.sin(1.5 * (time.monotonic() - begin))
            pose = [a + 0.25 * swing for a in self._home]
            if self._by == "leader":
                for joint, angle in zip(KOCH_V1_1.arm_joints, pose, strict=False):
                    leader.hold(joint, angle)
                continue
            stamp_ns = time.time_ns() + {"old": -(10**9), "future": 10**9}.get(self._mode, 0)
            message = self._message(self._spoilt(pose), stamp_ns)
            if self._mode == "names":
                message.name = list(KOCH_V1_1.arm_joints)
            if self._mode != "silent":
                self._publisher.publish(message)

    def _spoilt(self, pose: list[float]) -> list[float]:
        """The positions that the sender's fault makes of a pose."""
        if self._mode == "nan":
            return [math.nan, *pose[1:]]
        if self._mode == "jump":
            return [pose[0] + (1.0 if time.time() % 1.0 < 0.5 else 0.0), *pose[1:]]
        if self._mode == "table":
            return [pose[0], -1.4, 0.0, 0.2, *pose[4:]]
        if self._mode == "limits":
            return [9.0, *pose[1:]]
        return pose

    # -- what can be seen -----------------------------------------------------------------------

    def lost(self) -> str:
        """What did not come: gaps in the states, images."""
        watcher = self.graph.watcher
        stamps = np.array([seconds_of(m) for m in watcher.states[self._first_state :]])
        end = time.time()
        gaps = np.diff([*stamps, end]) if len(stamps) else np.array([end - self._begin_stamp_s])
        found = [f"{gaps.max():.1f} s of states"] if gaps.max() > 0.15 else []
        expected = (time.monotonic() - self._begin_s) * _FPS
        missing = expected - (watcher.images["above"] - self._images["above"])
        if missing > 0.1 * expected:
            found.append(f"{missing / expected:.0%} of the images")
        return ", ".join(found) or "nothing"

    def _repair(self) -> None:
        self._mode = "good"
        self.camera.kind = "good"
        for arm, chain in self._chains.items():
            off = self._off[arm]
            chain.faults.clear()
            if "power_cut" in off and "power_return" not in off:
                chain.faults.power_return()  # boots every servo, also those that had power
            if "unplug" in off and "replug" not in off:
                chain.faults.replug()
            off.clear()

    def _take_up(self) -> None:
        self.graph.take_up(engage=self._by == "leader")

    def _well(self) -> bool:
        watcher = self.graph.watcher
        before = watcher.images["above"]
        if not (self._follows() and self.graph.states_flow()):
            return False
        time.sleep(0.5)
        return watcher.images["above"] > before + 3 and len(self.graph.pids()) >= 6
