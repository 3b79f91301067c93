# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch look` shows: the newest of everything at one moment, fed live or from a bag."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.image import decode_image
from koch_core.stream import stamp_ns
from koch_rig.geometry import matrix_from_quaternion
from koch_rig.joints import plain_joints
from koch_rig.rig import Arm, Rig
from koch_rig.stream import camera_stream, topic_of
from koch_vla.ghost import TOPIC

GHOST_TOPIC = f"/{TOPIC}"
OBJECT_TOPICS = {"/sim/block_pose": "block", "/sim/cup_pose": "cup"}


@dataclass
class GraphSnapshot:
    """The state of a rig over a short time.

    Attributes:
        title: What it is: "live", or a bag and a time.
        now_ns: The moment that ages are counted from, [ns].
        joints: Newest joint positions of each arm, by joint name [rad].
        joint_stamps_ns: Their acquisition times [ns].
        history: Joint positions of each arm over time: (stamp [ns], positions by name).
        images: Newest image of each camera, RGB uint8 (H, W, 3).
        image_stamps_ns: Their acquisition times [ns].
        ghost: Where the policy would have what it moves, by joint name [rad]; may be empty.
        objects: Poses of things in the world [m], float64 (4, 4).
    """

    title: str
    now_ns: int = 0
    joints: dict[str, dict[str, float]] = field(default_factory=dict)
    joint_stamps_ns: dict[str, int] = field(default_factory=dict)
    history: dict[str, list[tuple[int, dict[str, float]]]] = field(default_factory=dict)
    images: dict[str, npt.NDArray[np.uint8]] = field(default_factory=dict)
    image_stamps_ns: dict[str, int] = field(default_factory=dict)
    ghost: dict[str, float] = field(default_factory=dict)
    objects: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    def ghost_of(self, arm: Arm) -> dict[str, float]:
        """Where the policy would have an arm; a policy of several puts their names before it."""
        joints = arm.model.joints
        for prefix in (f"{arm.name}_", ""):
            if all(f"{prefix}{joint}" in self.ghost for joint in joints):
                return {joint: self.ghost[f"{prefix}{joint}"] for joint in joints}
        return {}


class SnapshotBuilder:
    """Collects messages of any origin into a snapshot.

    Args:
        rig: Says which topics belong to which arm and camera.
        title: Goes into the snapshot.
    """

    def __init__(self, rig: Rig, title: str) -> None:
        self._snapshot = GraphSnapshot(title)
        self._arms = {f"/{arm}/joint_states": arm for arm in rig.arms}
        self._cameras = {topic_of(camera_stream(name)): name for name in rig.cameras}
        self._packets: dict[str, bytes] = {}

    @property
    def topics(self) -> dict[str, str]:
        """Topics that are listened to, with their kind: joints, image, ghost or object."""
        return {
            **dict.fromkeys(self._arms, "joints"),
            **dict.fromkeys(self._cameras, "image"),
            GHOST_TOPIC: "ghost",
            **dict.fromkeys(OBJECT_TOPICS, "object"),
        }

    @property
    def started(self) -> bool:
        """An arm has been heard."""
        return bool(self._snapshot.joints)

    @property
    def complete(self) -> bool:
        """Every arm and every camera of the rig has been heard."""
        snapshot = self._snapshot
        return set(self._arms.values()) <= set(snapshot.joints) and set(
            self._cameras.values()
        ) <= set(self._packets)

    def add(self, topic: str, message: Any) -> None:
        """Take a message of one of `topics`."""
        at_ns = stamp_ns(message.header.stamp)
        snapshot = self._snapshot
        if topic in self._arms:
            arm = self._arms[topic]
            positions = _by_name(message.name, message.position)
            snapshot.joints[arm] = positions
            snapshot.joint_stamps_ns[arm] = at_ns
            snapshot.history.setdefault(arm, []).append((at_ns, positions))
        elif topic in self._cameras:
            camera = self._cameras[topic]
            self._packets[camera] = bytes(message.data)
            snapshot.image_stamps_ns[camera] = at_ns
        elif topic == GHOST_TOPIC:
            snapshot.ghost = _by_name(message.name, message.position)
        elif topic in OBJECT_TOPICS:
            snapshot.objects[OBJECT_TOPICS[topic]] = _pose(message.pose)

    def finish(self, now_ns: int | None = None) -> GraphSnapshot:
        """Decode the newest images and return the snapshot.

        Args:
            now_ns: The moment of the snapshot; the newest stamp when None.

        Raises:
            DecodeError: An image is broken.
        """
        snapshot = self._snapshot
        for camera, packet in self._packets.items():
            snapshot.images[camera] = decode_image(packet)
        stamps = [*snapshot.joint_stamps_ns.values(), *snapshot.image_stamps_ns.values()]
        snapshot.now_ns = max(stamps, default=0) if now_ns is None else now_ns
        return snapshot


def _by_name(names: Iterable[str], values: Sequence[float]) -> dict[str, float]:
    joints = plain_joints([str(name) for name in names])
    return {joint: float(value) for joint, value in zip(joints, values, strict=True)}


def _pose(pose: Any) -> npt.NDArray[np.float64]:
    """geometry_msgs/Pose as a matrix (4, 4); an orientation that was not filled in is none."""
    place, turn = pose.position, pose.orientation
    matrix = np.eye(4)
    matrix[:3, 3] = place.x, place.y, place.z
    quaternion = np.array([turn.x, turn.y, turn.z, turn.w])
    if np.linalg.norm(quaternion) > 0.0:
        matrix[:3, :3] = matrix_from_quaternion(quaternion)
    return matrix
