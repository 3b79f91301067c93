# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy node listens to: its streams, other commanders, the driver's guard."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from koch_interfaces.msg import GuardRefusal, GuardStatus, StreamState
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import JointState

from koch_core.stream import stamp_ns
from koch_episodes.decode import sample_reader
from koch_policy.execution.observation import ObservationBuilder
from koch_policy.execution.phase import Passage, Passages
from koch_policy.execution.takeover import (
    HUMAN,
    OTHERS,
    POLICY,
    GuardWatch,
    GuardWord,
    Takeover,
    Takeovers,
)
from koch_rig.rig import Rig
from koch_rig.stream import StreamKind
from koch_ros.message_types import message_class
from koch_ros.qos import COMMAND, LATCHED, NEWEST
from koch_ros.senders import SoleSender, publishers, sender_of

if TYPE_CHECKING:
    from koch_policy.shadow import CommandedActions

# Refusals that are a fault of the sender; the others say who drives, or that the arm is stopped.
_FAULTS = (GuardRefusal.NAMES, GuardRefusal.FINITE, GuardRefusal.AGE, GuardRefusal.SENDER)
_LOOK_S = 0.2
Push = Callable[[int, Any], None]  # takes stamp [ns] and sample


def stream_topic(rig: Rig, stream: str) -> str:
    """The relative topic of a stream, so that a namespace moves it along."""
    return rig.streams[stream].topic.lstrip("/")


class ObservationInputs:
    """Subscriptions of all that a policy is told; callbacks only store.

    Args:
        node: Where they live.
        rig: Gives topics.
        builder: Takes the observations.
        takeovers: Takes other commanders, for each arm that the policy moves.
        actions: Takes what is really commanded, for shadow mode; None otherwise.
        on_guard: Called with the reason when the guard ends a run.
    """

    def __init__(
        self,
        node: Node,
        rig: Rig,
        builder: ObservationBuilder,
        takeovers: Takeovers,
        actions: CommandedActions | None,
        on_guard: Callable[[str], None],
    ) -> None:
        self._node = node
        self._on_end = on_guard
        self._kinds = {name: stream.kind for name, stream in rig.streams.items()}
        self._senders: dict[str, SoleSender] = {}
        #: How the newest samples came, by stream.
        self.passages: dict[str, Passages] = {}
        #: Which streams have two publishers; empty when none has.
        self.rivals = ""
        self._guards = {arm: GuardWatch(arm, on_guard) for arm in takeovers.of}
        pushes: dict[str, list[Push]] = {
            stream: [partial(builder.push, stream)] for stream in builder.streams
        }
        for buffer in () if actions is None else actions.buffers.values():
            pushes.setdefault(buffer.name, []).append(buffer.push)
        # The middleware tells the computer's time, which is that of the stamps but in simulation.
        self._tells_passages = not node.get_clock().ros_time_is_active
        for stream, takers in pushes.items():
            self._subscribe(rig, stream, takers)
            if rig.streams[stream].kind is StreamKind.IMAGE:
                node.create_subscription(
                    StreamState, f"{stream}/state", _told(builder, stream), LATCHED
                )
        for arm, takeover in takeovers.of.items():
            for source in (HUMAN, *OTHERS):
                node.create_subscription(
                    JointState, f"{arm}/command/{source}", _heard(takeover, source), COMMAND
                )
            on_status = partial(self._on_guard, takeover, self._guards[arm])
            node.create_subscription(GuardStatus, f"{arm}/guard_status", on_status, LATCHED)
        steady = Clock(clock_type=ClockType.STEADY_TIME)  # a simulated clock may stand still
        node.create_timer(_LOOK_S, self._look, clock=steady)

    def _subscribe(self, rig: Rig, stream: str, takers: Sequence[Push]) -> None:
        message_type = rig.streams[stream].content.message_type
        read = sample_reader(message_type)
        sole = SoleSender()
        passages = self.passages[stream] = Passages()

        def receive(message: Any, info: Mapping[str, Any]) -> None:
            if sole.hears(sender_of(info), time.monotonic()):
                value, at_ns = read(message), stamp_ns(message.header.stamp)
                for take in takers:
                    take(at_ns, value)
                if self._tells_passages:
                    sent, heard = info["source_timestamp"], info["received_timestamp"]
                    passages.add(Passage(at_ns, sent, heard, time.time_ns()))

        subscription = self._node.create_subscription(
            message_class(message_type), stream_topic(rig, stream), receive, NEWEST
        )
        self._senders[subscription.topic_name] = sole

    def _look(self) -> None:
        """See whether a stream comes from two publishers, which are not obeyed, and name them."""
        found = []
        for topic, sole in self._senders.items():
            if sole.rivals:
                known = publishers(self._node, topic)
                sole.look(known, time.monotonic())
                names = ", ".join(sorted(known.get(rival, "?") for rival in sole.rivals))
                if names:
                    found.append(f"{topic} is sent by {names}: stop all but one")
        self.rivals = "; ".join(found)
        if found:
            self._on_end(self.rivals)

    @property
    def images(self) -> list[Passages]:
        """How the newest images came."""
        kinds = self._kinds
        return [p for name, p in self.passages.items() if kinds[name] is StreamKind.IMAGE]

    def passage(self, stamp_ns: int) -> Passage | None:
        """How the sample of this stamp came; None where it is not known any more."""
        found = (passages.find(stamp_ns) for passages in self.passages.values())
        return next((passage for passage in found if passage is not None), None)

    @property
    def blocked(self) -> str:
        """Why a guard obeys no one; empty when all do."""
        return "; ".join(guard.blocked for guard in self._guards.values() if guard.blocked)

    @staticmethod
    def _on_guard(takeover: Takeover, guard: GuardWatch, message: GuardStatus) -> None:
        drives = message.mode in (GuardStatus.BLENDING, GuardStatus.DRIVING)
        takeover.guard_says(message.source if drives else "", stamp_ns(message.header.stamp))
        refused = tuple(
            (f"{item.text} (from {', '.join(item.senders) or 'unknown sender'})", item.count)
            for item in message.refusals
            if item.source == POLICY and item.reason in _FAULTS
        )
        still = message.mode in (GuardStatus.OFF, GuardStatus.STOPPED)
        word = GuardWord(message.reason if still else "", int(message.stop_count), refused)
        guard.take(word)


def _heard(takeover: Takeover, source: str) -> Callable[[JointState], None]:
    return lambda message: takeover.heard(source, stamp_ns(message.header.stamp))


def _told(builder: ObservationBuilder, stream: str) -> Callable[[StreamState], None]:
    """Hand on what a camera says of its images."""
    return lambda message: builder.mark(
        stream, stamp_ns(message.since), "" if message.usable else message.reason
    )
