# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Plays a motion on an arm: `command/replay` to the guard, from the pose in which the arm is."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_episodes.decode import joint_vector
from koch_episodes.errors import DecodeError
from koch_episodes.replay.motion import Array, Motion
from koch_rig.errors import KochError
from koch_rig.joints import JOINT_NAMES

_APPROACH_SPEED = 0.6  # rad/s, mean
_SHORTEST_APPROACH_S = 1.0
_SETTLE_S = 5.0
_REACHED_RAD = 0.12
_STATE_TIMEOUT_S = 5.0
_STALE_S = 0.5
_LONGEST_STEPS = 2.0
_ARM = slice(0, -1)  # without the gripper, which an object may hold open


class ReplayError(KochError):
    """The arm does not follow."""

    def __init__(self, arm: str, why: str, advice: str) -> None:
        super().__init__(f"Replay on {arm}: {why}. {advice}")


@dataclass(frozen=True)
class Tracking:
    """How well the arm followed: measured against commanded, shape (6,), [rad]."""

    rms_rad: Array
    max_rad: Array


class Player:
    """Publishes commands of one arm at a steady rate.

    Args:
        arm: Name of the arm.
        rate_hz: Commands per second.
        say: Takes lines for the user.
    """

    def __init__(self, arm: str, rate_hz: float, say: Callable[[str], None]) -> None:
        self._arm = arm
        self._period_s = 1.0 / rate_hz
        self._say = say
        self._own_context = not rclpy.ok()
        if self._own_context:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("replay")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._publisher = self._node.create_publisher(
            JointState, f"{arm}/command/replay", QoSProfile(depth=1)
        )
        newest = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._node.create_subscription(JointState, f"{arm}/joint_states", self._on_state, newest)
        self._measured: Array | None = None
        self._heard_s = 0.0
        self._due = 0.0

    def _on_state(self, message: JointState) -> None:
        try:
            self._measured = joint_vector(message.name, message.position)
        except DecodeError:
            return  # the driver's states are always complete; anybody else's do not count
        self._heard_s = time.monotonic()

    def _spin(self, until_s: float) -> None:
        """Handle what comes until a monotonic time."""
        while True:
            left = until_s - time.monotonic()
            self._executor.spin_once(timeout_sec=max(0.0, left))
            if left <= 0.0:
                return

    def _state(self) -> Array:
        if self._measured is None or time.monotonic() - self._heard_s > _STALE_S:
            raise ReplayError(self._arm, "no joint states come", "Does its driver run (koch up)?")
        return self._measured

    def release_teleop(self) -> None:
        """Open the human's clutch: teleoperation goes before replay.

        Raises:
            ReplayError: It does not open.
        """
        client = self._node.create_client(SetBool, f"{self._arm}/teleop/clutch")
        if not client.wait_for_service(1.0):
            return
        future = client.call_async(SetBool.Request(data=False))
        self._executor.spin_until_future_complete(future, timeout_sec=3.0)
        reply = future.result() if future.done() else None
        if reply is None or not reply.success:
            why = reply.message if reply else "no answer"
            raise ReplayError(self._arm, f"the teleop clutch stays closed ({why})", "Open it.")
        self._say(
            f"teleoperation is off; on again with: ros2 service call /{self._arm}"
            "/teleop/clutch std_srvs/srv/SetBool '{data: true}'"
        )

    def wait_for_arm(self) -> Array:
        """Return the measured pose.

        Raises:
            ReplayError: No joint states, or nobody listens to the commands.
        """
        end = time.monotonic() + _STATE_TIMEOUT_S
        while time.monotonic() < end:
            self._spin(time.monotonic() + 0.05)
            if self._measured is not None and self._publisher.get_subscription_count():
                return self._state()
        self._state()
        raise ReplayError(self._arm, "its driver takes no replay commands", "Is it a follower?")

    def _send(self, pose: Array) -> None:
        message = JointState(name=list(JOINT_NAMES))
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.position = array("d", pose)
        self._publisher.publish(message)

    def _rest(self) -> float:
        """Wait until the next command is due; returns the time that the motion may go on by.

        When this process was held up the motion pauses, where catching up would be a jump.
        """
        begin = time.monotonic()
        self._due = max(self._due + self._period_s, begin)
        self._spin(self._due)
        return min(time.monotonic() - begin, _LONGEST_STEPS * self._period_s)

    def approach(self, pose: Array) -> None:
        """Go slowly from where the arm is to a pose.

        Raises:
            ReplayError: It does not get there.
        """
        start = self._state()
        distance = float(np.abs(pose - start).max())
        duration = max(_SHORTEST_APPROACH_S, distance / _APPROACH_SPEED)
        passed = 0.0
        while True:
            share = min(1.0, passed / duration)
            smooth = share * share * (3.0 - 2.0 * share)
            self._send(start + smooth * (pose - start))
            passed += self._rest()
            missing = np.abs(self._state() - pose)[_ARM]
            if share >= 1.0 and missing.max() < _REACHED_RAD:
                return
            if passed > duration + _SETTLE_S:
                joint = JOINT_NAMES[int(missing.argmax())]
                raise ReplayError(
                    self._arm,
                    f"{joint} stays {missing.max():.2f} rad from the first pose",
                    "Is it free, with torque on, and does nobody else command it? "
                    "The driver's diagnostics say what the guard changed.",
                )

    def play(self, motion: Motion, speed: float) -> Tracking:
        """Play a motion in real time times `speed`; pauses where this process was held up.

        Raises:
            ReplayError: The arm falls silent.
        """
        errors = []
        now_s = 0.0
        while True:
            pose = motion.at(now_s)
            self._send(pose)
            errors.append(self._state() - pose)
            if now_s >= motion.duration_s:
                break
            now_s += self._rest() * speed
        found = np.array(errors)
        return Tracking(np.sqrt((found**2).mean(axis=0)), np.abs(found).max(axis=0))

    def close(self) -> None:
        """Leave the graph; the guard then holds the arm's pose."""
        self._executor.shutdown()
        self._node.destroy_node()
        if self._own_context:
            rclpy.try_shutdown()
