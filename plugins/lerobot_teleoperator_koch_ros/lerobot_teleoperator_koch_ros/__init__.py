# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's teleoperator `koch_ros`: the leaders of a running koch_vla graph."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot_robot_koch_ros.link import DEFAULT_ADDRESS, BridgeError, Link

__all__ = ["KochRosLeader", "KochRosLeaderConfig"]


@TeleoperatorConfig.register_subclass("koch_ros")
@dataclass
class KochRosLeaderConfig(TeleoperatorConfig):
    """Where the bridge is.

    Attributes:
        address: HOST:PORT of `koch bridge`.
        deadline_s: How long each of its answers may take [s].
    """

    address: str = DEFAULT_ADDRESS
    deadline_s: float = 2.0


class KochRosLeader(Teleoperator):
    """Where the leaders of the graph's rig are."""

    config_class = KochRosLeaderConfig
    name = "koch_ros"

    def __init__(self, config: KochRosLeaderConfig) -> None:
        super().__init__(config)
        self.config = config
        self._link: Link | None = None

    @cached_property
    def _names(self) -> list[str]:
        link = self._link or Link(self.config.address, self.config.deadline_s)
        if self._link is None:
            link.close()
        return list(link.about["action"])

    @property
    def action_features(self) -> dict[str, Any]:
        """A number for each joint."""
        return dict.fromkeys(self._names, float)

    @property
    def feedback_features(self) -> dict[str, Any]:
        """None: the leader gives no force back."""
        return {}

    @property
    def is_connected(self) -> bool:
        """A connection is open."""
        return self._link is not None

    @property
    def is_calibrated(self) -> bool:
        """The rig's arms are, or its graph would not run."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Connect to the bridge."""
        if self._link is None:
            self._link = Link(self.config.address, self.config.deadline_s)

    def calibrate(self) -> None:
        """Nothing: `koch calibrate` does it."""

    def configure(self) -> None:
        """Nothing: the rig file does it."""

    def get_action(self) -> dict[str, Any]:
        """Return where the leaders are.

        Raises:
            BridgeError: A leader is silent, or the bridge is gone.
        """
        if self._link is None:
            raise BridgeError("not connected: call connect() first")
        action = self._link.ask({"kind": "leader"}, "action")["action"]
        return dict(zip(self._names, map(float, action), strict=True))

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Nothing: the leader gives no force back."""

    def disconnect(self) -> None:
        """Leave."""
        if self._link is not None:
            self._link.close()
            self._link = None
