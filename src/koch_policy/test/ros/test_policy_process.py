# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node as a process: a real checkpoint, a real driver, configuration errors."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rclpy
import torch
from diagnostic_msgs.msg import DiagnosticArray
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import PolicyStatus
from sensor_msgs.msg import JointState
from std_msgs.msg import String
from std_srvs.srv import Trigger

from koch_policy.checkpoint import save_checkpoint
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.registry import build_model
from koch_policy.nodes.run_client import RunClient
from koch_policy.policy_configs import ActConfig
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

pytestmark = [pytest.mark.ros, pytest.mark.slow, pytest.mark.timeout(400)]
SOURCES = Path(__file__).resolve().parents[3]
PATIENCE_S = 120.0  # for loaded machines
Result = RunPolicy.Result


def save_act(folder: Path, camera: str = "", pose: float = 0.0) -> Path:
    """A tiny ACT that wants the arm near one pose [rad]: state and environment in."""
    inputs = {
        "observation.state": PolicyFeature(FeatureType.STATE, (J,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (J,)),
    }
    if camera:
        inputs[f"observation.images.{camera}"] = PolicyFeature(FeatureType.VISUAL, (3, 64, 64))
    config = ActConfig(
        input_features=inputs,
        output_features={"action": PolicyFeature(FeatureType.ACTION, (J,))},
        chunk_size=20, n_action_steps=10, dim_model=16, n_heads=2, dim_feedforward=32,
        use_vae=False, n_encoder_layers=1,
    )  # fmt: skip
    torch.manual_seed(0)
    statistics = {
        key: {"mean": torch.full(shape, mean), "std": torch.full(shape, std)}
        for key, shape, mean, std in (
            ("observation.state", (J,), 0.0, 1.0),
            ("observation.environment_state", (J,), 0.0, 1.0),
            ("action", (J,), pose, 0.02),
            (f"observation.images.{camera}", (3, 1, 1), 0.5, 0.5),
        )
        if camera or "images" not in key
    }
    extras = CheckpointMetadata(
        units="radians", fps=30.0, names={"action": list(KOCH_V1_1.joints)}
    )
    save_checkpoint(folder, config, build_model(config), statistics, extras)
    return folder


class Graph:
    """Processes on the emulated rig, as a launch file would start them."""

    def __init__(self, folder: Path) -> None:
        run = folder / "run"
        run.mkdir()
        text = (SOURCES.parent / "config" / "rig.emulated.yaml").read_text(encoding="utf-8")
        calibration = SOURCES.parent / "config" / "calibration"
        text = text.replace("calibration: calibration/", f"calibration: {calibration}/")
        text = (
            text.replace("max_age_ms: 50", "max_age_ms: 500")
            .replace(
                "features:\n",
                "features:\n  observation.environment_state: {stream: sim/environment_state}\n",
            )
            .replace("streams:\n", "streams:\n  sim/environment_state: {max_age_ms: 1000}\n")
        )
        self.rig = folder / "rig.yaml"
        self.rig.write_text(text, encoding="utf-8")
        paths = os.pathsep.join(str(path) for path in SOURCES.glob("koch_*"))
        self.environment = {
            **os.environ,
            "KOCH_RUN_DIR": str(run),
            "PYTHONPATH": os.pathsep.join([paths, os.environ.get("PYTHONPATH", "")]),
        }
        self._running: list[subprocess.Popen[str]] = []

    def start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            env=self.environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(process)
        return process

    def node(self, module: str, namespace: str = "/", **parameters: Any) -> Any:
        name = "policy" if module.endswith(".policy") else "driver"
        arguments = ["--ros-args", "-r", f"__ns:={namespace}", "-r", f"__node:={name}"]
        for name, value in {"rig": self.rig, **parameters}.items():
            arguments += ["-p", f"{name}:={value}"]
        return self.start(module, *arguments)

    def close(self) -> None:
        for process in reversed(self._running):
            if process.poll() is None:
                process.terminate()
        for process in self._running:
            process.communicate(timeout=30.0)


@pytest.fixture
def graph(tmp_path: Path) -> Iterator[Graph]:
    made = Graph(tmp_path)
    yield made
    made.close()


def test_a_checkpoint_for_another_camera_ends_with_2_and_says_why(
    ros: None, graph: Graph, tmp_path: Path
) -> None:
    checkpoint = save_act(tmp_path / "act", camera="front")
    process = graph.node("koch_policy.nodes.policy", checkpoint=checkpoint, runtime="torch")
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 2
    assert "does not fit the rig 'koch_emulated'" in errors
    assert "observation.images.front: not among the rig's features" in errors
    assert "Traceback" not in errors


class World:
    """Publishes the environment and watches the driver."""

    def __init__(self) -> None:
        self.client = RunClient()
        node = self.client.session.node
        self.goals: list[JointState] = []
        self.guard: dict[str, str] = {}
        from koch_interfaces.msg import NamedVector

        self._environment = node.create_publisher(NamedVector, "sim/environment_state", 5)
        self._kind = NamedVector
        node.create_subscription(JointState, "follower/joint_command", self.goals.append, 100)
        node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)
        self.stop = node.create_client(Trigger, "follower/stop")
        self.resume = node.create_client(Trigger, "follower/resume")
        node.create_timer(0.05, self._publish)

    def _publish(self) -> None:
        now = time.time_ns()
        message = self._kind(name=list("abcdef"), value=[0.0] * 6)
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(now, 1_000_000_000)
        self._environment.publish(message)

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            if status.name == "follower: guard":
                self.guard = {pair.key: pair.value for pair in status.values}

    def until(self, condition: Any, seconds: float = PATIENCE_S) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end
            self.client.spin(0.05)

    def distance(self, pose: float) -> float:
        """Of the newest goal from a pose, the greatest over the joints [rad]."""
        return max(abs(value - pose) for value in self.goals[-1].position)

    def commands(self, count: int) -> bool:
        """Whether the run published so many; fails when it ended instead."""
        assert self.client.result() is None
        status = self.client.status
        return status is not None and status.steps_executed >= count

    def moves(self, count: int) -> bool:
        """Whether a run is under way that published so many."""
        status = self.client.status
        running = status is not None and status.state == PolicyStatus.RUNNING
        return running and status.steps_executed >= count

    def ask(self, client: Any) -> Any:
        self.until(client.service_is_ready)
        future = client.call_async(Trigger.Request())
        self.until(future.done)
        return future.result()


def test_a_checkpoint_drives_the_arm_through_the_guard(
    ros: None, graph: Graph, tmp_path: Path
) -> None:
    """Emulated servos, driver and policy, three processes.

    Then the arm is stopped by hand, and in the next run the driver ends and comes back.
    """
    checkpoint = save_act(tmp_path / "act", pose=0.15)
    graph.start("koch_driver.emulator", "--rig", str(graph.rig))
    driver = graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
    policy = graph.node(
        "koch_policy.nodes.policy", checkpoint=checkpoint, runtime="torch", stale_abort=3.0,
        overrun_abort=5.0,
    )  # fmt: skip
    world = World()
    try:
        world.client.wait_for_node(PATIENCE_S)
        world.until(lambda: world.goals)
        known = world.client.session.node.get_node_names_and_namespaces
        world.until(lambda: ("policy_run", "/") in known())
        names = known()
        assert names.count(("policy", "/")) == names.count(("policy_run", "/")) == 1
        start = np.array(world.goals[-1].position)
        assert np.abs(start - 0.15).max() > 0.1, "it has somewhere to go"
        world.client.start("", 0.0, "")
        world.until(lambda: world.client.result() or world.distance(0.15) < 0.12)
        assert world.client.result() is None
        goals = np.array([message.position for message in world.goals])
        assert np.abs(np.diff(goals, axis=0)).max() < 3.0 * 0.01 * 1.01  # max_speed, no jump
        assert world.ask(world.stop).success
        world.until(lambda: world.client.result() is not None)
        stopped = world.client.result()
        assert stopped is not None
        assert stopped.code == Result.REFUSED
        assert "stopped" in stopped.reason
        assert world.ask(world.resume).success

        world.client.start("", 0.0, "")
        world.until(lambda: world.commands(10))
        driver.terminate()
        assert driver.wait(PATIENCE_S) == 0
        world.until(lambda: world.client.result() is not None)
        gone = world.client.result()
        assert gone is not None
        assert gone.code == Result.STALE_STREAM
        assert "follower/joint_states" in gone.reason

        graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
        world.goals.clear()
        world.until(lambda: world.goals)
        world.client.start("", 0.0, "")
        world.until(lambda: world.commands(10) and world.distance(0.15) < 0.12)
        world.client.cancel()
        world.until(lambda: world.client.result() is not None)
        again = world.client.result()
        assert again is not None
        assert again.code == Result.CANCELLED
    finally:
        world.client.close()
    policy.send_signal(signal.SIGINT)
    _, errors = policy.communicate(timeout=PATIENCE_S)
    assert policy.returncode == 0, errors
    assert rclpy.ok()


def test_a_killed_and_a_hung_policy_server_leave_the_arm_holding(
    ros: None, graph: Graph, tmp_path: Path, lerobot: Any
) -> None:
    """LeRobot's ACT behind its server drives the arm; each blow ends the run and is named."""
    checkpoint = save_act(tmp_path / "act", pose=0.15)
    graph.environment["KOCH_LEROBOT_PYTHON"] = lerobot.python
    graph.start("koch_driver.emulator", "--rig", str(graph.rig))
    graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
    policy = graph.node(
        "koch_policy.nodes.policy", checkpoint=checkpoint, runtime="lerobot", stale_abort=5.0,
        overrun_abort=4.0, num_threads=1,
    )  # fmt: skip
    world = World()
    try:
        world.client.wait_for_node(PATIENCE_S)
        world.until(lambda: world.goals)
        for blow, told in ((signal.SIGKILL, "ended by SIGKILL"), (signal.SIGSTOP, "it hangs")):
            world.client.start("", 0.0, "")
            world.until(lambda: world.moves(30))
            assert world.client.status.runtime == "lerobot-cpu"
            (server,) = children(policy.pid)
            os.kill(server, blow)
            world.until(lambda: world.client.result() is not None)
            result = world.client.result()
            assert result.code == Result.POLICY_ERROR
            assert told in result.reason
            world.goals.clear()
            world.until(lambda: len(world.goals) > 50)
            held = np.array([message.position for message in world.goals])
            assert np.ptp(held, axis=0).max() < 0.01, "it holds"
            world.until(lambda: begins(world))
            assert children(policy.pid) != [server]
            world.client.cancel()
            world.until(lambda: world.client.result() is not None)
    finally:
        world.client.close()
    (server,) = children(policy.pid)
    policy.send_signal(signal.SIGINT)
    _, errors = policy.communicate(timeout=PATIENCE_S)
    assert policy.returncode == 0, errors
    with pytest.raises(ProcessLookupError):
        os.kill(server, 0)


def serve(checkpoint: Path, environment: dict[str, str], port: int) -> tuple[Any, int]:
    """`koch serve`, and the port that it listens on."""
    words = ["serve", "--policy", str(checkpoint), "--port", str(port), "--runtime", "torch"]
    process = subprocess.Popen(
        [sys.executable, "-m", "koch_vla", *words, "--threads", "1"], env=environment,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if " at tcp://" in line:
            return process, int(line.rpartition(":")[2])
    raise AssertionError(f"koch serve ended with code {process.wait()}")


def test_a_policy_on_another_computer_drives_the_arm_and_may_be_lost(
    ros: None, graph: Graph, tmp_path: Path
) -> None:
    """`koch serve` is killed in a run: the arm holds, the cause is named; then it is back."""
    checkpoint = save_act(tmp_path / "act", pose=0.15)
    server, port = serve(checkpoint, graph.environment, 0)
    graph.start("koch_driver.emulator", "--rig", str(graph.rig))
    graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
    graph.node(
        "koch_policy.nodes.policy", checkpoint=f"tcp://127.0.0.1:{port}", stale_abort=5.0,
        overrun_abort=4.0,
    )  # fmt: skip
    world = World()
    try:
        world.client.wait_for_node(PATIENCE_S)
        world.until(lambda: world.goals)
        world.client.start("", 0.0, "")
        world.until(lambda: world.moves(30) and world.distance(0.15) < 0.12)
        server.kill()
        world.until(lambda: world.client.result() is not None)
        result = world.client.result()
        assert result.code == Result.POLICY_ERROR
        assert f"tcp://127.0.0.1:{port}" in result.reason
        world.goals.clear()
        world.until(lambda: len(world.goals) > 50)
        held = np.array([message.position for message in world.goals])
        assert np.ptp(held, axis=0).max() < 0.01, "it holds"
        server, _ = serve(checkpoint, graph.environment, port)
        world.until(lambda: begins(world))
        world.client.cancel()
        world.until(lambda: world.client.result() is not None)
    finally:
        world.client.close()
        server.kill()


def children(pid: int) -> list[int]:
    """Processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def begins(world: World) -> bool:
    """Start a run; False while it is refused because the server is still loading."""
    world.client.start("", 0.0, "")
    world.until(lambda: world.client.result() is not None or world.moves(10))
    result = world.client.result()
    assert result is None or "again" in result.reason or "attempt" in result.reason, result
    return result is None


class Person:
    """Sits at the terminal of `koch run` and answers what it asks."""

    def __init__(self, environment: dict[str, str], *words: str) -> None:
        self.terminal, end = pty.openpty()
        code = "import sys; from koch_policy.run_cli import main; sys.exit(main(sys.argv[1:]))"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *words], env=environment,
            stdin=end, stdout=end, stderr=end, close_fds=True,
        )  # fmt: skip
        os.close(end)
        self.text = ""
        self._read = 0

    def has_read(self, words: str) -> bool:
        """Whether something new says this; what is before it counts as read."""
        while select.select([self.terminal], [], [], 0)[0]:
            try:
                self.text += os.read(self.terminal, 65536).decode("utf-8", "replace")
            except OSError:  # the program has ended
                break
        place = self.text.find(words, self._read)
        if place >= 0:
            self._read = place + len(words)
        return place >= 0

    def press(self, key: str) -> None:
        os.write(self.terminal, key.encode())


def test_runs_are_judged_one_by_one(ros: None, graph: Graph, tmp_path: Path) -> None:
    """One judged by a key while it runs, one that ended by itself and is judged after, one not."""
    checkpoint, out = save_act(tmp_path / "act", pose=0.15), tmp_path / "judged"
    graph.start("koch_driver.emulator", "--rig", str(graph.rig))
    graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
    world = World()
    world.until(lambda: world.goals)
    with contextlib.ExitStack() as stack:
        stack.callback(world.client.close)
        person = Person(
            graph.environment, "--policy", str(checkpoint), "--rig", str(graph.rig), "--set",
            "stale_abort=3.0", "--num-episodes", "5", "--episode-time-s", "3", "--out", str(out),
            "--runtime", "torch",
        )  # fmt: skip
        stack.callback(person.process.kill)
        world.until(lambda: person.has_read("run 1 of 5: lay out set-up 1. space runs, q ends"))
        person.press(" ")
        world.until(lambda: person.has_read("running"))
        person.press("s")
        world.until(lambda: person.has_read("run 2 of 5"))
        assert world.distance(0.15) > 0.12, "the arm went home first"
        person.press(" ")
        world.until(lambda: person.has_read("s success, f failure"))
        person.press("f")
        world.until(lambda: person.has_read("2 not gripped"))
        person.press("2")
        world.until(lambda: person.has_read("run 3 of 5"))
        person.press(" ")
        world.until(lambda: person.has_read("s success, f failure"))
        person.press("n")
        world.until(lambda: person.has_read("run 4 of 5"))
        person.press(" ")
        world.until(lambda: person.has_read("s success, f failure"))
        person.process.send_signal(signal.SIGINT)  # who leaves here keeps all four
        world.until(lambda: person.process.poll() is not None)
        assert person.process.returncode == 0, person.text
        person.has_read("")
    said = " ".join(person.text.split())
    assert "1 of 2 (9 to 91 %) succeeded" in said
    assert "not judged, and not counted: 2 of 4 runs" in said
    trials = json.loads((out / "trials.json").read_text(encoding="utf-8"))["trials"]
    assert [trial["success"] for trial in trials] == [True, False, None, None]
    assert [trial["failure"] for trial in trials] == ["", "not gripped", "", ""]
    assert [trial["setup"] for trial in trials] == [1, 2, 3, 4]
    assert trials[0]["reason"] != trials[1]["reason"]
    assert trials[1]["duration_s"] == pytest.approx(3.0, abs=1.0)
    assert all(trial["guard"] for trial in trials), "the arm starts softly each time"


def test_a_line_tells_a_run_another_task(ros: None, graph: Graph, tmp_path: Path) -> None:
    """`koch run --interactive`: the run goes on with the new words, and q ends it."""
    checkpoint = save_act(tmp_path / "act", pose=0.15)
    graph.start("koch_driver.emulator", "--rig", str(graph.rig))
    graph.node("koch_driver.nodes.follower", "/follower", arm="follower")
    world = World()
    told: list[str] = []
    world.client.session.node.create_subscription(
        String, "policy/task", lambda message: told.append(message.data), 5
    )
    world.until(lambda: world.goals)
    with contextlib.ExitStack() as stack:
        stack.callback(world.client.close)
        person = Person(
            graph.environment, "--policy", str(checkpoint), "--rig", str(graph.rig), "--set",
            "stale_abort=3.0", "--task", "first", "--interactive", "--once", "--runtime", "torch",
        )  # fmt: skip
        stack.callback(person.process.kill)
        world.until(lambda: not person.has_read("\0") and world.moves(10))
        person.press("the red one\n")
        world.until(lambda: person.has_read("the run is told: the red one"))
        assert told == ["the red one"]
        assert world.client.status is not None
        steps = world.client.status.steps_executed
        world.until(lambda: world.moves(steps + 10))
        person.press("q\n")
        world.until(lambda: person.process.poll() is not None)
        person.has_read("")
    assert person.process.returncode == 0, person.text
    assert "cancelled" in person.text
