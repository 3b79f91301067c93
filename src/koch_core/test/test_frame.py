# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""FrameAssembler: the staleness rule, the two rules of choice, broken samples."""

from __future__ import annotations

import pytest

from koch_core.errors import DecodeError, StreamUnknownError
from koch_core.frame import (
    Frame,
    FrameAssembler,
    FrameFeature,
    Missing,
    SampleRule,
)
from koch_core.stream import StreamBuffer

MS = 1_000_000


def arm_and_command(max_age_s: float = 0.05) -> tuple[FrameAssembler, dict[str, StreamBuffer]]:
    buffers = {name: StreamBuffer(name, 100, max_age_s) for name in ("state", "command")}
    features = [
        FrameFeature("observation.state", "state"),
        FrameFeature("action", "command", SampleRule.NEXT),
    ]
    return FrameAssembler(features, buffers), buffers


def test_observation_is_before_and_action_after_the_tick() -> None:
    assembler, buffers = arm_and_command()
    for stamp in (90, 98, 104, 112):
        buffers["state"].push(stamp * MS, stamp)
        buffers["command"].push(stamp * MS, stamp)
    frame = assembler.assemble(100 * MS)
    assert isinstance(frame, Frame)
    assert frame.values == {"observation.state": 98, "action": 104}
    assert frame.ages_ns == {"observation.state": 2 * MS, "action": -4 * MS}


def test_sample_exactly_at_its_maximum_age_exists_and_one_ns_older_does_not() -> None:
    assembler, buffers = arm_and_command()
    buffers["state"].push(50 * MS, 1)
    buffers["command"].push(100 * MS + 1, 2)
    assert isinstance(assembler.assemble(100 * MS), Frame)
    missing = assembler.assemble(100 * MS + 1)
    assert isinstance(missing, Missing)
    assert [reason.stream for reason in missing.reasons] == ["state"]
    assert missing.reasons[0].age_s == pytest.approx(0.05)


def test_missing_names_every_stream_and_age() -> None:
    assembler, buffers = arm_and_command()
    buffers["state"].push(0, 1)
    missing = assembler.assemble(200 * MS)
    assert isinstance(missing, Missing)
    assert {reason.stream: reason.age_s for reason in missing.reasons} == {
        "state": pytest.approx(0.2),
        "command": None,
    }
    assert "state: sample is 200 ms old, allowed 50 ms" in str(missing)
    assert "command: no sample at or after the tick" in str(missing)


def test_broken_sample_does_not_exist() -> None:
    buffer = StreamBuffer("camera", 10, 0.05)
    buffer.push(80 * MS, b"good")
    buffer.push(95 * MS, b"bad")

    def decode(value: bytes) -> str:
        if value == b"bad":
            raise DecodeError("image", "cut off")
        return value.decode()

    assembler = FrameAssembler(
        [FrameFeature("image", "camera", decode=decode)], {"camera": buffer}
    )
    frame = assembler.assemble(100 * MS)
    assert isinstance(frame, Frame)
    assert frame.values["image"] == "good"
    assert frame.stamps_ns["image"] == 80 * MS
    missing = assembler.assemble(140 * MS)
    assert isinstance(missing, Missing)


def test_held_sample_is_decoded_once() -> None:
    buffer = StreamBuffer("camera", 10, 0.1)
    buffer.push(0, b"x")
    calls: list[bytes] = []

    def decode(value: bytes) -> bytes:
        calls.append(value)
        return value

    assembler = FrameAssembler(
        [FrameFeature("image", "camera", decode=decode)], {"camera": buffer}
    )
    for tick in (0, 33, 66):
        assert isinstance(assembler.assemble(tick * MS), Frame)
    assert calls == [b"x"]


def test_unknown_stream_is_named() -> None:
    with pytest.raises(StreamUnknownError, match=r"needs stream 'arm'.*known streams: camera"):
        FrameAssembler([FrameFeature("a", "arm")], {"camera": StreamBuffer("camera", 1, 1.0)})


def test_samples_their_publisher_calls_unusable_are_ignored_also_in_hindsight() -> None:
    assembler, buffers = arm_and_command()
    for stamp in range(0, 400, 10):
        buffers["state"].push(stamp * MS, stamp)
        buffers["command"].push(stamp * MS, stamp)
    buffers["state"].mark(100 * MS, "frozen")  # said after the samples came
    buffers["state"].mark(300 * MS, "")
    assert isinstance(assembler.assemble(95 * MS), Frame)
    missing = assembler.assemble(200 * MS)
    assert str(missing) == "state: unusable: frozen"
    assert isinstance(assembler.assemble(300 * MS), Frame)


def test_a_later_word_about_the_same_time_replaces_the_earlier() -> None:
    buffer = StreamBuffer("camera", 10, 0.05, offset_s=-0.04)
    buffer.mark(100 * MS, "black")
    buffer.mark(100 * MS, "")
    buffer.mark(50 * MS, "damaged")
    assert buffer.fault_at(9 * MS) == ""
    assert buffer.fault_at(10 * MS) == "damaged"  # the stream's offset counts
    assert buffer.fault_at(999 * MS) == "damaged"
