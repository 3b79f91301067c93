# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One finished episode outside a dataset: columns, videos and statistics in a folder.

Workers make parts in any order; the dataset writer puts them together in the right one. A part's
`part.json` is written last, so that a part is whole when it exists.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from koch_core.files import write_atomically
from koch_episodes.dataset.stats import Stats, stats_from_json, stats_to_json

if TYPE_CHECKING:
    import pyarrow as pa

_FACTS = "part.json"
_COLUMNS = "columns.npz"


@dataclass(frozen=True, eq=False)
class StagedEpisode:
    """A finished episode.

    Attributes:
        task: Task text.
        columns: Feature key to values, shape (T,) or (T, N).
        stats: Feature key to statistics, cameras included.
        videos: Camera key to mp4 of exactly T frames.
        video_info: Camera key to the `info` block of its feature.
        outcome: ``success``, ``failure``, a word of the user's, or empty.
        rows: Frames as another dataset stores them, in place of `columns`: types and images
            inside the table stay what they are. Numbers of episode, frame and task are replaced.
        frame_tasks: Task text of each frame, where not all have the same one.
    """

    task: str
    columns: Mapping[str, npt.NDArray[Any]]
    stats: Mapping[str, Stats]
    videos: Mapping[str, Path]
    video_info: Mapping[str, Mapping[str, Any]]
    length: int
    outcome: str = ""
    rows: pa.Table | None = None
    frame_tasks: Sequence[str] = ()

    @property
    def tasks(self) -> list[str]:
        """The different task texts, in order of appearance."""
        return list(dict.fromkeys(self.frame_tasks)) or [self.task]

    def save(self, folder: Path) -> None:
        """Write columns and facts; the videos lie in the folder already."""
        with (folder / _COLUMNS).open("wb") as file:
            np.savez(file, allow_pickle=False, **dict(self.columns))
        facts = {
            "task": self.task,
            "length": self.length,
            "outcome": self.outcome,
            "columns": list(self.columns),
            "stats": stats_to_json(self.stats),
            "videos": {key: path.name for key, path in self.videos.items()},
            "video_info": {key: dict(info) for key, info in self.video_info.items()},
        }
        write_atomically(folder / _FACTS, json.dumps(facts, ensure_ascii=False))

    @staticmethod
    def is_whole(folder: Path) -> bool:
        """Tell whether the folder holds a finished part."""
        return (folder / _FACTS).is_file()

    @classmethod
    def load(cls, folder: Path) -> StagedEpisode:
        """Read a part from its folder."""
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        with np.load(folder / _COLUMNS, allow_pickle=False) as arrays:
            columns = {key: arrays[key] for key in facts["columns"]}
        return cls(
            facts["task"],
            columns,
            stats_from_json(facts["stats"]),
            {key: folder / name for key, name in facts["videos"].items()},
            facts["video_info"],
            int(facts["length"]),
            facts["outcome"],
        )
