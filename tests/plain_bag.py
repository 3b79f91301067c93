# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Records topics as `ros2 bag record` does, with none of our recorder's code or extras.

As a program: `python tests/plain_bag.py OUT --seconds S [TOPIC ...]`, all topics without names.
"""

from __future__ import annotations

import argparse
import importlib
import threading
import time
from collections import deque
from collections.abc import Collection
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rosbags.rosbag2 import StoragePlugin, Writer

from koch_episodes.bag.definitions import Definitions
from koch_episodes.cdr import header_stamp_ns

_LOOK_S = 0.2
_DEPTH = 1000


class PlainBag:
    """Subscribes to every topic that appears and writes what comes. A context manager.

    Args:
        path: Bag folder, which must not exist.
        topics: Names to record; empty for all.
        storage: rosbag2's default is MCAP since Iron, sqlite3 before.
        domain_id: DDS domain; None for the environment's.
    """

    def __init__(
        self,
        path: Path,
        topics: Collection[str] = (),
        storage: StoragePlugin = StoragePlugin.MCAP,
        domain_id: int | None = None,
    ) -> None:
        self._writer = Writer(path, version=9, storage_plugin=storage)
        self._wanted = frozenset(topics)
        self._definitions = Definitions()
        self._heard: deque[tuple[str, str, int, bytes]] = deque()
        self._known: dict[str, Any] = {}
        self._newest: dict[str, bytes] = {}
        self._context = rclpy.Context()
        self._domain_id = domain_id
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> PlainBag:
        rclpy.init(
            args=[],
            context=self._context,
            signal_handler_options=SignalHandlerOptions.NO,
            domain_id=self._domain_id,
        )
        self._node: Node = rclpy.create_node("rosbag2_recorder", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_timer(_LOOK_S, self._look)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.shutdown()
        self._thread.join(10.0)
        self._node.destroy_node()
        self._context.try_shutdown()
        self._write()

    @property
    def topics(self) -> set[str]:
        """What is being recorded."""
        return set(self._known)

    def has_heard(self, stamp_ns: int, topics: Collection[str]) -> bool:
        """Whether each of these topics brought something stamped that late.

        What has not been heard when recording ends is lost, and a busy machine hears late.
        """
        newest = dict(self._newest)
        return all(
            topic in newest and header_stamp_ns(newest[topic]) >= stamp_ns for topic in topics
        )

    def _run(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return

    def _look(self) -> None:
        for name, types in self._node.get_topic_names_and_types():
            hidden = any(part.startswith("_") for part in name.split("/"))
            wanted = name in self._wanted or not (self._wanted or hidden)
            if wanted and name not in self._known:
                self._subscribe(name, types[0])

    def _subscribe(self, name: str, message_type: str) -> None:
        publishers = self._node.get_publishers_info_by_topic(name)
        if not publishers:
            return
        package, _, kind = message_type.split("/")
        profiles = [info.qos_profile for info in publishers]
        reliable = all(p.reliability == ReliabilityPolicy.RELIABLE for p in profiles)
        latched = all(p.durability == DurabilityPolicy.TRANSIENT_LOCAL for p in profiles)
        qos = QoSProfile(
            depth=_DEPTH,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        )

        def hear(data: bytes, info: dict[str, Any]) -> None:
            self._heard.append((name, message_type, int(info["received_timestamp"]), data))
            self._newest[name] = data

        message = getattr(importlib.import_module(f"{package}.msg"), kind)
        self._known[name] = self._node.create_subscription(message, name, hear, qos, raw=True)

    def _write(self) -> None:
        connections: dict[str, Any] = {}
        with self._writer as writer:
            for name, message_type, stamp_ns, data in self._heard:
                if name not in connections:
                    topic, type_hash = self._definitions.topic(name, message_type)
                    connections[name] = writer.add_connection(
                        name, message_type, msgdef=topic.definition, rihs01=type_hash
                    )
                writer.write(connections[name], stamp_ns, data)


def main() -> None:
    """Record for some seconds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("topics", nargs="*")
    parser.add_argument("--seconds", type=float, required=True)
    arguments = parser.parse_args()
    with PlainBag(arguments.out, arguments.topics) as bag:
        time.sleep(arguments.seconds)
        print("\n".join(sorted(bag.topics)))


if __name__ == "__main__":
    main()
