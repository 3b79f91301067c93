# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's teleoperator `koch_ros`: the leaders of a running koch_vla graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lerobot.teleoperators import Teleoperator, TeleoperatorConfig
from lerobot_robot_koch_ros.link import BridgeAddress, Linked

__all__ = ["KochRosLeader", "KochRosLeaderConfig"]


@TeleoperatorConfig.register_subclass("koch_ros")
@dataclass
class KochRosLeaderConfig(BridgeAddress, TeleoperatorConfig):
    """The bridge to the leaders."""


class KochRosLeader(Linked, Teleoperator):
    """Where the leaders of the graph's rig are."""

    config_class = KochRosLeaderConfig
    name = "koch_ros"

    @property
    def feedback_features(self) -> dict[str, Any]:
        """None: the leader gives no force back."""
        return {}

    def get_action(self) -> dict[str, Any]:
        """Return where the leaders are.

        Raises:
            BridgeError: A leader is silent, or the bridge is gone.
        """
        action = self.ask({"kind": "leader"}, "action")["action"]
        return dict(zip(self.about["action"], map(float, action), strict=True))

    def send_feedback(self, feedback: dict[str, Any]) -> None:
        """Nothing: the leader gives no force back."""
