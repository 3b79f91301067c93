# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A client of the simulated world, for subcommands that drive it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from koch_interfaces.msg import TaskState
from koch_interfaces.srv import ResetWorld
from std_srvs.srv import Trigger

from koch_ros.qos import STATE
from koch_ros.session import GraphSession

RESET_TIMEOUT_S = 20.0
ANSWER_TIMEOUT_S = 60.0  # planning took more than 20 s on a machine at load 30


class WorldClient:
    """The simulated world: reset, demonstrate, and what became of the task.

    Args:
        session: Spins while waiting.
        check: Called while waiting; raises when the graph has ended.
        speed: Of the simulation; a slow one gets more time.
    """

    def __init__(
        self, session: GraphSession, check: Callable[[], None], speed: float = 1.0
    ) -> None:
        self._session, self._check, self._speed = session, check, speed
        node = session.node
        self._reset: Any = node.create_client(ResetWorld, "sim/reset")
        self._demonstrate: Any = node.create_client(Trigger, "sim/demonstrate")
        self.task: TaskState | None = None
        node.create_subscription(TaskState, "sim/task_state", self._on_task, STATE)

    def patience_s(self, seconds: float) -> float:
        """How long to wait for what may take so many seconds of the world, [s]."""
        return seconds / min(1.0, self._speed)

    def reset(self, seed: int) -> None:
        """Put block and cup where a seed says, and wait until that is published."""
        self._call(self._reset, ResetWorld.Request(seed=seed))
        self.task = None
        self.wait(lambda task: task.sim_time_s < RESET_TIMEOUT_S, RESET_TIMEOUT_S)

    def demonstrate(self) -> None:
        """Let the scripted expert begin."""
        self._call(self._demonstrate, Trigger.Request())

    def wait(self, done: Callable[[TaskState], bool], timeout_s: float) -> bool:
        """Spin until the task's state is as wanted; False after the timeout."""

        def holds() -> bool:
            return self.task is not None and done(self.task)

        return self._session.spin_until(holds, self.patience_s(timeout_s), self._check)

    def _call(self, client: Any, request: Any) -> None:
        self._session.call(client, request, ANSWER_TIMEOUT_S, self._check, must_succeed=True)

    def _on_task(self, message: TaskState) -> None:
        self.task = message
