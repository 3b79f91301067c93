# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's robot `koch_ros`: the arms and cameras of a running koch_vla graph.

    koch up &  koch bridge &
    lerobot-record --robot.type=koch_ros --teleop.type=koch_ros ...

Ports, calibration, cameras and limits are the rig's; every action passes its guard.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from lerobot.robots import Robot, RobotConfig

from lerobot_robot_koch_ros.link import BridgeAddress, BridgeError, Link, Linked

__all__ = ["BridgeError", "KochRos", "KochRosConfig", "Link"]
_DRIVES = "policy"  # the guard's name of what commands through the bridge
_LOGGER = logging.getLogger(__name__)


@RobotConfig.register_subclass("koch_ros")
@dataclass
class KochRosConfig(BridgeAddress, RobotConfig):
    """The bridge to the robot."""


class KochRos(Linked, Robot):
    """The followers and cameras of the graph's rig."""

    config_class = KochRosConfig
    name = "koch_ros"
    _driver = _DRIVES  # whom the arm followed at last

    @property
    def observation_features(self) -> dict[str, Any]:
        """A number for each joint, an image for each camera."""
        images = {name: (*size, 3) for name, size in self.about["cameras"].items()}
        return {**dict.fromkeys(self.about["state"], float), **images}

    @property
    def cameras(self) -> dict[str, Any]:
        """LeRobot counts them, to make room for their images."""
        return dict(self.about["cameras"])

    def get_observation(self) -> dict[str, Any]:
        """Return the newest joint positions and RGB images.

        Raises:
            BridgeError: A stream is silent, or the bridge is gone.
        """
        answer = self.ask({"kind": "observe"}, "observation")
        result: dict[str, Any] = dict(
            zip(self.about["state"], map(float, answer["state"]), strict=True)
        )
        for name, jpeg in answer["images"].items():
            image = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
            if image is None:
                raise BridgeError(f"camera {name}: an image that cannot be decoded")
            result[name] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        return result

    def send_action(self, action: dict[str, Any]) -> dict[str, Any]:
        """Send an action to the guard, which limits it.

        Raises:
            BridgeError: The arm is stopped, another client commands, or the bridge is gone.
        """
        values = np.array([float(action[name]) for name in self.about["action"]], np.float64)
        answer = self.ask({"kind": "command", "action": values}, "done")
        driver = answer["driver"]
        if driver != self._driver:
            self._driver = driver
            _LOGGER.info("the arm follows %s", driver or "nobody yet")
        return dict(zip(self.about["action"], values.tolist(), strict=True))
