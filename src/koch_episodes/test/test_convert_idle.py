# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch convert --trim-idle`: rests are shortened, motion stays frame for frame."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert.cli import main
from koch_episodes.convert.events import Window
from koch_episodes.convert.idle import trimmed
from koch_episodes.convert.plan import Segment
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

FPS = 30


def segment_of(action: np.ndarray[Any, Any]) -> Segment:
    ticks = np.arange(len(action), dtype=np.int64) * 33_333_333
    part = "action/0"
    numbers = np.arange(len(action))
    return Segment(Window(), 0, ticks, {part: numbers}, {part: ticks}, {"action": action})


def path(*parts: tuple[str, int], joint: int = 1, tremor: float = 0.0) -> np.ndarray[Any, Any]:
    """Six joints of which one moves by a radian in each part `move`, all else rests."""
    pieces, at = [], 0.0
    for kind, frames in parts:
        end = at + (1.0 if kind == "move" else 0.0)
        pieces.append(np.linspace(at, end, frames, endpoint=False))
        at = end
    action = np.zeros((sum(frames for _, frames in parts), J))
    action[:, joint] = np.concatenate(pieces)
    return action + tremor * np.random.default_rng(0).uniform(-1, 1, action.shape)


@pytest.mark.parametrize("joint", [0, 2, 5])
@pytest.mark.parametrize("tremor", [0.0, 0.004])
@pytest.mark.parametrize(
    "order",
    [
        (("move", 30), ("rest", 45), ("move", 30)),
        (("rest", 45), ("move", 60)),
        (("move", 60), ("rest", 45)),
    ],
)
def test_a_rest_is_shortened_and_the_motion_stays(
    order: tuple[tuple[str, int], ...], tremor: float, joint: int
) -> None:
    action = path(*order, joint=joint, tremor=tremor)
    result = trimmed(segment_of(action), 0.2, FPS)
    assert result.length + result.trimmed == len(action)
    assert 60 + 3 <= result.length <= 60 + 9
    kept = [int(tick // 33_333_333) for tick in result.ticks_ns]
    moving = np.abs(np.diff(path(*order, joint=joint)[:, joint], prepend=0)) > 0
    lost = set(np.flatnonzero(moving)) - set(kept) - {0}
    assert len(lost) <= 1  # the first step of a motion is still within the limit of a rest
    np.testing.assert_array_equal(result.columns["action"], action[kept])
    np.testing.assert_array_equal(result.stamps_ns["action/0"], result.ticks_ns)


@pytest.mark.parametrize("seconds", [0.1, 0.5])
def test_the_time_that_stays_is_the_one_asked_for(seconds: float) -> None:
    action = path(("move", 30), ("rest", 90), ("move", 30))
    result = trimmed(segment_of(action), seconds, FPS)
    assert result.length == pytest.approx(60 + seconds * FPS, abs=3)


def test_short_rests_and_slow_motion_stay() -> None:
    short = segment_of(path(("move", 30), ("rest", 5), ("move", 30)))
    slow = segment_of(path(("move", 200)))
    for segment in (short, slow):
        result = trimmed(segment, 0.2, FPS)
        assert result.trimmed == 0
        assert result.length == segment.length


def test_a_gripper_that_closes_while_the_arm_stands_is_no_rest() -> None:
    action = path(("move", 30), ("rest", 30), ("move", 30))
    action[30:60, 5] = np.linspace(0.0, 0.6, 30)
    assert trimmed(segment_of(action), 0.2, FPS).trimmed == 0


def test_an_episode_in_which_nothing_moves_keeps_its_beginning() -> None:
    result = trimmed(segment_of(np.zeros((90, J))), 0.2, FPS)
    assert result.length == 90 or 2 <= result.length <= 8


def test_without_an_action_nothing_is_trimmed() -> None:
    state = {"observation.state": np.zeros((60, J))}
    segment = Segment(Window(), 0, np.arange(60), {}, {}, state)
    assert trimmed(segment, 0.2, FPS) is segment


def rests(messages: list[Any]) -> list[Any]:
    """Let the command stand still from 1 s to 2.5 s, at the pose that it has at 1 s."""
    begin = min(message[3] for message in messages)
    held = None
    for _, kind, _, stamp, message in messages:
        if kind.endswith("JointState") and 1e9 <= stamp - begin < 2.5e9:
            held = message.position.copy() if held is None else held
            message.position[:] = held
    return messages


def test_the_converter_trims_and_says_so(
    write_bag: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=4.0, change=rests)
    lengths = []
    for name, more in (("plain", []), ("trimmed", ["--trim-idle"])):
        out = tmp_path / name
        command = [str(bag), "--out", str(out), "--vcodec", "copy", "--jobs", "1", *more]
        assert main(command) == 0
        lengths.append(len(LeRobotDatasetReader(out)))
    assert 30 <= lengths[0] - lengths[1] <= 42
    said = capsys.readouterr()
    assert "trimmed" in said.out + said.err
    assert main([str(bag), "--out", str(tmp_path / "x"), "--trim-idle", "-1"]) == 2
