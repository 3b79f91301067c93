# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Wiggles a joint of the running graph's follower and keeps what its cameras see meanwhile."""

from __future__ import annotations

import math
import sys

import numpy as np
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, JointState

from koch_core.terminal import say
from koch_episodes import joint_vector
from koch_episodes.replay.motion import Motion
from koch_episodes.replay.nodes.player import Player
from koch_rig.rig import Arm, Rig
from koch_rig.stream import image_topic
from koch_vla.latency import LONGEST_S, Array, WiggleSeen

_RATE_HZ = 100.0
_COUNTDOWN_S = 3
_REST_S = 2.0 * LONGEST_S  # before and after, so that each image has states around it
_EASE_S = 0.5
# Two tones that do not repeat together soon: each instant of the motion is unlike the others.
_TONES_HZ, _SHARES = (1.1, 1.9), (2.0 / 3.0, 1.0 / 3.0)


def wiggle(pose: Array, index: int, amplitude_rad: float, seconds: float) -> Motion:
    """A motion about a pose that begins and ends there, of one joint."""
    times = np.arange(0.0, seconds + 0.5 / _RATE_HZ, 1.0 / _RATE_HZ)
    ease = np.clip(np.minimum(times, seconds - times) / _EASE_S, 0.0, 1.0)
    poses = np.tile(pose, (len(times), 1))
    for hertz, share in zip(_TONES_HZ, _SHARES, strict=True):
        poses[:, index] += amplitude_rad * share * ease * np.sin(2.0 * math.pi * hertz * times)
    return Motion("wiggle", times, poses, ())


def wiggled(
    rig: Rig, arm: Arm, joint: str, amplitude_rad: float, seconds: float, *, ask: bool
) -> WiggleSeen:
    """Move the joint about where it is; the guard limits it as every command.

    Raises:
        ReplayError: The arm does not answer, or was stopped.
    """
    player = Player(arm.name, arm.topic_joints, _RATE_HZ, say)
    try:
        pose = player.wait_for_arm()
        heard = _listen(player, rig, arm)
        if ask and sys.stdin.isatty():
            for left in range(_COUNTDOWN_S, 0, -1):
                say(f"{joint} moves by {amplitude_rad:g} rad in {left} s (Ctrl-C stops)")
                player.pause(1.0)
        player.release_teleop()
        player.approach(pose)
        heard.forget()
        player.pause(_REST_S)
        motion = wiggle(pose, arm.model.joints.index(joint), amplitude_rad, seconds)
        player.play(motion, 1.0)
        player.pause(_REST_S)
    finally:
        player.close()
    return heard


def _listen(player: Player, rig: Rig, arm: Arm) -> WiggleSeen:
    heard = WiggleSeen(images={name: [] for name in rig.cameras})
    every_one = QoSProfile(depth=50)

    def at_s(message: JointState | CompressedImage) -> float:
        stamp = message.header.stamp
        return float(stamp.sec + stamp.nanosec * 1e-9)

    def keep_joints(message: JointState, kept: list[tuple[float, Array]]) -> None:
        angles = joint_vector(message.name, message.position, arm.topic_joints)
        kept.append((at_s(message), angles))

    def keep_image(message: CompressedImage, name: str) -> None:
        heard.images[name].append((at_s(message), bytes(message.data)))

    for topic, kept in (("joint_states", heard.states), ("joint_command", heard.goals)):
        player.node.create_subscription(
            JointState,
            f"{arm.name}/{topic}",
            lambda message, kept=kept: keep_joints(message, kept),
            every_one,
        )
    for name in rig.cameras:
        player.node.create_subscription(
            CompressedImage,
            image_topic(name),
            lambda message, name=name: keep_image(message, name),
            every_one,
        )
    return heard
