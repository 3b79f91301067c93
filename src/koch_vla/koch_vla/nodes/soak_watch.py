# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps a running graph busy for `koch bench soak` and listens to its topics."""

from __future__ import annotations

import re
import shutil
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, JointState

from koch_episodes.cdr import header_stamp_ns
from koch_rig.rig import Role
from koch_rig.stream import image_topic
from koch_ros.shared_topics import chosen_namespace, namespace_arguments
from koch_vla.topic_stats import TopicStats

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph

_EPISODE_S = 20.0
_EPISODE_PERIOD_S = 60.0


class SoakWatch:
    """Listens in a thread of its own; `step` gives the graph work.

    Attributes:
        topics: Figures per topic.
        verdicts: What the recorder said of each episode: its light.
    """

    def __init__(self, graph: RunningGraph) -> None:
        self.topics: list[TopicStats] = []
        self.verdicts: list[str] = []
        self._graph = graph
        self._heard = len(graph.watcher.diagnosed)
        self._errors: Counter[str] = Counter()
        self._seed = 0
        self._recording = False
        self._next_s = 0.0
        self._context = rclpy.Context()
        rclpy.init(args=namespace_arguments(chosen_namespace()), context=self._context)
        self._node = Node("soak", context=self._context)
        for name, arm in graph.rig.arms.items():
            self._listen(f"{name}/joint_states", JointState, arm.rate_hz)
            if arm.role is Role.FOLLOWER:
                self._listen(f"{name}/joint_command", JointState, arm.rate_hz)
        for name, camera in graph.rig.cameras.items():
            self._listen(image_topic(name), CompressedImage, camera.fps)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _listen(self, topic: str, kind: Any, rate_hz: float) -> None:
        stats = TopicStats(topic, float(rate_hz))
        self.topics.append(stats)

        def hear(data: bytes, info: dict[str, Any]) -> None:
            stats.add(header_stamp_ns(data), int(info["publication_sequence_number"]))

        self._node.create_subscription(kind, topic, hear, QoSProfile(depth=500), raw=True)

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def step(self, elapsed_s: float) -> None:
        """Let the expert demonstrate, and record an episode now and then."""
        graph = self._graph
        if graph.hand() != "moving":
            self._seed += 1
            graph.lay_out(self._seed)
            graph.begin_demonstration()
        if elapsed_s < self._next_s:
            return
        if self._recording:
            answer = graph.stop_episode()
            self.verdicts.append(answer.verdict.partition(":")[0] if answer.success else "failed")
            self._next_s = elapsed_s + _EPISODE_PERIOD_S - _EPISODE_S
            # Hours of three cameras would fill a disk.
            for folder in graph.episodes.glob("episode_*"):
                shutil.rmtree(folder)
        else:
            graph.start_episode()
            self._next_s = elapsed_s + _EPISODE_S
        self._recording = not self._recording

    def errors(self) -> dict[str, int]:
        """How many times a status was an error on /diagnostics, by name and message."""
        heard = self._graph.watcher.diagnosed
        for _, name, level, message in heard[self._heard :]:
            if level >= 2:
                first = re.sub(r"[0-9.]+", "#", message.partition(";")[0])
                self._errors[f"{name}: {first}"] += 1
        self._heard = len(heard)
        return dict(self._errors.most_common(12))

    def close(self) -> None:
        """Stop listening."""
        self._executor.shutdown()
        self._thread.join(2.0)
        self._node.destroy_node()
        self._context.try_shutdown()
