# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an edit makes: stretches of episodes in a new order, with the words that tell of them."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from koch_episodes.dataset.edit.source import SourceDataset
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.layout import DEFAULT_FEATURES, FeatureSpec
from koch_episodes.dataset.selection import chosen_numbers
from koch_episodes.dataset.video import VideoSettings


@dataclass(frozen=True, eq=False)
class Piece:
    """A stretch of one episode that becomes an episode.

    Attributes:
        source: Dataset that it is taken from.
        episode: The episode there.
        start: First frame.
        stop: Behind the last frame.
        task: Text in place of the tasks it has; None keeps them.
        outcome: In place of the one it has; None keeps it.
        renamed: Task texts to those in their place.
    """

    source: SourceDataset
    episode: Episode
    start: int
    stop: int
    task: str | None = None
    outcome: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether it has all frames of the episode."""
        return self.start == 0 and self.stop == self.episode.length

    @property
    def length(self) -> int:
        """Count of frames."""
        return self.stop - self.start

    def tasks(self) -> list[str]:
        """Return the task text of each frame."""
        if self.task is not None:
            return [self.task] * self.length
        told = self.source.tasks_of(self.episode)[self.start : self.stop]
        return [self.renamed.get(task, task) for task in told]


class StatsFrom(enum.Enum):
    """Where the statistics of images come from; those of numbers are always worked out."""

    STORED = "those of whole episodes are kept"
    IMAGES = "worked out from the images"


@dataclass(frozen=True, eq=False)
class Plan:
    """One dataset to be made.

    Attributes:
        out: Its folder.
        features: Its features, index columns left out.
        pieces: Its episodes in order.
        told: What the edit does, one line for each thing.
        encode: Encode all images so; None copies them wherever that is possible.
        stats: Where the statistics of images come from.
    """

    out: Path
    features: Mapping[str, FeatureSpec]
    pieces: Sequence[Piece]
    told: list[str] = field(default_factory=list)
    encode: VideoSettings | None = None
    stats: StatsFrom = StatsFrom.STORED

    @property
    def source(self) -> SourceDataset:
        """The first dataset that it is made of; rate, format and robot are its own."""
        return self.pieces[0].source


def whole(source: SourceDataset, episode: Episode) -> Piece:
    """All of an episode."""
    return Piece(source, episode, 0, episode.length)


def features_of(source: SourceDataset) -> dict[str, FeatureSpec]:
    """Features of a dataset without the index columns, which are written again for each."""
    return {key: spec for key, spec in source.features.items() if key not in DEFAULT_FEATURES}


def chosen(
    source: SourceDataset, text: str | None, *, option: str = "--episodes"
) -> list[Episode]:
    """Return the episodes of a text, see `chosen_numbers`."""
    by_number = {episode.index: episode for episode in source.episodes}
    numbers = chosen_numbers(
        source.root, list(by_number), text, fields=source.fields, option=option
    )
    return [by_number[number] for number in numbers]
