# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Plays a motion on an arm: `command/replay` to the guard, from the pose in which the arm is."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from koch_interfaces.msg import GuardStatus
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_core.errors import DecodeError, KochError
from koch_episodes.decode import joint_vector
from koch_episodes.replay.motion import Array, Motion
from koch_ros.errors import NoAnswerError
from koch_ros.qos import COMMAND, LATCHED, NEWEST
from koch_ros.session import GraphSession

_APPROACH_SPEED = 0.6  # rad/s, mean
_SHORTEST_APPROACH_S = 1.0
_SETTLE_S = 5.0
_REACHED_RAD = 0.12
_STATE_TIMEOUT_S = 5.0
_SWITCH_FIND_S = 1.0
_SWITCH_S = 3.0
_HEAR_S = 0.05
_STALE_S = 0.5
_LONGEST_STEPS = 2.0
_CLOCK_STEP_S = 0.05  # a tick of /clock, at up to five times the real speed
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
    """Publishes commands of one arm at a steady rate, in the time that the graph lives by.

    Args:
        arm: Name of the arm.
        rate_hz: Commands per second.
        say: Takes lines for the user.
    """

    def __init__(
        self, arm: str, joints: Sequence[str], rate_hz: float, say: Callable[[str], None]
    ) -> None:
        self._arm = arm
        self._joints = tuple(joints)
        self._period_s = 1.0 / rate_hz
        self._say = say
        self._session = GraphSession("replay")
        node = self._session.node
        self._publisher = node.create_publisher(JointState, f"{arm}/command/replay", COMMAND)
        node.create_subscription(JointState, f"{arm}/joint_states", self._on_state, NEWEST)
        node.create_subscription(GuardStatus, f"{arm}/guard_status", self._on_guard, LATCHED)
        self._stop_count: int | None = None
        self._stopped = ""
        self._measured: Array | None = None
        self._heard_s = 0.0
        self._due = 0.0
        self._longest_s = _LONGEST_STEPS * self._period_s

    @property
    def node(self) -> Node:
        """For what else listens while the arm moves."""
        return self._session.node

    def _on_state(self, message: JointState) -> None:
        try:
            self._measured = joint_vector(message.name, message.position, self._joints)
        except DecodeError:
            return  # the driver's states are always complete; anyone else's do not count
        self._heard_s = time.monotonic()

    def _on_guard(self, message: GuardStatus) -> None:
        """A stop ends the replay, also where a resume follows at once."""
        if message.mode in (GuardStatus.OFF, GuardStatus.STOPPED):
            self._stopped = message.reason
        elif self._stop_count not in (None, message.stop_count):
            self._stopped = "the arm was stopped"
        self._stop_count = message.stop_count

    def _state(self) -> Array:
        if self._stopped:
            raise ReplayError(
                self._arm, self._stopped, "Lift that (services resume, torque) first."
            )
        if self._measured is None or time.monotonic() - self._heard_s > _STALE_S:
            raise ReplayError(self._arm, "no joint states come", "Does its driver run (koch up)?")
        return self._measured

    def release_teleop(self) -> None:
        """Open the human's enable switch: teleoperation goes before replay.

        Raises:
            ReplayError: It does not open.
        """
        client = self._session.node.create_client(SetBool, f"{self._arm}/teleop/clutch")
        # Spinning: the pose must not grow old while a service is looked for that may not exist.
        if not self._session.spin_until(client.service_is_ready, _SWITCH_FIND_S):
            return
        try:
            reply = self._session.call(client, SetBool.Request(data=False), _SWITCH_S)
            is_open, why = reply.success, reply.message
        except NoAnswerError:
            is_open, why = False, "no answer"
        if not is_open:
            what = f"teleop's enable switch stays closed ({why})"
            raise ReplayError(self._arm, what, "Open it.")
        self._say("teleoperation is off until `koch up` is started again")

    def wait_for_arm(self) -> Array:
        """Return the measured pose.

        Raises:
            ReplayError: No joint states, or no one listens to the commands.
        """

        def there() -> bool:
            return self._measured is not None and self._publisher.get_subscription_count() > 0

        self._session.spin(_HEAR_S)  # what was heard before a countdown is old by now
        if self._session.spin_until(there, _STATE_TIMEOUT_S):
            if self._session.follow_graph_clock():
                self._longest_s = max(self._longest_s, _CLOCK_STEP_S)
            return self._state()
        self._state()
        raise ReplayError(self._arm, "its driver takes no replay commands", "Is it a follower?")

    def _send(self, pose: Array) -> None:
        message = JointState(name=list(self._joints))
        message.header.stamp = self._session.node.get_clock().now().to_msg()
        message.position = array("d", pose)
        self._publisher.publish(message)

    def _rest(self) -> float:
        """Wait until the next command is due; returns the time that the motion may go on by.

        When this process was held up the motion pauses, where catching up would be a jump.
        """
        begin = self._session.now_s()
        self._due = max(self._due + self._period_s, begin)

        def is_due() -> bool:
            return self._session.now_s() >= self._due

        if self._session.follows_clock:
            if not self._session.spin_until(is_due, _STALE_S):
                raise ReplayError(self._arm, "/clock stands still", "Does the simulation run?")
        else:
            self._session.spin(self._due - begin)
        return min(self._session.now_s() - begin, self._longest_s)

    def pause(self, seconds: float) -> None:
        """Wait, hearing the arm meanwhile."""
        self._session.spin(seconds)

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
                joint = self._joints[int(missing.argmax())]
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
        self._session.close()
