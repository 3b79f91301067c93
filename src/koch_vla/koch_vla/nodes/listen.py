# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Listens to a running graph for `koch look`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from geometry_msgs.msg import PoseStamped
from sensor_msgs.msg import CompressedImage, JointState

from koch_rig.rig import Rig
from koch_ros.qos import NEWEST
from koch_ros.session import GraphSession
from koch_vla.look.snapshot import GraphSnapshot, SnapshotBuilder

TYPES = {
    "joints": JointState,
    "ghost": JointState,
    "image": CompressedImage,
    "object": PoseStamped,
}


def listen(rig: Rig, duration_s: float, timeout_s: float) -> GraphSnapshot:
    """Collect a snapshot from live topics.

    Args:
        rig: Says which topics there are.
        duration_s: How long to follow the joint states [s].
        timeout_s: How much longer to wait for arms and cameras not heard yet [s].
    """
    builder = SnapshotBuilder(rig, time.strftime("live, %Y-%m-%d %H:%M:%S"))
    with GraphSession("koch_look") as opened:
        for topic, kind in builder.topics.items():
            opened.node.create_subscription(
                TYPES[kind], topic.lstrip("/"), _hear(builder, topic), NEWEST
            )
        # Discovery takes a second or two; the path begins when the first arm is heard.
        opened.spin_until(lambda: builder.started, timeout_s)
        opened.follow_graph_clock()
        opened.spin(duration_s)
        opened.spin_until(lambda: builder.complete, timeout_s)
        now_ns = opened.node.get_clock().now().nanoseconds
    return builder.finish(now_ns)


def _hear(builder: SnapshotBuilder, topic: str) -> Callable[[Any], None]:
    def hear(message: Any) -> None:
        builder.add(topic, message)

    return hear
