# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The other end of the policy node: what `koch run` and scripts use to run policies."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from action_msgs.msg import GoalStatus
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import PolicyStatus
from koch_interfaces.srv import StartEpisode, StopEpisode
from rclpy.action import ActionClient
from rclpy.executors import SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions
from std_srvs.srv import Trigger

from koch_policy.errors import PolicyError

_CALL_S = 20.0


class NoPolicyNodeError(PolicyError):
    """Nobody serves the action."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"no policy node answers: {why}. Start one with 'koch run --policy DIR' or "
            "'koch up --policy DIR'."
        )


class NoAnswerError(PolicyError):
    """A service is not there or does not answer."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what} does not answer. {advice}")


class PolicyProcess:
    """A policy node as a child process.

    Args:
        parameters: Node parameters, see koch_policy.nodes.parameters.
    """

    def __init__(self, parameters: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="koch_run_")
        path = Path(self._folder.name) / "policy.yaml"
        tree = {"/**": {"ros__parameters": dict(parameters)}}
        path.write_text(json.dumps(tree), encoding="utf-8")  # JSON is YAML, always quoted
        command = [sys.executable, "-m", "koch_policy.nodes.policy"]
        self._process = subprocess.Popen(
            [*command, "--ros-args", "--params-file", str(path)], start_new_session=True
        )

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def check(self) -> None:
        """Raise NoPolicyNodeError if the process has ended; its message is on stderr."""
        code = self._process.poll()
        if code is not None:
            raise NoPolicyNodeError(f"its process ended with code {code}")

    def close(self) -> None:
        """End the process."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()


class RunClient:
    """Runs policies through the RunPolicy action and records episodes beside."""

    def __init__(self) -> None:
        self._own_context = not rclpy.ok()
        if self._own_context:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("policy_terminal")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._action = ActionClient(self._node, RunPolicy, "policy/run")
        self._calls = {
            "pause": self._node.create_client(Trigger, "policy/pause"),
            "resume": self._node.create_client(Trigger, "policy/resume"),
            "start": self._node.create_client(StartEpisode, "episodes/start"),
            "stop": self._node.create_client(StopEpisode, "episodes/stop"),
        }
        self.status: PolicyStatus | None = None
        self._handle: Any = None
        self._result: Any = None
        self._node.create_subscription(PolicyStatus, "policy/status", self._on_status, 5)

    def __enter__(self) -> RunClient:
        """Return the client."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown(timeout_sec=1.0)
        self._node.destroy_node()
        if self._own_context:
            rclpy.try_shutdown()

    def spin(self, seconds: float) -> None:
        """Handle what comes in for some time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def wait_for_node(self, timeout_s: float, process: PolicyProcess | None = None) -> None:
        """Wait until a policy node serves the action.

        Raises:
            NoPolicyNodeError: None does in time, or its process ended.
        """
        end = time.monotonic() + timeout_s
        while not self._action.server_is_ready():
            if process is not None:
                process.check()
            if time.monotonic() > end:
                raise NoPolicyNodeError(f"nothing for {timeout_s:.0f} s")
            self.spin(0.1)

    def start(self, task: str, max_duration_s: float, strategy: str) -> None:
        """Begin a run.

        Raises:
            NoAnswerError: The node does not take the goal.
        """
        goal = RunPolicy.Goal(task=task, max_duration_s=max_duration_s, strategy=strategy)
        self._handle = self._wait(self._action.send_goal_async(goal), "policy/run")
        self._result = self._handle.get_result_async()

    def cancel(self) -> None:
        """Ask for the end of the run."""
        if self._handle is not None and self.result() is None:
            self._wait(self._handle.cancel_goal_async(), "policy/run")

    def result(self) -> RunPolicy.Result | None:
        """The result, None while the run goes on.

        Raises:
            NoPolicyNodeError: The node lost the goal.
        """
        if self._result is None or not self._result.done():
            return None
        answer = self._result.result()
        if answer.status == GoalStatus.STATUS_UNKNOWN:
            raise NoPolicyNodeError("it was restarted and does not know the run")
        return answer.result

    def switch(self, what: str) -> str:
        """Call the service `pause` or `resume`; its answer."""
        return str(self._call(what, Trigger.Request(), "Is the policy node alive?").message)

    def start_episode(self, task: str) -> str:
        """Begin recording; the episode's folder.

        Raises:
            NoAnswerError: No recorder, or it refuses.
        """
        advice = "Start the recorder with 'koch up --record'."
        answer = self._call("start", StartEpisode.Request(task=task), advice)
        if not answer.success:
            raise NoAnswerError(f"the recorder refused ({answer.message}) and", advice)
        return str(answer.path)

    def stop_episode(self, outcome: str) -> str:
        """End the recording with a label; the recorder's verdict and folder."""
        answer = self._call("stop", StopEpisode.Request(outcome=outcome, keep=True), "")
        return f"{answer.path}: {answer.verdict or answer.message}"

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message

    def _call(self, name: str, request: Any, advice: str) -> Any:
        client = self._calls[name]
        end = time.monotonic() + _CALL_S
        while not client.service_is_ready():
            if time.monotonic() > end:
                raise NoAnswerError(f"service {client.srv_name}", advice)
            self.spin(0.05)
        return self._wait(client.call_async(request), client.srv_name)

    def _wait(self, future: Any, what: str) -> Any:
        end = time.monotonic() + _CALL_S
        while not future.done():
            if time.monotonic() > end:
                raise NoAnswerError(what, "")
            self.spin(0.02)
        return future.result()
