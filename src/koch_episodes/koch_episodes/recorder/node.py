# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder node: services, status and events around a recording session."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as LateError
from dataclasses import replace
from pathlib import Path
from typing import Any

from koch_interfaces.msg import EpisodeEvent
from koch_interfaces.srv import DiscardEpisode, StartEpisode, StopEpisode, UndoDiscard
from rcl_interfaces.msg import SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType, ROSClock
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.task import Future
from std_srvs.srv import Trigger

from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.writer import find_writer
from koch_episodes.cdr import is_intervention
from koch_episodes.recorder.backlog import Backlog, TopicSource
from koch_episodes.recorder.bag_thread import BagWriterThread
from koch_episodes.recorder.disk import DiskWatch
from koch_episodes.recorder.highlight import Highlights
from koch_episodes.recorder.nodes.parameters import RecorderParameters
from koch_episodes.recorder.nodes.status import RecorderStatusPublisher
from koch_episodes.recorder.nodes.subscriptions import Subscriptions
from koch_episodes.recorder.provenance import Provenance
from koch_episodes.recorder.saved import EventKind, StoreResult
from koch_episodes.recorder.session import RecorderSession, SessionSettings
from koch_episodes.recorder.store import EpisodeStore
from koch_episodes.recorder.topics import topics_to_record
from koch_rig.load import load_rig
from koch_ros.node import run_node
from koch_ros.parameters import declare, live_parameters
from koch_ros.qos import EVENTS_LATCHED, SERVICES
from koch_ros.stamps import RosStamper

_EVENT_TYPE = "koch_interfaces/msg/EpisodeEvent"
_TICK_S = 0.05
_DRAIN_S = 0.02
_LOOK_TICKS = 10
_SAVE_TIMEOUT_S = 4.0  # of the five seconds that a node has to end
_OWN_EVENTS_KEPT = 200
_STAMP = slice(4, 12)  # of the header, in the serialised message


class RecorderNode(Node):
    """Records episodes.

    The executor's thread runs the session, the intake's thread owns monitors and bag. Services
    stand in a reentrant group: a start waits for streams while the timers go on.
    """

    def __init__(self, *, parameter_overrides: list[Parameter] | None = None) -> None:
        """Load the rig, repair what a crash left behind, and begin to watch the streams.

        Raises:
            KochError: Rig, parameters or episode folder cannot be used.
        """
        super().__init__("recorder", parameter_overrides=parameter_overrides)
        parameters = declare(self, RecorderParameters)
        rig = load_rig(parameters.rig)
        root = parameters.root or f"~/koch_episodes/{rig.name}"
        self.store = EpisodeStore(Path(root).expanduser().resolve())
        self._report_repairs()
        definitions = Definitions()
        backlog = Backlog(parameters.highlight_s, int(parameters.highlight_mb * 1e6))
        self.intake = BagWriterThread(RosStamper(self.get_clock()).of_wall_ns, backlog)
        self._events = self.create_publisher(EpisodeEvent, "episodes/events", EVENTS_LATCHED)
        self._own_events: list[bytes] = []
        self._event_source = self._make_event_source(definitions)
        self.session = self._make_session(parameters, Provenance(rig))
        self._highlights = Highlights(
            self.store,
            self.intake.recent,
            Provenance(rig),
            self.session.disk,
            find_writer(parameters.storage),
        )
        self._status = RecorderStatusPublisher(self, self.session, self.intake)
        wanted = topics_to_record(rig, parameters.extra_topics)
        self._recorded = Subscriptions(self, self.intake, definitions, wanted)
        self._create_services()
        self._ticks = 0
        self.add_on_set_parameters_callback(self._on_parameters)
        self.create_timer(_TICK_S, self._tick)
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self.create_timer(_DRAIN_S, self._recorded.drain, clock=steady)
        self.intake.start()
        self.get_logger().info(f"episodes go to {self.store.root}")

    def _make_session(
        self, parameters: RecorderParameters, provenance: Provenance
    ) -> RecorderSession:
        return RecorderSession(
            self.store,
            self.intake,
            provenance,
            DiskWatch(
                self.store.free_bytes,
                self.intake.bytes_per_s,
                int(parameters.disk_reserve_mb * 1e6),
                time.monotonic,
            ),
            SessionSettings(
                parameters.start_timeout_s, parameters.reset_time_s, parameters.discard_red
            ),
            self._now_s,
            self._emit,
            find_writer(parameters.storage),
        )

    def close(self) -> None:
        """Save what is running and end the threads; idempotent."""
        saving = self.session.finish()
        if saving is not None:
            try:
                saving.result(timeout=_SAVE_TIMEOUT_S)
            except LateError:
                self.get_logger().error("the episode is not saved yet; the next start repairs it")
            except Exception as exc:  # of the bag thread; the rest must be closed all the same
                self.get_logger().error(f"the episode could not be saved: {exc}")
            self.session.tick()
        self._highlights.close()
        self.intake.close()
        self.store.close()

    def _report_repairs(self) -> None:
        for result in self.store.repair():
            if result.whole:
                self.get_logger().warning(f"left behind by a crash: {result.detail}")
            else:
                self.get_logger().error(f"left behind by a crash: {result.detail}")

    def _make_event_source(self, definitions: Definitions) -> TopicSource:
        name = self.resolve_topic_name("episodes/events")
        topic, type_hash = definitions.topic(name, _EVENT_TYPE)
        source = TopicSource(
            topic,
            type_hash,
            (OfferedQos(latched=True, depth=EVENTS_LATCHED.depth),),
            lasts=is_intervention,
        )
        self.intake.add_source(source)
        record = self.intake.callback(source)

        def on_event(data: bytes, info: Any) -> None:
            # Ours are in the bag before they come back (perhaps with other padding at the end).
            if data[_STAMP] not in self._own_events:
                record(data, info)

        self.create_subscription(EpisodeEvent, "episodes/events", on_event, 100, raw=True)
        return source

    def _create_services(self) -> None:
        group = ReentrantCallbackGroup()
        for kind, name, handle in (
            (StartEpisode, "start", self._on_start),
            (StopEpisode, "stop", self._on_stop),
            (DiscardEpisode, "discard", self._on_discard),
            (UndoDiscard, "undo", self._on_undo),
            (Trigger, "highlight", self._on_highlight),
        ):
            self.create_service(
                kind, f"episodes/{name}", handle, qos_profile=SERVICES, callback_group=group
            )

    # -- time -----------------------------------------------------------------------------------

    def _now_s(self) -> float:
        """Monotonic seconds, or the simulation's."""
        clock = self.get_clock()
        if isinstance(clock, ROSClock) and clock.ros_time_is_active:
            return float(clock.now().nanoseconds) * 1e-9
        return time.monotonic()

    def _tick(self) -> None:
        if self._ticks % _LOOK_TICKS == 0:
            self._recorded.look()
        self._ticks += 1
        self.session.tick()
        self._highlights.tick()
        self._status.tick()

    # -- events and services --------------------------------------------------------------------

    def _emit(self, kind: EventKind, index: int, task: str, outcome: str, detail: str) -> None:
        event = EpisodeEvent(
            kind=int(kind), episode_index=index, task=task, outcome=outcome, detail=detail
        )
        event.header.stamp = self.get_clock().now().to_msg()
        data = serialize_message(event)
        self._own_events = [*self._own_events[-_OWN_EVENTS_KEPT:], data[_STAMP]]
        self.intake.put(self._event_source, data)
        self._events.publish(event)
        words = " ".join(word for word in (outcome, detail) if word)
        self.get_logger().info(f"episode {index}: {kind.name.lower()} {words}".rstrip())

    async def _ask(self, request: Callable[[Callable[[StoreResult], None]], None]) -> StoreResult:
        answer: Future[StoreResult] = Future(executor=self.executor)
        request(answer.set_result)
        self._status.publish()
        reply: StoreResult = await answer
        self._status.publish()
        if not reply.success:
            self.get_logger().warning(reply.message)
        return reply

    async def _on_start(
        self, request: StartEpisode.Request, response: StartEpisode.Response
    ) -> StartEpisode.Response:
        reply = await self._ask(
            lambda done: self.session.start(
                request.task, request.duration_s, request.start_timeout_s, done
            )
        )
        response.episode_index = reply.index
        return _fill(response, reply)

    async def _on_stop(
        self, request: StopEpisode.Request, response: StopEpisode.Response
    ) -> StopEpisode.Response:
        self._recorded.drain()  # what waits belongs to the episode
        reply = await self._ask(
            lambda done: self.session.stop(request.outcome, request.keep, done)
        )
        response.verdict = reply.verdict
        return _fill(response, reply)

    async def _on_discard(
        self, request: DiscardEpisode.Request, response: DiscardEpisode.Response
    ) -> DiscardEpisode.Response:
        return _fill(
            response, await self._ask(lambda done: self.session.discard(request.reason, done))
        )

    async def _on_undo(
        self, _: UndoDiscard.Request, response: UndoDiscard.Response
    ) -> UndoDiscard.Response:
        return _fill(response, await self._ask(self.session.undo))

    async def _on_highlight(
        self, _: Trigger.Request, response: Trigger.Response
    ) -> Trigger.Response:
        self._recorded.drain()
        task = self.session.task
        reply = await self._ask(lambda done: self._highlights.save(task, done))
        response.success, response.message = reply.success, reply.message
        return response

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        live = live_parameters(RecorderParameters)
        changes = {item.name: item.value for item in parameters if item.name in live}
        self.session.settings = replace(self.session.settings, **changes)
        return SetParametersResult(successful=True)


def _fill(response: Any, reply: StoreResult) -> Any:
    response.success, response.message, response.path = reply.success, reply.message, reply.path
    return response


def main() -> int:
    """Entry point."""
    return run_node(RecorderNode)


if __name__ == "__main__":
    sys.exit(main())
