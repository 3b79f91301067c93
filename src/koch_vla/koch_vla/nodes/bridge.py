# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The graph as a robot for `koch bridge`: newest samples, and commands through the guard."""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from koch_interfaces.msg import GuardStatus
from sensor_msgs.msg import JointState
from std_srvs.srv import SetBool

from koch_core.closing import Closing
from koch_core.stream import NS_PER_S, stamp_ns, to_ns
from koch_core.terminal import say
from koch_core.wording import fixed
from koch_episodes.decode import joint_vector, sample_reader
from koch_rig.action_layout import ActionLayout
from koch_rig.rig import Rig
from koch_rig.stream import StreamKind, camera_stream, topic_of
from koch_rig.units import Units, joint_units
from koch_ros.message_types import message_class
from koch_ros.qos import COMMAND, LATCHED, NEWEST
from koch_ros.session import GraphSession
from koch_vla.bridge import Refused, checked_action

_STATE = "observation.state"
_IMAGE = "observation.images."
#: LeRobot's own cameras hand out images that are so old. A rig may allow more. Its shorter limits
#: are for nodes with a clock of their own: here one late sample would end a whole recording.
_LEROBOTS_S = 0.5
_MEET_S = 10.0
_SWITCH_S = 5.0
_PERIOD_S = 0.1


class GraphRobot(Closing):
    """A `koch_vla.bridge.BridgedRobot`. `run` spins; other threads may call everything else.

    Args:
        rig: Says which streams make the state, the images and the action.

    Raises:
        CalibrationError: An arm's file cannot be used.
    """

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._units = joint_units(rig)
        feature = rig.features.get(_STATE)
        streams = feature.streams if feature else (f"{rig.follower.name}/joint_states",)
        self._state = ActionLayout.of_streams(rig, streams)
        self._action = ActionLayout.of_rig(rig)
        self._states = [s for s in streams if rig.content_of(s).kind is StreamKind.JOINTS]
        self._images = {
            key.removeprefix(_IMAGE): each.streams[0]
            for key, each in rig.features.items()
            if key.startswith(_IMAGE)
        }
        self._leaders = {arm: rig.leader_of(arm) for arm in self._action.arms}
        self._newest: dict[str, tuple[int, Any]] = {}  # with the time of acquisition, [ns]
        self._guards: dict[str, GuardStatus] = {}
        self._session = GraphSession("lerobot_bridge")
        self._closing = threading.Event()
        self._listen()

    def _listen(self) -> None:
        node = self._session.node
        leaders = [f"{arm.name}/joint_states" for arm in self._leaders.values() if arm]
        for stream in dict.fromkeys((*self._states, *self._images.values(), *leaders)):
            kind = self._rig.content_of(stream).message_type
            topic = topic_of(stream).lstrip("/")
            read = sample_reader(kind)
            known = self._rig.streams.get(stream)
            offset_ns = to_ns(known.offset_s) if known else 0
            keep = self._store(stream, read, offset_ns)
            node.create_subscription(message_class(kind), topic, keep, NEWEST)
        self._commands = {
            arm: node.create_publisher(JointState, f"{arm}/command/policy", COMMAND)
            for arm in self._action.arms
        }
        self._switches = {
            arm: node.create_client(SetBool, f"{arm}/teleop/clutch") for arm in self._action.arms
        }
        for arm in self._action.arms:
            node.create_subscription(
                GuardStatus, f"{arm}/guard_status", self._on_guard(arm), LATCHED
            )

    def _store(
        self, stream: str, read: Callable[[Any], Any], offset_ns: int
    ) -> Callable[[Any], None]:
        def store(message: Any) -> None:
            acquired_ns = stamp_ns(message.header.stamp) + offset_ns
            self._newest[stream] = acquired_ns, read(message)

        return store

    def _on_guard(self, arm: str) -> Callable[[GuardStatus], None]:
        def keep(message: GuardStatus) -> None:
            self._guards[arm] = message

        return keep

    def meet_graph(self) -> None:
        """Wait a while for other nodes, and take the time from where they take it."""
        self._session.meet_graph(_MEET_S)
        self._session.follow_graph_clock()

    def run(self) -> None:
        """Handle what comes in until Ctrl-C."""
        try:
            while not self._closing.is_set():
                self._session.spin(_PERIOD_S)
        except KeyboardInterrupt:
            return

    def close(self) -> None:
        """Leave the graph."""
        self._closing.set()
        self._session.close()

    # -- what clients ask -------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """Return what a client must know to make features of it."""
        cameras = self._rig.cameras
        named = {camera_stream(name): camera for name, camera in cameras.items()}
        return {
            "robot_type": self._rig.robot_type,
            "fps": self._rig.fps,
            "state": [f"{name}.pos" for name in self._state.names],
            "action": [f"{name}.pos" for name in self._action.names],
            "cameras": {
                name: [named[stream].height, named[stream].width]
                for name, stream in self._images.items()
            },
        }

    def take(self) -> None:
        """Open the human's enable switches: teleoperation goes before every other source.

        Raises:
            Refused: A teleoperation is there and does not say that its switch is open.
        """
        for arm, switch in self._switches.items():
            if not switch.service_is_ready():
                continue  # no one teleoperates this arm
            done = switch.call_async(SetBool.Request(data=False))
            end = time.monotonic() + _SWITCH_S
            while not done.done() and time.monotonic() < end:
                time.sleep(0.01)
            answer = done.result() if done.done() else None
            if answer is None or not answer.success:
                why = answer.message if answer is not None else f"no answer in {_SWITCH_S:.0f} s"
                raise Refused(f"{arm}: the leader's enable switch does not open: {why}")
            say(f"{arm}: a client of the bridge drives; the leader's enable switch is open")

    def observe(self) -> dict[str, Any]:
        """Return the newest state and images.

        Raises:
            Refused: A stream is silent.
        """
        images = {name: bytes(self._sample(s)) for name, s in self._images.items()}
        return {"state": self._joints(self._state, self._states), "images": images}

    def leader(self) -> Any:
        """Return where the leaders are, in the action's order and units.

        Raises:
            Refused: An arm has no leader, or it is silent.
        """
        missing = [arm for arm, leader in self._leaders.items() if leader is None]
        if missing:
            raise Refused(f"no leader drives {', '.join(missing)} in {self._rig.path}")
        leaders = [leader.name for leader in self._leaders.values() if leader is not None]
        layout = ActionLayout.of_arms(self._rig, leaders)
        return self._joints(layout, [f"{name}/joint_states" for name in leaders])

    def command(self, action: Any) -> str:
        """Send an action, stamped now.

        Raises:
            Refused: It is no action, or an arm is stopped.
        """
        values = checked_action(action, self._action.width)
        for arm in self._action.arms:
            guard = self._guards.get(arm)
            if guard is None:
                raise Refused(f"{arm}: its driver is not heard. Is `koch up` running?")
            if guard.mode in (GuardStatus.OFF, GuardStatus.STOPPED):
                raise Refused(f"{arm} is stopped: {guard.reason or 'its torque is off'}")
        rad = self._action.to_rad(self._units, Units.LEROBOT, values)
        stamp = self._session.node.get_clock().now().to_msg()
        for arm, positions in self._action.split(rad).items():
            message = JointState(name=list(self._rig.arm(arm).topic_joints))
            message.header.stamp = stamp
            message.position = array("d", positions.tolist())
            self._commands[arm].publish(message)
        return ", ".join(dict.fromkeys(guard.source for guard in self._guards.values()))

    def _joints(self, layout: ActionLayout, streams: Sequence[str]) -> Any:
        rows = []
        for part, stream in zip(layout.parts, streams, strict=True):
            value = self._sample(stream)
            units = self._units[part.arm]
            vector = joint_vector(value.names, value.values, units.model.joints)
            rows.append(units.rad_to(Units.LEROBOT, vector))
        return np.concatenate(rows).astype(np.float32)

    def _sample(self, stream: str) -> Any:
        heard: Mapping[str, tuple[int, Any]] = self._newest
        if stream not in heard:
            raise Refused(f"{stream}: nothing yet. Is `koch up` running with this rig?")
        acquired_ns, value = heard[stream]
        known = self._rig.streams.get(stream)
        if known is not None and known.holds:
            return value
        limit_s = max(_LEROBOTS_S, 0.0 if known is None else known.max_age_s)
        age_s = self._session.now_s() - acquired_ns / NS_PER_S
        if age_s > limit_s:
            raise Refused(
                f"{stream}: nothing for {fixed(age_s, 1)} s, by its stamp; {limit_s:g} s are "
                "allowed. Is `koch up` running with this rig?"
            )
        if age_s < -limit_s:  # the rule of the observation builder
            raise Refused(
                f"{stream}: stamped {fixed(-age_s, 1)} s in the future. Do both computers' clocks "
                "agree?"
            )
        return value
