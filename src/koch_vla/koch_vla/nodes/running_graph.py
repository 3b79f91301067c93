# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The whole simulated graph under `koch up`, and someone who watches it and pulls its plugs."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.msg import EpisodeStatus, GuardStatus, TaskState
from koch_interfaces.srv import ResetWorld, StartEpisode, StopEpisode
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CompressedImage, JointState
from std_srvs.srv import SetBool, Trigger

from koch_episodes.decode import joint_vector
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.stream import image_topic
from koch_ros.qos import LATCHED
from koch_ros.shared_topics import chosen_namespace, namespace_arguments
from koch_vla.paths import find_shared

RIG_FILE = find_shared("config/rig.sim.yaml") or Path("config/rig.sim.yaml")
PATIENCE_S = 30.0  # other processes may use the machine
_RELIABLE = QoSProfile(depth=2000)


def seconds_of(message: Any) -> float:
    """The stamp of a message in [s]."""
    return float(message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_S) -> float:
    """Wait until something holds; how long that took. AssertionError names what did not."""
    began = time.monotonic()
    while not condition():
        waited = time.monotonic() - began
        assert waited < seconds, f"not within {seconds:.0f} s: {what}"
        time.sleep(0.02)
    return time.monotonic() - began


def free_port() -> int:
    """A TCP port of the loopback interface that no one uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Watcher(Node):
    """Hears what the graph says. Lists only grow; they may be read from any thread."""

    def __init__(
        self, context: rclpy.Context, arms: Iterable[str], cameras: Iterable[str], follower: str
    ) -> None:
        super().__init__("watcher", context=context)
        self.goals: list[tuple[int, JointState]] = []  # publication number, message
        self.states: list[JointState] = []
        self.diagnosed: list[tuple[float, str, int, str]] = []  # when, name, level, message
        self.task: TaskState | None = None
        self.episodes: EpisodeStatus | None = None
        self.images = dict.fromkeys(cameras, 0)
        self.guard_said: dict[str, GuardStatus] = {}  # newest, by arm
        self.read = dict.fromkeys(arms, 0)  # joint states, by arm
        for arm in self.read:
            self._watch_arm(arm)
        self.create_subscription(JointState, f"{follower}/joint_command", self._on_goal, _RELIABLE)
        states = f"{follower}/joint_states"
        self.create_subscription(JointState, states, self.states.append, _RELIABLE)
        self.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 100)
        self.create_subscription(TaskState, "sim/task_state", self._on_task, 10)
        self.create_subscription(EpisodeStatus, "episodes/status", self._on_episodes, 10)
        for name in self.images:
            self._count_images(name)

    def _watch_arm(self, arm: str) -> None:
        def keep(message: GuardStatus) -> None:
            self.guard_said[arm] = message

        def count(_: bytes) -> None:
            self.read[arm] += 1

        self.create_subscription(GuardStatus, f"{arm}/guard_status", keep, LATCHED)
        self.create_subscription(JointState, f"{arm}/joint_states", count, 10, raw=True)

    def _count_images(self, name: str) -> None:
        def count(_: bytes) -> None:
            self.images[name] += 1

        self.create_subscription(CompressedImage, image_topic(name), count, 1, raw=True)

    def _on_goal(self, message: JointState, info: dict[str, Any]) -> None:
        self.goals.append((int(info["publication_sequence_number"]), message))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        now_s = time.monotonic()
        for item in message.status:
            level = int.from_bytes(item.level, "little")
            self.diagnosed.append((now_s, item.name, level, item.message))

    def _on_task(self, message: TaskState) -> None:
        self.task = message

    def _on_episodes(self, message: EpisodeStatus) -> None:
        self.episodes = message


class RunningGraph:
    """`koch up --record` on a simulated rig, its nodes' processes, and a Watcher.

    Args:
        folder: For ptys, log and episodes.
        rig_file: The rig.
        settings: Parameters of its nodes, as `koch up --set` takes them.

    Use as a context manager.
    """

    def __init__(
        self, folder: Path, rig_file: Path = RIG_FILE, settings: Iterable[str] = ()
    ) -> None:
        self.rig: Rig = load_rig(rig_file)
        self.episodes = folder / "episodes"
        self.log = folder / "up.log"
        self.rig_file = rig_file
        self._settings = tuple(settings)
        self._environment = {
            **os.environ,
            "KOCH_RUN_DIR": str(folder / "run"),
            "KOCH_SIM_PORT": str(free_port()),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        self.domain_id = int(os.environ["ROS_DOMAIN_ID"])  # of the nodes, whatever follows
        self.broken: set[str] = set()  # nodes that a test has killed
        self._namespace = chosen_namespace()  # koch up takes it from the environment as well
        self._context = rclpy.Context()
        self._executor: SingleThreadedExecutor | None = None
        self._clients: dict[str, Any] = {}

    def __enter__(self) -> RunningGraph:
        self.episodes.mkdir(parents=True)
        command = [sys.executable, "-m", "koch_vla", "up", "--rig", str(self.rig_file)]
        command += ["--record", "--record-root", str(self.episodes), "--log", str(self.log)]
        command += [word for setting in self._settings for word in ("--set", setting)]
        self._up = subprocess.Popen(
            command, env=self._environment, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT
        )
        rclpy.init(
            args=namespace_arguments(self._namespace),
            context=self._context,
            signal_handler_options=SignalHandlerOptions.NO,
        )
        self.watcher = Watcher(
            self._context, self.rig.arms, self.rig.cameras, self.rig.follower.name
        )
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.watcher)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._executor is not None
        self._up.send_signal(signal.SIGINT)
        try:
            self._up.wait(PATIENCE_S)
        finally:
            self._up.kill()
            self._executor.shutdown()
            self._thread.join(5.0)
            self.watcher.destroy_node()
            self._context.try_shutdown()

    def _spin(self) -> None:
        assert self._executor is not None
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    # -- the nodes ------------------------------------------------------------------------------

    def pids(self) -> dict[str, int]:
        """The process of each node by its name within the rig, as the supervisor's children."""
        found = {}
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                words = (stat.parent / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue  # it ended between listing and reading
            names = dict(word.split(":=", 1) for word in words if word.startswith("__n"))
            if parent == self._up.pid and len(names) == 2:
                full = f"{names['__ns'].rstrip('/')}/{names['__node']}"
                found[full.removeprefix(f"/{self._namespace}" * bool(self._namespace))] = int(
                    stat.parent.name
                )
        return found

    def kill(self, node: str) -> int:
        """SIGKILL one node; the pid that it had."""
        pid = self.pids()[node]
        os.kill(pid, signal.SIGKILL)
        return pid

    @contextmanager
    def hung(self, node: str) -> Iterator[None]:
        """Let a node's process stand still, as one that hangs; afterwards it goes on."""
        pid = self.pids()[node]
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)

    def wait_respawned(self, node: str, old_pid: int) -> None:
        """Wait until the supervisor has started a node again."""
        wait_for(lambda: self.pids().get(node, old_pid) != old_pid, f"a new {node}")

    # -- services -------------------------------------------------------------------------------

    def call(self, kind: Any, name: str, **fields: Any) -> Any:
        """Call a service, named within the rig's namespace, and wait for its answer."""
        client = self._client(kind, name)
        wait_for(client.service_is_ready, f"service {name}")
        future = client.call_async(kind.Request(**fields))
        wait_for(future.done, f"an answer of {name}", PATIENCE_S + 10.0)
        return future.result()

    def _client(self, kind: Any, name: str) -> Any:
        name = name.lstrip("/")
        if name not in self._clients:
            self._clients[name] = self.watcher.create_client(kind, name)
        return self._clients[name]

    def switch(self, name: str, works: bool) -> None:
        """Break or repair something of the simulated hardware."""
        assert self.call(SetBool, f"sim/{name}", data=works).success

    def start_episode(self, patience_s: float = PATIENCE_S) -> Any:
        """Begin an episode as soon as all streams live."""
        return self.call(StartEpisode, "episodes/start", start_timeout_s=patience_s)

    def stop_episode(self) -> Any:
        """End the episode and keep it."""
        return self.call(StopEpisode, "episodes/stop", outcome="success", keep=True)

    def lay_out(self, seed: int) -> None:
        """Put block and cup where a seed says."""
        assert self.call(ResetWorld, "sim/reset", seed=seed).success

    def begin_demonstration(self) -> None:
        """Let the scripted expert begin."""
        answer = self.call(Trigger, "sim/demonstrate")
        assert answer.success, answer.message
        wait_for(lambda: self.hand() == "moving", "a scripted expert that moves")

    def take_up(self, *, engage: bool = True) -> None:
        """What a person does once the cause of a fault is gone: torque on, resume, engage.

        What answers no is asked again by the caller, or is what the caller looks at.
        """
        follower = self.rig.follower.name
        self._insist(SetBool, f"{follower}/torque", data=True)
        self._insist(Trigger, f"{follower}/resume")
        self._insist(SetBool, f"{follower}/teleop/clutch", data=engage)

    def _insist(self, kind: Any, name: str, **fields: Any) -> Any:
        """Call a service that may be asked twice; a request to a process just killed is lost."""
        client = self._client(kind, name)
        for _ in range(4):
            wait_for(client.service_is_ready, f"service {name}")
            future = client.call_async(kind.Request(**fields))
            end_s = time.monotonic() + PATIENCE_S / 4
            while time.monotonic() < end_s:
                if future.done():
                    return future.result()
                time.sleep(0.01)
        raise AssertionError(f"not within {PATIENCE_S:.0f} s: an answer of {name}")

    def demonstrate(self, seed: int) -> None:
        """Let the scripted expert begin, and wait until the follower follows it.

        On a slow machine teleop may let go of a late leader. Then a person takes the arm up and
        starts the demonstration again.
        """
        for last in (False, False, True):
            self.take_up()
            self.lay_out(seed)
            self.begin_demonstration()
            try:
                wait_for(lambda: self.speed() > 0.3, "a follower that moves", PATIENCE_S / 2)
                return
            except AssertionError as error:
                if last:
                    raise AssertionError(f"{error}\n{self.told()}") from None

    def told(self, lines: int = 15) -> str:
        """What the guards say, and the last lines of koch up's log."""
        modes = [
            f"{arm}: {said.mode} {said.reason}" for arm, said in self.watcher.guard_said.items()
        ]
        log = self.log.read_text(errors="replace").splitlines()[-lines:]
        return "\n".join([*modes, f"the expert: {self.hand()}", *log])

    # -- what can be seen -----------------------------------------------------------------------

    def pose(self) -> np.ndarray:
        """Newest measured joint angles in [rad]."""
        return by_name(self.watcher.states[-1])

    def speed(self) -> float:
        """Fastest joint over the last tenth of a second in [rad/s]; 0 without fresh states."""
        recent = self.watcher.states[-10:]
        if len(recent) < 2 or time.time() - seconds_of(recent[-1]) > 0.5:
            return 0.0
        elapsed = seconds_of(recent[-1]) - seconds_of(recent[0])
        return float(np.abs(by_name(recent[-1]) - by_name(recent[0])).max() / max(elapsed, 1e-3))

    def states_flow(self) -> bool:
        """The follower's states are fresh."""
        states = self.watcher.states
        return bool(states) and time.time() - seconds_of(states[-1]) < 1.0

    def hand(self) -> str:
        """What the scripted expert does."""
        return "" if self.watcher.task is None else str(self.watcher.task.detail)

    def recorder_phase(self) -> int:
        """Newest phase of the recorder, -1 before it was heard."""
        status = self.watcher.episodes
        return -1 if status is None else int(status.phase)

    def diagnosed(self, since_s: float, name: str, part: str, level: int = 1) -> bool:
        """Whether a status named `name` at least `level` contained a text since a time."""
        return any(
            when >= since_s and name in who and grade >= level and part in text
            for when, who, grade, text in list(self.watcher.diagnosed)
        )

    def _arm_runs(self, arm: str, seen: int) -> bool:
        """Whether an arm is connected, and was read half a second's worth of times since."""
        guard = self.watcher.guard_said.get(arm)
        connected = guard is not None and guard.mode != GuardStatus.DISCONNECTED
        return connected and self.watcher.read[arm] - seen > self.rig.arm(arm).rate_hz / 2

    def wait_diagnosed(self, since_s: float, name: str, part: str, level: int = 1) -> None:
        """Wait until the cause is on /diagnostics."""
        said = f"/diagnostics: {name} with '{part}'"
        wait_for(lambda: self.diagnosed(since_s, name, part, level), said)

    def wait_healthy(self, seconds: float = PATIENCE_S) -> None:
        """Wait until both arms run and every camera delivers."""
        for arm, seen in dict(self.watcher.read).items():
            wait_for(partial(self._arm_runs, arm, seen), f"{arm} is running", seconds)
        before = dict(self.watcher.images)
        wait_for(lambda: all(n > before[c] + 5 for c, n in self.watcher.images.items()), "images")
        wait_for(self.states_flow, "joint states of the follower")


def by_name(message: JointState) -> np.ndarray:
    """Angles of a message in the order of its arm's joints, [rad]."""
    return joint_vector(message.name, message.position)
