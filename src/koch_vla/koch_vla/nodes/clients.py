# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Clients of the simulated world and of the recorder, for verbs that drive both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from koch_interfaces.msg import TaskState
from koch_interfaces.srv import ResetWorld, StartEpisode, StopEpisode
from rclpy.qos import QoSProfile
from std_srvs.srv import Trigger

from koch_vla.errors import NoAnswerError, RefusedError
from koch_vla.nodes.session import Session

ANSWER_TIMEOUT_S = 20.0


def call(
    session: Session,
    client: Any,
    request: Any,
    check: Callable[[], None],
    timeout_s: float = ANSWER_TIMEOUT_S,
) -> Any:
    """Call a service whose answer has `success` and `message`.

    Args:
        session: Spins while waiting.
        client: An rclpy service client.
        request: Its request.
        check: Called while waiting; raises when waiting makes no more sense.
        timeout_s: How long the service may take to be there and to answer [s].

    Raises:
        NoAnswerError: The service is not there, or does not answer in time.
        RefusedError: It answered that it could not.
    """
    deadline = time.monotonic() + timeout_s
    while not client.service_is_ready():
        check()
        session.spin_until(lambda: False, 0.1)
        if time.monotonic() > deadline:
            raise NoAnswerError(client.srv_name, timeout_s)
    future = client.call_async(request)
    while not future.done():
        check()
        session.spin_until(future.done, 0.2)
        if time.monotonic() > deadline:
            raise NoAnswerError(client.srv_name, timeout_s)
    answer = future.result()
    if not answer.success:
        raise RefusedError(client.srv_name, answer.message)
    return answer


class WorldClient:
    """The simulated world: reset, demonstrate, and what became of the task.

    Args:
        session: Spins while waiting.
        check: Called while waiting; raises when the graph has ended.
    """

    def __init__(self, session: Session, check: Callable[[], None]) -> None:
        self._session, self._check = session, check
        node = session.node
        self._reset: Any = node.create_client(ResetWorld, "/sim/reset")
        self._demonstrate: Any = node.create_client(Trigger, "/sim/demonstrate")
        self.task: TaskState | None = None
        node.create_subscription(TaskState, "/sim/task_state", self._on_task, QoSProfile(depth=10))

    def reset(self, seed: int) -> None:
        """Put block and cup where a seed says, and wait until that is published."""
        call(self._session, self._reset, ResetWorld.Request(seed=seed), self._check)
        self.task = None
        self.wait(lambda task: task.sim_time_s < ANSWER_TIMEOUT_S, ANSWER_TIMEOUT_S)

    def demonstrate(self) -> None:
        """Let the scripted hand begin."""
        call(self._session, self._demonstrate, Trigger.Request(), self._check)

    def wait(self, done: Callable[[TaskState], bool], timeout_s: float) -> bool:
        """Spin until the task's state is as wanted; False after the timeout."""
        deadline = time.monotonic() + timeout_s
        while self.task is None or not done(self.task):
            self._check()
            if time.monotonic() > deadline:
                return False
            self._session.spin_until(lambda: False, 0.05)
        return True

    def _on_task(self, message: TaskState) -> None:
        self.task = message


class RecorderClient:
    """The episode recorder: start and stop.

    Args:
        session: Spins while waiting.
        check: Called while waiting; raises when the graph has ended.
    """

    def __init__(self, session: Session, check: Callable[[], None]) -> None:
        self._session, self._check = session, check
        self._start: Any = session.node.create_client(StartEpisode, "/episodes/start")
        self._stop: Any = session.node.create_client(StopEpisode, "/episodes/stop")

    def start(self, task: str, timeout_s: float) -> None:
        """Begin an episode once all streams live.

        Raises:
            RefusedError: A stream is dead; the message names it.
        """
        request = StartEpisode.Request(task=task, start_timeout_s=timeout_s)
        patience_s = timeout_s + ANSWER_TIMEOUT_S
        call(self._session, self._start, request, self._check, patience_s)

    def stop(self, *, success: bool) -> tuple[str, str]:
        """End the episode; a failed one goes to the trash. Returns its path and verdict."""
        outcome = "success" if success else "failure"
        request = StopEpisode.Request(outcome=outcome, keep=success)
        answer = call(self._session, self._stop, request, self._check)
        return answer.path, answer.verdict
