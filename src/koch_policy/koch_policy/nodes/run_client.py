# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The other end of the policy node: what `koch run` and scripts use to run policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from action_msgs.msg import GoalStatus
from koch_interfaces.action import RunPolicy
from koch_interfaces.msg import PolicyStatus
from rclpy.action import ActionClient
from std_msgs.msg import String
from std_srvs.srv import Trigger

from koch_core.closing import Closing
from koch_episodes.recorder.nodes.client import EpisodeControl, HighlightControl
from koch_policy.errors import PolicyError
from koch_ros.errors import RefusedError
from koch_ros.process import NodeProcess
from koch_ros.qos import COMMAND, STATE
from koch_ros.session import GraphSession


class NoPolicyNodeError(PolicyError):
    """No node serves the action."""

    def __init__(
        self,
        why: str,
        advice: str = "Start one with 'koch run --policy DIR' or 'koch up --policy DIR'.",
    ) -> None:
        super().__init__(f"no policy node answers: {why}. {advice}")


class PolicyProcess(NodeProcess):
    """A policy node as a child process; its messages go to this process's stderr.

    Args:
        parameters: Node parameters, see koch_policy.nodes.parameters.
        quiet: Show nothing of what it says, but the last line when it ends.
    """

    def __init__(self, parameters: Mapping[str, Any], *, quiet: bool = False) -> None:
        super().__init__("koch_policy.nodes.policy", parameters, quiet=quiet)

    def check(self) -> None:
        """Notice its end.

        Raises:
            NoPolicyNodeError: It ended.
        """
        code = self.exit_code()
        if code is not None:
            raise NoPolicyNodeError(
                f"its process ended with exit code {code}",
                self.last_words() or "Its output is above.",
            )


class RunClient(Closing):
    """Runs policies through the RunPolicy action and records episodes beside."""

    def __init__(self) -> None:
        self.session = GraphSession("policy_terminal")
        node = self.session.node
        self._action = ActionClient(node, RunPolicy, "policy/run")
        self._switches = {
            name: node.create_client(Trigger, f"policy/{name}") for name in ("pause", "resume")
        }
        self._task = node.create_publisher(String, "policy/task", COMMAND)
        self._episodes = EpisodeControl(self.session)
        self.highlight = HighlightControl(self.session)
        self.status: PolicyStatus | None = None
        self._handle: Any = None
        self._result: Any = None
        node.create_subscription(PolicyStatus, "policy/status", self._on_status, STATE)

    def close(self) -> None:
        """Leave the graph."""
        self.session.close()

    def spin(self, seconds: float) -> None:
        """Handle what comes in for some time."""
        self.session.spin(seconds)

    def follows_clock(self, timeout_s: float) -> bool:
        """Whether the graph lives by /clock; waits until its nodes are seen."""
        self.session.meet_graph(timeout_s)
        return self.session.follow_graph_clock()

    def wait_for_node(self, timeout_s: float, check: Callable[[], None] = lambda: None) -> None:
        """Wait until a policy node serves the action.

        Args:
            timeout_s: Longest wait [s].
            check: Called while waiting; raises when waiting makes no more sense.

        Raises:
            NoPolicyNodeError: None does in time.
        """
        if not self.session.spin_until(self._action.server_is_ready, timeout_s, check):
            raise NoPolicyNodeError(f"nothing for {timeout_s:.0f} s")

    def start(self, task: str, max_duration_s: float, strategy: str) -> None:
        """Begin a run.

        Raises:
            NoAnswerError: The node does not take the goal.
        """
        goal = RunPolicy.Goal(task=task, max_duration_s=max_duration_s, strategy=strategy)
        sent = self._action.send_goal_async(goal)
        self._handle = self.session.result(sent, "action policy/run")
        self._result = self._handle.get_result_async()

    def cancel(self) -> None:
        """Ask for the end of the run."""
        if self._handle is not None and self.result() is None:
            self.session.result(self._handle.cancel_goal_async(), "action policy/run")

    def result(self) -> RunPolicy.Result | None:
        """The result, None while the run goes on.

        Raises:
            NoPolicyNodeError: The node lost the goal.
        """
        if self._result is None or not self._result.done():
            return None
        answer = self._result.result()
        if answer.status == GoalStatus.STATUS_UNKNOWN:
            raise NoPolicyNodeError(
                "it was restarted and does not know the run", "Run the policy again."
            )
        return answer.result

    def switch(self, what: str) -> str:
        """Call the service `pause` or `resume`; its answer.

        Raises:
            NoAnswerError: The node does not answer.
        """
        answer = self.session.call(self._switches[what], Trigger.Request())
        return str(answer.message)

    def tell(self, task: str) -> None:
        """Give the run that is under way another task."""
        self._task.publish(String(data=task))

    def start_episode(self, task: str) -> str:
        """Begin recording; the episode's folder.

        Raises:
            NoAnswerError: No recorder runs.
            RefusedError: A stream is dead.
        """
        return self._episodes.start(task)

    def stop_episode(self, outcome: str) -> str:
        """End the recording with a label; its folder and the recorder's verdict, or complaint.

        Raises:
            NoAnswerError: The recorder does not answer.
        """
        try:
            path, verdict = self._episodes.stop(outcome)
        except RefusedError as exc:  # it ended the episode by itself, or could not save it
            return str(exc)
        return f"{path}: {verdict}"

    def _on_status(self, message: PolicyStatus) -> None:
        self.status = message
