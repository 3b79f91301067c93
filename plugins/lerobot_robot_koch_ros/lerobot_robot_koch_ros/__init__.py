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
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from lerobot.robots import Robot, RobotConfig

from lerobot_robot_koch_ros.link import DEFAULT_ADDRESS, BridgeError, Link

__all__ = ["BridgeError", "KochRos", "KochRosConfig", "Link"]
_DRIVES = "policy"  # the guard's name of what commands through the bridge
_LOGGER = logging.getLogger(__name__)


@RobotConfig.register_subclass("koch_ros")
@dataclass
class KochRosConfig(RobotConfig):
    """Where the bridge is.

    Attributes:
        address: HOST:PORT of `koch bridge`.
        deadline_s: How long each of its answers may take [s].
    """

    address: str = DEFAULT_ADDRESS
    deadline_s: float = 2.0


class KochRos(Robot):
    """The followers and cameras of the graph's rig."""

    config_class = KochRosConfig
    name = "koch_ros"

    def __init__(self, config: KochRosConfig) -> None:
        super().__init__(config)
        self.config = config
        self._link: Link | None = None
        self._driver = _DRIVES

    @cached_property
    def _about(self) -> dict[str, Any]:
        """What the bridge says; LeRobot asks for features before it connects."""
        if self._link is not None:
            return self._link.about
        link = Link(self.config.address, self.config.deadline_s)
        link.close()
        return link.about

    @property
    def observation_features(self) -> dict[str, Any]:
        """A number for each joint, an image for each camera."""
        images = {name: (*size, 3) for name, size in self._about["cameras"].items()}
        return {**dict.fromkeys(self._about["state"], float), **images}

    @property
    def action_features(self) -> dict[str, Any]:
        """A number for each joint."""
        return dict.fromkeys(self._about["action"], float)

    @property
    def cameras(self) -> dict[str, Any]:
        """LeRobot counts them, to make room for their images."""
        return dict(self._about["cameras"])

    @property
    def is_connected(self) -> bool:
        """A connection is open."""
        return self._link is not None

    @property
    def is_calibrated(self) -> bool:
        """The rig's arms are, or its graph would not run."""
        return True

    def connect(self, calibrate: bool = True) -> None:
        """Connect to the bridge; the arm does not move before the first action."""
        if self._link is None:
            self._link = Link(self.config.address, self.config.deadline_s)

    def calibrate(self) -> None:
        """Nothing: `koch calibrate` does it."""

    def configure(self) -> None:
        """Nothing: the rig file does it."""

    def get_observation(self) -> dict[str, Any]:
        """Return the newest joint positions and RGB images.

        Raises:
            BridgeError: A stream is silent, or the bridge is gone.
        """
        answer = self._connected().ask({"kind": "observe"}, "observation")
        result: dict[str, Any] = dict(
            zip(self._about["state"], map(float, answer["state"]), strict=True)
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
        values = np.array([float(action[name]) for name in self._about["action"]], np.float64)
        answer = self._connected().ask({"kind": "command", "action": values}, "done")
        driver = answer["driver"]
        if driver != self._driver:
            self._driver = driver
            _LOGGER.info("the arm follows %s", driver or "nobody yet")
        return dict(zip(self._about["action"], values.tolist(), strict=True))

    def disconnect(self) -> None:
        """Leave; the arm holds its pose."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _connected(self) -> Link:
        if self._link is None:
            raise BridgeError("not connected: call connect() first")
        return self._link
