# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy node publishes: commands, chunks, the ghost arm, interventions."""

from __future__ import annotations

import threading
from array import array
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from geometry_msgs.msg import Point
from koch_interfaces.msg import ActionChunk, EpisodeEvent, EpisodeStatus, NamedVector
from rclpy.node import Node
from sensor_msgs.msg import JointState
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker

from koch_core.stream import stamp_ns
from koch_policy.chunks import Grid, Request
from koch_policy.chunks.chunk import Rows
from koch_policy.execution.takeover import HUMAN
from koch_rig.action_layout import ActionLayout
from koch_rig.fingertips import FingertipKinematics
from koch_rig.rig import Rig
from koch_ros.qos import COMMAND, EVENTS, STATE
from koch_ros.stamps import ros_time

if TYPE_CHECKING:
    from koch_policy.shadow import ShadowMeter

_NS = 1_000_000_000
_MARKER_EVERY = 3  # ticks
_OLD_S = 1.0  # a plan of this age is drawn red
_WAYS_S = 5.0  # the status tells of the goals of this long
_SAME_NS = 1_000_000  # the driver keeps a command's stamp as seconds


class RecentWays:
    """When the stages of the last commands' ways ended; see `koch_episodes.goal_trace`.

    Args:
        most: How many commands it remembers.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ways: OrderedDict[int, dict[str, int]] = OrderedDict()
        self._lock = threading.Lock()  # the run adds, the executor hears the driver, both ask

    def add(self, command_ns: int, ends_ns: Mapping[str, int]) -> None:
        """Remember what the policy node knows of a command: stages in their order."""
        with self._lock:
            self._ways[command_ns] = dict(ends_ns)
            while len(self._ways) > self._most:
                self._ways.popitem(last=False)

    def reached(self, command_ns: int, ends_ns: Mapping[str, int]) -> None:
        """Add what the driver says of it; of several arms the last one to be written counts."""
        with self._lock:
            near = (s for s in reversed(self._ways) if abs(s - command_ns) < _SAME_NS)
            way = self._ways.get(next(near, 0), {})
            for stage, end_ns in ends_ns.items():
                way[stage] = max(end_ns, way.get(stage, end_ns))

    def quantiles_s(self, *fractions: float) -> dict[str, list[float]]:
        """What each stage took [s], one value per fraction, and `total`; empty without commands.

        Once a driver tells of commands, those of which it has not told yet are left out.
        """
        with self._lock:
            stages = max(map(list, self._ways.values()), key=len, default=[])
            ends_ns = [[*way.values()] for way in self._ways.values() if len(way) == len(stages)]
        if not stages:
            return {}
        ends_s = np.array(ends_ns) / _NS
        took_s = np.column_stack([np.diff(ends_s), ends_s[:, -1] - ends_s[:, 0]])
        found = np.quantile(took_s, fractions, axis=0).T.tolist()
        return dict(zip([*stages[1:], "total"], found, strict=True))


class CommandPublisher:
    """The sink of a run (see koch_policy.execution.run.Sink). Publishes from the run's thread.

    Args:
        node: Where the publishers live.
        rig: Has the arms, and the rate of the actions.
        layout: Which part of an action is whose.
        ghost_ahead_s: How far ahead the ghost is.
        clock: Time now [ns].
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        layout: ActionLayout,
        ghost_ahead_s: float,
        clock: Callable[[], int],
    ) -> None:
        self._layout = layout
        self._fps = fps = float(rig.fps)
        self._ahead = round(ghost_ahead_s * fps)
        self._clock = clock
        self._logger = node.get_logger()
        arms = [rig.arm(name) for name in layout.arms]
        self._tips = {arm.name: FingertipKinematics.for_arm(arm) for arm in arms}
        self._names = {arm.name: arm.topic_joints for arm in arms}
        self._commands = {
            arm.name: node.create_publisher(JointState, f"{arm.name}/command/policy", COMMAND)
            for arm in arms
        }
        self.command_topics = [each.topic_name for each in self._commands.values()]
        self._chunks = node.create_publisher(ActionChunk, "policy/action_chunk", STATE)
        self._traces = node.create_publisher(NamedVector, "policy/goal_trace", STATE)
        self._energies = node.create_publisher(NamedVector, "policy/energy", STATE)
        self.ways = RecentWays(round(_WAYS_S * fps))
        for arm in arms:
            node.create_subscription(NamedVector, f"{arm.name}/command_trace", self._on_arm, STATE)
        self._ghost = node.create_publisher(JointState, "policy/ghost/joint_states", STATE)
        self._path = node.create_publisher(Marker, "policy/ghost/path", STATE)
        self._events = node.create_publisher(EpisodeEvent, "episodes/events", EVENTS)
        node.create_subscription(EpisodeStatus, "episodes/status", self._on_episode, STATE)
        self._episode = 0
        self.grid = Grid(0, fps)
        self.strategy = ""
        self.chunk_ns = 0  # observation time of the newest chunk
        self.meter: ShadowMeter | None = None

    def _on_episode(self, message: EpisodeStatus) -> None:
        self._episode = int(message.episode_index)

    def command(self, time_ns: int, action: Rows) -> None:
        """Command the arms."""
        for arm, positions in self._layout.split(action).items():
            self._commands[arm].publish(_joints(self._names[arm], time_ns, positions))

    def _on_arm(self, message: NamedVector) -> None:
        if message.header.frame_id == "policy":
            command_ns = stamp_ns(message.header.stamp)
            ends = zip(message.name, message.value, strict=True)
            ends_ns = {name: command_ns + round(end * _NS) for name, end in ends}
            self.ways.reached(command_ns, ends_ns)

    def trace(self, command_ns: int, moments: Mapping[str, int]) -> None:
        """Tell a command's way until it was published; see `koch_episodes.goal_trace`."""
        self.ways.add(command_ns, moments)
        message = NamedVector(name=list(moments))
        message.header.stamp = ros_time(command_ns)
        message.value = array("d", [(at - command_ns) / _NS for at in moments.values()])
        self._traces.publish(message)

    def energy(self, time_ns: int, energy: float) -> None:
        """Tell the energy of what was executed until a moment."""
        message = NamedVector(name=["energy"], value=array("d", [energy]))
        message.header.stamp = ros_time(time_ns)
        self._energies.publish(message)

    def chunk(self, request: Request, rows: Rows, entry: int, observed_ns: int) -> None:
        """Publish a chunk with the stamp of its observation's oldest sample."""
        first_ns = self.grid.time_ns(request.tick)
        self.chunk_ns = observed_ns
        message = ActionChunk()
        message.header.stamp = ros_time(observed_ns)
        message.names = list(self._layout.names)
        message.steps = len(rows)
        message.step_s = 1.0 / self._fps
        message.positions = array("d", rows.reshape(-1).tolist())
        message.entry_index = entry
        message.first_step_time = ros_time(first_ns)
        message.strategy = self.strategy
        self._chunks.publish(message)

    def predicted(self, tick: int, action: Rows, preview: Rows | None) -> None:
        """Show the ghost, and compare with the human in shadow mode."""
        time_ns = self.grid.time_ns(tick)
        if self.meter is not None:
            self.meter.predicted(time_ns, action)
        if preview is None:
            return
        ahead = preview[min(self._ahead, len(preview) - 1)]
        alone = len(self._names) == 1
        names = next(iter(self._names.values())) if alone else self._layout.names
        self._ghost.publish(_joints(names, time_ns, ahead))
        if tick % _MARKER_EVERY == 0 and self._path.get_subscription_count():
            for number, (arm, rows) in enumerate(self._layout.split(preview).items()):
                self._path.publish(self._marker(number, self._tips[arm], time_ns, rows))

    def intervention(self, stamp_ns: int, source: str, *, begins: bool) -> None:
        """Flag a human's intervention in the episode; other sources are only logged."""
        who = "a human" if source == HUMAN else source
        text = f"{who} ({source}) {'took over from' if begins else 'gave back to'} the policy"
        self._logger.info(text)
        if source != HUMAN:
            return
        event = EpisodeEvent()
        event.header.stamp = ros_time(stamp_ns)
        event.kind = EpisodeEvent.INTERVENTION_BEGIN if begins else EpisodeEvent.INTERVENTION_END
        event.episode_index = self._episode
        event.detail = text
        self._events.publish(event)

    def _marker(
        self, number: int, tips: FingertipKinematics, time_ns: int, preview: Rows
    ) -> Marker:
        """A tool's path to come: green when the observation is fresh, red when it is old."""
        age = min(1.0, max(0.0, (self._clock() - self.chunk_ns) / _NS / _OLD_S))
        marker = Marker()
        marker.header.stamp = ros_time(time_ns)
        marker.header.frame_id = "world"
        marker.ns, marker.id = "policy_path", number
        marker.type, marker.action = Marker.LINE_STRIP, Marker.ADD
        marker.pose.orientation.w = 1.0
        marker.scale.x = 0.004
        marker.lifetime.sec = 1
        for step, row in enumerate(preview):
            x, y, z = tips.tcp(row.tolist())
            marker.points.append(Point(x=float(x), y=float(y), z=float(z)))
            alpha = 1.0 - 0.8 * step / max(1, len(preview) - 1)
            marker.colors.append(ColorRGBA(r=age, g=1.0 - age, b=0.2, a=alpha))
        return marker


def _joints(names: Sequence[str], time_ns: int, positions: Rows) -> JointState:
    message = JointState(name=list(names))
    message.header.stamp = ros_time(time_ns)
    message.position = array("d", positions.tolist())
    return message
