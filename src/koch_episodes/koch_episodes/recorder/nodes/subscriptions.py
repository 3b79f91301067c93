# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Raw subscriptions that appear with the publishers and offer what these ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy

from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.recorder.backlog import TopicSource
from koch_episodes.recorder.bag_thread import BagWriterThread
from koch_episodes.recorder.joint_watch import JointWatch
from koch_episodes.recorder.quality import StreamMonitor
from koch_episodes.recorder.topics import RecordedTopic
from koch_ros.message_types import has_header, message_class
from koch_ros.polled import PolledGroup, ignore, take_all

if TYPE_CHECKING:
    from rclpy.node import Node

Take = Callable[[bytes, Any], None]

_JOINTS = "sensor_msgs/msg/JointState"
_STATE = "koch_interfaces/msg/StreamState"


class Subscriptions:
    """Looks for publishers of the wanted topics and records them.

    Args:
        node: Owns the subscriptions.
        intake: Takes the messages.
        definitions: Looks up message types.
        wanted: The topics.
    """

    def __init__(
        self,
        node: Node,
        intake: BagWriterThread,
        definitions: Definitions,
        wanted: Sequence[RecordedTopic],
    ) -> None:
        self._node = node
        self._intake = intake
        self._definitions = definitions
        self._wanted = {node.resolve_topic_name(topic.name): topic for topic in wanted}
        self._monitors = {
            name: StreamMonitor(
                topic.stream.name,
                expected_hz=topic.expected_hz,
                max_age_s=math.inf if topic.stream.holds else topic.stream.max_age_s,
            )
            for name, topic in self._wanted.items()
            if topic.stream is not None
        }
        self._sources: dict[str, TopicSource] = {}
        self._active: dict[str, tuple[Any, OfferedQos, Take]] = {}
        self._refused: set[str] = set()
        self._polled = PolledGroup()
        # Streams that no one publishes are dead, and must be named as such.
        for monitor in self._monitors.values():
            intake.add_stream(monitor)

    def look(self) -> None:
        """Subscribe to what has appeared; cheap when nothing has."""
        types = dict(self._node.get_topic_names_and_types())
        for name in self._wanted:
            if name in types:
                self._look_at(name)

    def drain(self) -> None:
        """Record what has come since the last call; the middleware has noted when."""
        for subscription, _, take in self._active.values():
            for data, info in take_all(subscription):
                take(data, info)

    def _look_at(self, name: str) -> None:
        infos = self._node.get_publishers_info_by_topic(name)
        if not infos:
            return
        qos = tuple(_offered(info.qos_profile) for info in infos)
        # The weakest publisher decides: a reliable reader hears no best-effort writer.
        asked = OfferedQos(
            reliable=all(item.reliable for item in qos), latched=all(item.latched for item in qos)
        )
        active = self._active.get(name)
        if active is not None:
            if active[1] == asked or not _stricter(active[1], asked):
                return
            self.drain()
            self._node.destroy_subscription(active[0])
            del self._active[name]
        self._subscribe(name, infos[0].topic_type, qos, asked)

    def _subscribe(
        self, name: str, message_type: str, qos: tuple[OfferedQos, ...], asked: OfferedQos
    ) -> None:
        kind = message_class(message_type)
        if kind is None:
            if name not in self._refused:
                self._refused.add(name)
                self._node.get_logger().warning(
                    f"{name}: type {message_type} is not installed here; it is not recorded"
                )
            return
        source = self._sources.get(name)
        if source is None or source.topic.type != message_type:
            source = self._source(name, message_type, qos, kind)
            stream = self._wanted[name].stream
            # A value that holds was perhaps sent before the bag was opened, and never again.
            source.latched = asked.latched or (stream is not None and stream.holds)
            self._sources[name] = source
            self._intake.add_source(source)
        profile = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=self._wanted[name].depth,
            reliability=(
                ReliabilityPolicy.RELIABLE if asked.reliable else ReliabilityPolicy.BEST_EFFORT
            ),
            durability=(
                DurabilityPolicy.TRANSIENT_LOCAL if asked.latched else DurabilityPolicy.VOLATILE
            ),
        )
        subscription = self._node.create_subscription(
            kind, name, ignore, profile, raw=True, callback_group=self._polled
        )
        self._active[name] = (subscription, asked, self._intake.callback(source))

    def _source(
        self, name: str, message_type: str, qos: tuple[OfferedQos, ...], kind: type
    ) -> TopicSource:
        # A bag has the names of the rig file, whatever namespace the rig lives in.
        written = f"/{self._wanted[name].name.lstrip('/')}"
        topic, type_hash = self._definitions.topic(written, message_type)
        monitor = self._monitors.get(name)
        return TopicSource(
            topic,
            type_hash,
            qos,
            stamped=has_header(kind),
            monitor=monitor,
            joints=JointWatch() if monitor and message_type == _JOINTS else None,
            state_of=self._spoken_of(name) if message_type == _STATE else None,
        )

    def _spoken_of(self, name: str) -> StreamMonitor | None:
        """The stream whose state a topic tells."""
        wanted = self._wanted[name].state_of
        found = (monitor for monitor in self._monitors.values() if monitor.name == wanted)
        return next(found, None)


def _offered(profile: Any) -> OfferedQos:
    known = profile.history == HistoryPolicy.KEEP_LAST
    return OfferedQos(
        reliable=profile.reliability == ReliabilityPolicy.RELIABLE,
        latched=profile.durability == DurabilityPolicy.TRANSIENT_LOCAL,
        depth=int(profile.depth) if known else 0,
    )


def _stricter(first: OfferedQos, second: OfferedQos) -> bool:
    """Tell whether a reader asking for `first` misses writers that `second` would hear."""
    return (first.reliable and not second.reliable) or (first.latched and not second.latched)
