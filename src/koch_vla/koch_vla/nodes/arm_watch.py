# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the joint states of some arms for a while and measures them."""

from __future__ import annotations

from collections.abc import Iterable

from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import JointState

from koch_rig.joints import plain_joints
from koch_vla.motion import lag_and_error, rate_hz

EVERY_ONE = QoSProfile(depth=50)


class ArmWatch:
    """Joint states of some arms, since the last call of `begin`.

    Args:
        node: Is spun by its owner.
        arms: Arm names.
    """

    def __init__(self, node: Node, arms: Iterable[str]) -> None:
        self._seen: dict[str, list[tuple[float, dict[str, float]]]] = {arm: [] for arm in arms}
        for arm in self._seen:
            node.create_subscription(
                JointState,
                f"{arm}/joint_states",
                lambda message, arm=arm: self._on_state(arm, message),
                EVERY_ONE,
            )

    def begin(self) -> None:
        """Forget what was seen."""
        for seen in self._seen.values():
            seen.clear()

    def rate_hz(self, arm: str) -> float:
        """Mean rate of an arm's joint states by their stamps."""
        return rate_hz([time_s for time_s, _ in self._seen[arm]])

    def series(self, arm: str, joint: str) -> list[tuple[float, float]]:
        """Times [s] and angles [rad] of one joint."""
        return [(time_s, angles[joint]) for time_s, angles in self._seen[arm] if joint in angles]

    def span(self, arm: str, joint: str) -> float:
        """How far a joint has moved, highest minus lowest angle [rad]."""
        angles = [angle for _, angle in self.series(arm, joint)]
        return max(angles) - min(angles) if angles else 0.0

    def lag_and_error(self, leader: str, follower: str, joint: str) -> tuple[float, float]:
        """Delay [s] of a follower's joint, and the largest difference left at that delay [rad]."""
        return lag_and_error(self.series(leader, joint), self.series(follower, joint))

    def _on_state(self, arm: str, message: JointState) -> None:
        stamp = message.header.stamp
        angles = dict(zip(plain_joints(message.name), message.position, strict=True))
        self._seen[arm].append((stamp.sec + stamp.nanosec * 1e-9, angles))
