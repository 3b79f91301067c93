# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a conversion says about data that it could not use; silence would be taken for success."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.errors import EpisodeError

WriteBag = Callable[..., Path]
NS = 1_000_000_000
STATES, CAMERA = "/follower/joint_states", "/cameras/above/image_raw/compressed"


def restamped(topic: str, change: Callable[[int], int]) -> Any:
    """Change the header stamps [ns] of a topic."""

    def apply(messages: list[Any]) -> list[Any]:
        for found, _, _, stamp_ns, message in messages:
            if found == topic:
                stamp = message.header.stamp
                stamp.sec, stamp.nanosec = divmod(change(stamp_ns), NS)
        return messages

    return apply


def without(topic: str, from_s: float, to_s: float) -> Any:
    """Leave a part of a topic out, seconds of the recording."""

    def apply(messages: list[Any]) -> list[Any]:
        begin = messages[0][3]
        return [
            message
            for message in messages
            if message[0] != topic or not from_s <= (message[3] - begin) / NS < to_s
        ]

    return apply


def mapped(tmp_path: Path, age_ms: float = 100.0) -> ConvertOptions:
    path = tmp_path / "map.yaml"
    path.write_text(
        f"fps: 30\ntask: t\nmax_age_ms: {age_ms}\nfeatures:\n  observation.state: {STATES}\n"
        f"  action: {{topic: /follower/joint_command, stamp: receive}}\n"
        f"  observation.images.above: {CAMERA}\n"
    )
    return ConvertOptions(map=path)


def test_stream_that_begins_late_or_ends_early_is_named(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    late = write_bag("late", seconds=6.0, change=without(CAMERA, -1.0, 2.5))
    early = write_bag("early", seconds=6.0, change=without(STATES, 3.0, 9.0))
    whole = write_bag("whole", seconds=6.0)
    result = convert([early, late, whole], tmp_path / "out", mapped(tmp_path))
    notes = [[n for n in r["notes"] if "no frames" in n] for r in result.reports]
    assert len(notes[0]) == 1
    assert "no frames in its last 2.9 s; /follower/joint_states: sample is" in notes[0][0]
    assert len(notes[1]) == 1
    assert (
        "no frames in its first 2.5 s; /cameras/above/image_raw/compressed begins" in notes[1][0]
    )
    assert notes[2] == []


@pytest.mark.parametrize(
    ("change", "age_ms", "why"),
    [
        (
            restamped(CAMERA, lambda stamp: stamp % (5 * NS)),
            100.0,
            "never overlap in time.*--stamps receive",
        ),
        (None, 0.5, r"last missing: .* allowed [01] ms"),
        (without(STATES, 0.02, 9.0), 1.0, "shorter than two frames"),
    ],
    ids=["another clock", "maximum age too small", "one message"],
)
def test_reason_is_given_beside_the_notes(
    write_bag: WriteBag, tmp_path: Path, change: Any, age_ms: float, why: str
) -> None:
    """A note, such as that of the clock, does not stand in for the reason."""
    with pytest.raises(EpisodeError, match=why) as caught:
        convert([write_bag(change=change)], tmp_path / "out", mapped(tmp_path, age_ms))
    assert "/follower/joint_command: timed by the recorder's clock" in str(caught.value)
    assert not str(caught.value).endswith("..")
