# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Notices when every node of a graph does its work: its first state, image or status is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from koch_interfaces.msg import EpisodeStatus, PolicyStatus, TaskState
from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, JointState

from koch_ros.polled import PolledGroup, ignore, take_newest
from koch_ros.qos import LATCHED, NEWEST
from koch_vla.node_spec import NodeSpec

# What a node is heard by: message type, topic in its namespace, and what to call it.
_HEARD_BY: dict[tuple[str, str], tuple[Any, str, str]] = {
    ("koch_driver", "follower"): (JointState, "joint_states", "joint states"),
    ("koch_driver", "leader"): (JointState, "joint_states", "joint states"),
    ("koch_cameras", "camera"): (CompressedImage, "{name}/image_raw/compressed", "images"),
    ("koch_sim", "world"): (TaskState, "sim/task_state", "a world"),
    ("koch_episodes", "recorder"): (EpisodeStatus, "episodes/status", "a status"),
    ("koch_policy", "policy"): (PolicyStatus, "policy/status", "a policy that is loaded"),
}
_LATCHED_ONES = (EpisodeStatus,)


class ReadyWatch:
    """Waits for the first sign of life of each node; costs nothing once all were heard.

    Args:
        node: Hears; needs no executor.
        specs: The nodes that are waited for. What publishes nothing of its own, such as a viewer,
            is there when its name is. A process without a node is not waited for: those that need
            it tell.
    """

    def __init__(self, node: Node, specs: Iterable[NodeSpec]) -> None:
        self._node = node
        self._waits: dict[str, Callable[[], bool]] = {}
        self._subscriptions: dict[str, Any] = {}
        group = PolledGroup()
        for spec in specs:
            if not spec.has_node:
                continue
            heard_by = _HEARD_BY.get((spec.package, spec.executable))
            if heard_by is None:
                self._waits[spec.label] = self._is_there(spec)
                continue
            kind, topic, what = heard_by
            path = f"{spec.namespace.rstrip('/')}/{topic.format(name=spec.name)}"
            qos = LATCHED if kind in _LATCHED_ONES else NEWEST
            label = f"{spec.label} ({what})"
            self._subscriptions[label] = node.create_subscription(
                kind, path, ignore, qos, callback_group=group
            )
            self._waits[label] = self._is_heard(label)

    def _is_there(self, spec: NodeSpec) -> Callable[[], bool]:
        wanted = (spec.name, spec.namespace)
        return lambda: wanted in self._node.get_node_names_and_namespaces()

    def _is_heard(self, label: str) -> Callable[[], bool]:
        def is_heard() -> bool:
            message = take_newest(self._subscriptions[label])
            if message is None or getattr(message, "state", None) == PolicyStatus.LOADING:
                return False
            self._node.destroy_subscription(self._subscriptions.pop(label))
            return True

        return is_heard

    def missing(self) -> list[str]:
        """Look, and name what has not been heard yet."""
        self._waits = {name: there for name, there in self._waits.items() if not there()}
        return list(self._waits)
