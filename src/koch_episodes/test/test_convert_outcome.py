# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What was recorded about an episode reaches its tables: interventions, outcome, rewards."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.columns import reward_columns
from koch_episodes.convert.mapping import DONE, INTERVENTION, REWARD, SUCCESS
from koch_episodes.dataset import LeRobotDatasetReader, Version, validate_dataset
from koch_episodes.errors import DatasetWriteError

WriteBag = Callable[..., Path]
START, STOP, BEGIN, END = 0, 1, 3, 4
NS = 1_000_000_000
EVENTS = "/episodes/events"


@pytest.fixture
def told(episode_event: Callable[..., Any]) -> Callable[..., Any]:
    """Adds events to a bag's messages: (time [s] from its begin, kind, episode, outcome)."""

    def add(*events: tuple[float, int, int, str]) -> Callable[[list[Any]], list[Any]]:
        def change(messages: list[Any]) -> list[Any]:
            begin = min(message[3] for message in messages)
            found = []
            for seconds, kind, index, outcome in events:
                stamp = begin + round(seconds * NS)
                event = episode_event(stamp, kind, index, outcome)
                name = "koch_interfaces/msg/EpisodeEvent"
                found.append((EVENTS, name, stamp + 1_000_000, stamp, event))
            return sorted([*messages, *found], key=lambda message: message[2])

        return change

    return add


def times_of(reader: LeRobotDatasetReader, key: str = INTERVENTION) -> list[float]:
    """The times [s] of the frames at which a bool column is true."""
    return (np.flatnonzero(reader.column(key)) / reader.fps).tolist()


@pytest.mark.parametrize(
    ("events", "spans"),
    [
        ([(0.5, BEGIN), (0.9, END)], [(0.5, 0.9)]),
        ([(0.31, BEGIN), (0.62, END), (1.2, BEGIN), (1.4, END)], [(0.31, 0.62), (1.2, 1.4)]),
        ([(1.1, BEGIN)], [(1.1, 9.0)]),
        ([(0.7, END)], [(0.0, 0.7)]),
        ([(0.5, BEGIN), (0.6, BEGIN), (0.9, END), (1.0, END)], [(0.5, 0.9)]),
        ([(0.001, BEGIN), (0.002, END)], []),
    ],
    ids=["one", "two", "open", "begun before", "twice", "between frames"],
)
@pytest.mark.parametrize("version", list(Version))
def test_interventions_become_a_column(
    write_bag: WriteBag,
    told: Callable[..., Any],
    events: list[tuple[float, int]],
    spans: list[tuple[float, float]],
    version: Version,
) -> None:
    bag = write_bag(change=told(*((t, kind, 0, "") for t, kind in events)))
    out = bag.parent / "out"
    convert([bag], out, ConvertOptions(version=version))
    reader = LeRobotDatasetReader(out)
    column = reader.column(INTERVENTION)
    assert column.dtype == bool
    start = 0.001  # the camera's first image
    ticks = start + np.arange(len(reader)) / 30
    wanted = np.zeros(len(reader), bool)
    for begin, end in spans:
        wanted |= (ticks >= begin) & (ticks < end)
    assert column.tolist() == wanted.tolist()
    assert not validate_dataset(out).findings
    table = pq.read_table(next((out / "data").rglob("*.parquet")))
    assert str(table.schema.field(INTERVENTION).type) == "bool"


def test_bags_without_interventions_get_no_column_but_beside_others_they_do(
    write_bag: WriteBag, told: Callable[..., Any], tmp_path: Path
) -> None:
    plain = write_bag("plain", seconds=1.0)
    helped = write_bag("helped", seconds=1.5, change=told((0.5, BEGIN, 0, ""), (0.8, END, 0, "")))
    convert([plain], tmp_path / "one", ConvertOptions())
    assert INTERVENTION not in LeRobotDatasetReader(tmp_path / "one").features
    convert([plain, helped], tmp_path / "two", ConvertOptions())
    reader = LeRobotDatasetReader(tmp_path / "two")
    counts = [
        int(reader.column(INTERVENTION)[e.from_index : e.to_index].sum()) for e in reader.episodes
    ]
    assert sorted(counts) == [0, 9]
    with pytest.raises(DatasetWriteError, match="feature intervention"):
        convert([helped], tmp_path / "one", ConvertOptions(), append=True)
    more = write_bag("more", seconds=1.2)
    convert([more], tmp_path / "two", ConvertOptions(), append=True)
    assert LeRobotDatasetReader(tmp_path / "two").column(INTERVENTION).sum() == 9


@pytest.mark.parametrize("outcome", ["success", "failure", "dropped", ""])
def test_outcome_and_rewards_stand_in_the_tables(
    write_bag: WriteBag, told: Callable[..., Any], outcome: str, tmp_path: Path, rig_file: Path
) -> None:
    first = ((0.1, START, 3, ""), (0.8, STOP, 3, outcome))
    second = ((1.0, START, 4, ""), (1.6, STOP, 4, "success"))
    bag = write_bag(change=told(*first, *second), custom={})
    convert([bag], tmp_path / "out", ConvertOptions(rig=rig_file, rewards=True))
    reader = LeRobotDatasetReader(tmp_path / "out")
    assert [episode.outcome for episode in reader.episodes] == [outcome, "success"]
    lasts = [episode.to_index - 1 for episode in reader.episodes]
    good = [last for last, e in zip(lasts, reader.episodes, strict=True) if e.outcome == "success"]
    assert np.flatnonzero(reader.column(DONE)).tolist() == lasts
    assert np.flatnonzero(reader.column(SUCCESS)).tolist() == good
    assert np.flatnonzero(reader.column(REWARD) == 1.0).tolist() == good
    assert reader.column(REWARD).dtype == np.float32
    chosen = LeRobotDatasetReader(tmp_path / "out", outcomes=["success"])
    assert chosen.column(SUCCESS).sum() == len(chosen.episodes) == len(good)
    assert not validate_dataset(tmp_path / "out").findings


def test_reward_columns_of_one_frame() -> None:
    found = reward_columns(1, succeeds=True)
    assert {key: values.tolist() for key, values in found.items()} == {
        DONE: [True],
        SUCCESS: [True],
        REWARD: [1.0],
    }
