# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Sends what keys or a gamepad ask for to a follower's jog node."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_core.errors import KochError
from koch_driver.arm.jog import JogSpeed
from koch_episodes.recorder.keys import Keyboard
from koch_rig.rig import Arm
from koch_ros.qos import COMMAND, SERVICES
from koch_ros.session import GraphSession
from koch_vla.jog_input import CLOSE_KEY, OPEN_KEY, Gamepad, HeldKeys

PERIOD_S = 0.04


class JogSender:
    """Reads the input in a thread of its own, until the context ends.

    Args:
        arm: The follower that is moved.
        gamepad: Device, "auto", or None for the keyboard.
        say: Writes a line beside what the nodes say.
    """

    def __init__(self, arm: Arm, gamepad: str | None, say: Callable[[str], None]) -> None:
        self._arm, self._say = arm, say
        self._gamepad = None if gamepad is None else Gamepad(gamepad)
        self._keyboard, self._keys = Keyboard(), HeldKeys()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="jog sender", daemon=True)
        self._rests = True

    def __enter__(self) -> JogSender:
        """Open the input."""
        self._keyboard.open()
        try:
            if self._gamepad is not None:
                self._gamepad.open()
        except BaseException:
            self._keyboard.close()
            raise
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Put the terminal back."""
        self._over.set()
        self._thread.join(timeout=5.0)
        self._keyboard.close()
        if self._gamepad is not None:
            self._gamepad.close()

    def _run(self) -> None:
        try:
            with GraphSession("koch_jog") as opened:
                self._send_until_over(opened)
        except KochError as error:  # the gamepad is gone: the deadman has let go
            self._say(f"the hand is not moved any more: {error}")

    def _send_until_over(self, opened: GraphSession) -> None:
        node, name = opened.node, self._arm.name
        twist = node.create_publisher(TwistStamped, f"{name}/teleop/twist", COMMAND)
        speeds = node.create_publisher(JointState, f"{name}/teleop/joint_speeds", COMMAND)
        switch = node.create_client(SetBool, f"{name}/teleop/clutch", qos_profile=SERVICES)
        while not self._over.is_set():
            opened.spin_until(self._over.is_set, PERIOD_S)
            names = self._keyboard.read_names()
            self._keys.take(names)
            for name in names:
                if name in (CLOSE_KEY, OPEN_KEY):
                    self._switch(switch, closed=name == CLOSE_KEY)
            wanted = self._wanted()
            rests = wanted == JogSpeed()
            if not rests or not self._rests:  # rest is said once
                twist.publish(self._twist(node, wanted))
                speeds.publish(self._gripper(node, wanted))
            self._rests = rests

    def _wanted(self) -> JogSpeed:
        return self._keys.wanted() if self._gamepad is None else self._gamepad.wanted()

    def _switch(self, client: Any, *, closed: bool) -> None:
        """Close or open the enable switch; the node's answer is said when it comes."""
        future = client.call_async(SetBool.Request(data=closed))
        future.add_done_callback(lambda done: self._say(f"teleop: {done.result().message}"))

    @staticmethod
    def _twist(node: Node, wanted: JogSpeed) -> TwistStamped:
        message = TwistStamped()
        message.header.stamp = node.get_clock().now().to_msg()
        linear, angular = message.twist.linear, message.twist.angular
        linear.x, linear.y, linear.z = map(float, wanted.linear)
        angular.x, angular.y = float(wanted.roll), float(wanted.pitch)
        return message

    def _gripper(self, node: Node, wanted: JogSpeed) -> JointState:
        message = JointState()
        message.header.stamp = node.get_clock().now().to_msg()
        message.name = [self._arm.topic_joints[-1]]
        message.velocity = [float(wanted.gripper)]
        return message
