# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Lets the graph's policy drive while an episode is recorded, and the human between episodes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from koch_interfaces.msg import EpisodeStatus
from std_srvs.srv import SetBool

from koch_core.closing import Opening
from koch_core.errors import KochError
from koch_core.terminal import complain
from koch_episodes.recorder.session import RecorderPhase
from koch_policy.nodes.run_client import RunClient
from koch_ros.qos import LATCHED

_LOAD_S = 300.0
_PERIOD_S = 0.05


class EpisodePolicy(Opening):
    """Follows the recorder: a run begins with each episode and ends with it.

    The end of the episode, by key or by time, ends the run. Behind it the leader drives again,
    so that a person can lay out the table.

    Args:
        task: What the policy is told.
        check: Raises when waiting for the policy makes no more sense.
    """

    def __init__(self, task: str, check: Callable[[], None]) -> None:
        self._task, self._check = task, check
        self._client = RunClient()
        node = self._client.session.node
        node.create_subscription(EpisodeStatus, "episodes/status", self._on_status, LATCHED)
        self._enable = node.create_client(SetBool, "follower/teleop/clutch")
        self._phase = RecorderPhase.IDLE
        self._runs = False
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="episode_policy")

    def open(self) -> None:
        """Wait until the policy is loaded; it then follows the episodes.

        Raises:
            NoPolicyNodeError: It does not load.
        """
        try:
            self._client.wait_for_node(_LOAD_S, self._check)
        except BaseException:
            self._client.close()
            raise
        self._thread.start()

    def close(self) -> None:
        """End the run and leave."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        self._client.close()

    def _on_status(self, message: EpisodeStatus) -> None:
        self._phase = RecorderPhase(message.phase)

    def _follow(self) -> None:
        while not self._closing.is_set():
            self._client.spin(_PERIOD_S)
            records = self._phase is RecorderPhase.RECORDING
            try:
                if records and not self._runs:
                    self._runs = True
                    self._client.start(self._task, 0.0, "")
                elif self._runs and not records:
                    self._end()
            except KochError as error:  # the episode goes on; its verdict shows what is missing
                complain(f"koch record: the policy does not drive: {error}")
        if self._runs:
            self._end()

    def _end(self) -> None:
        self._runs = False
        self._client.cancel()
        if self._enable.service_is_ready():
            self._client.session.call(self._enable, SetBool.Request(data=True))
