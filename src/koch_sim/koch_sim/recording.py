# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demonstrations in the lockstep simulation as ordinary MCAP episodes.

Topics, types, rates and custom data are those of the recorder on the graph, so that `koch convert`
and `ros2 bag` cannot tell the difference. Stamps are the world's time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from koch_episodes.bag.definitions import Definitions
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.storage import EVENTS_TYPE
from koch_episodes.bag.writer import BagWriter
from koch_episodes.convert.events import INTERVENTION_BEGIN
from koch_episodes.recorder.provenance import Provenance
from koch_rig.stream import COMPRESSED_IMAGE, JOINT_STATE, NAMED_VECTOR
from koch_sim.errors import UnreachableError
from koch_sim.lockstep import Lockstep
from koch_sim.settings import LockstepSettings

if TYPE_CHECKING:
    from koch_rig.rig import Rig

_NS = 1_000_000_000
#: What people record as well would take this long to arrive, [ns]: later than the stamp.
_TRANSPORT_NS = {JOINT_STATE: 1_000_000, NAMED_VECTOR: 1_000_000, COMPRESSED_IMAGE: 30_000_000}


class LockstepRecorder:
    """Hears a lockstep simulation and writes what it heard as one bag.

    Images are drawn when the bag is written, so an episode that is thrown away costs none.

    Args:
        rig: Names the topics.
    """

    def __init__(self, rig: Rig) -> None:
        self._topics = {name: stream.topic for name, stream in rig.streams.items()}
        self._kinds = {name: stream.content.message_type for name, stream in rig.streams.items()}
        self._provenance = Provenance(rig)
        self._definitions = Definitions()
        self._types = get_typestore(Stores.ROS2_JAZZY)
        for kind in (NAMED_VECTOR, EVENTS_TYPE):
            text = self._definitions.topic("", kind)[0].definition
            self._types.register(get_types_from_msg(text, kind))
        self._heard: list[tuple[str, int, Any]] = []

    def hear(self, stream: str, stamp_ns: int, value: Any) -> None:
        """Take a sample; a `koch_sim.lockstep.Listener`."""
        if stream in self._topics:
            self._heard.append((stream, stamp_ns, value))

    def forget(self) -> None:
        """Drop what was heard."""
        self._heard.clear()

    def write(
        self,
        folder: Path,
        task: str,
        index: int,
        outcome: str,
        *,
        takeover_ns: int | None = None,
    ) -> Path:
        """Write what was heard since the last `forget` as an episode.

        Args:
            folder: Where it goes.
            task: What was to be done, in words.
            index: Number of the episode.
            outcome: How it ended.
            takeover_ns: A human took over from a policy at this stamp and drove to the end.

        Raises:
            BagError: Something is there already.
            OSError: It cannot be written.
        """
        writer = BagWriter(folder, self._provenance.begin(task, index))
        numbers: dict[str, int] = {}
        messages = sorted(map(self._message, self._heard), key=lambda message: message[0])
        for log_ns, stream, kind, stamp_ns, value in messages:
            if takeover_ns is not None and log_ns >= takeover_ns:
                self._write_takeover(writer, takeover_ns, task, index)
                takeover_ns = None
            if stream not in numbers:
                topic, type_hash = self._definitions.topic(self._topics[stream], kind)
                numbers[stream] = writer.add_topic(
                    topic, type_hash=type_hash, qos=[OfferedQos(depth=10)]
                )
            data = bytes(self._types.serialize_cdr(self._filled(kind, stamp_ns, value), kind))
            writer.write(numbers[stream], data, log_ns, log_ns)
            if writer.pending > 1 << 22:
                writer.flush()
        return writer.finish(self._provenance.end(outcome, "", ()))

    def _write_takeover(self, writer: BagWriter, time_ns: int, task: str, index: int) -> None:
        """Say that a human drives from here on, as the policy node does."""
        topic, type_hash = self._definitions.topic("/episodes/events", EVENTS_TYPE)
        number = writer.add_topic(topic, type_hash=type_hash, qos=[OfferedQos(depth=10)])
        types = self._types.types
        event = types[EVENTS_TYPE](
            self._header(time_ns), INTERVENTION_BEGIN, index, task, "", "the expert took over"
        )
        data = bytes(self._types.serialize_cdr(event, EVENTS_TYPE))
        writer.write(number, data, time_ns, time_ns)

    def _header(self, stamp_ns: int) -> Any:
        types = self._types.types
        stamp = types["builtin_interfaces/msg/Time"](stamp_ns // _NS, stamp_ns % _NS)
        return types["std_msgs/msg/Header"](stamp, "")

    def _message(self, heard: tuple[str, int, Any]) -> tuple[int, str, str, int, Any]:
        stream, stamp_ns, value = heard
        kind = self._kinds[stream]
        return stamp_ns + _TRANSPORT_NS[kind], stream, kind, stamp_ns, value

    def _filled(self, kind: str, stamp_ns: int, value: Any) -> Any:
        types = self._types.types
        header = self._header(stamp_ns)
        if kind == COMPRESSED_IMAGE:
            return types[kind](header, "jpeg", np.frombuffer(bytes(value), np.uint8))
        names, values = list(value.names), np.asarray(value.values, np.float64)
        if kind == NAMED_VECTOR:
            return types[kind](header, names, values)
        return types[kind](header, names, values, np.asarray(value.speeds), np.zeros(0))


@dataclass(frozen=True)
class Recorded:
    """One try.

    Attributes:
        seed: Of the set-up.
        folder: Its episode, None where nothing is kept: the expert failed.
        duration_s: How long it lasted, [s] of the world.
        remark: What else there is to say.
    """

    seed: int
    folder: Path | None
    duration_s: float
    remark: str = ""


class Demonstrator:
    """Records the expert on one seed after another."""

    def __init__(self, settings: LockstepSettings, task: str) -> None:
        self._lockstep = Lockstep.of(settings)
        self._writer = LockstepRecorder(self._lockstep.rig)
        self._task = task

    def __call__(self, job: tuple[int, int, Path]) -> Recorded:
        """Record a seed as the episode of a number; failures leave nothing behind."""
        seed, index, folder = job
        self._writer.forget()
        self._lockstep.restart(seed)
        self._lockstep.listen(self._writer.hear)
        try:
            succeeded = self._lockstep.demonstrate()
        except UnreachableError:
            succeeded = False
        finally:
            self._lockstep.hush()
        duration_s = self._lockstep.world.time_s
        task = self._task or self._lockstep.world.setup.goal.sentence
        if not succeeded:
            return Recorded(seed, None, duration_s)
        return Recorded(seed, self._writer.write(folder, task, index, "success"), duration_s)
