# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's dataset format v2.0, in which many datasets on the hub still are.

It is v2.1 with one file of statistics for the whole dataset in place of a line per episode:
`koch convert --format v2.0`; `koch train --dataset DIR` and everything else reads it.

Source: LeRobot at tag v2.0 of its datasets (January 2025), `lerobot/common/datasets/utils.py`.
"""

from __future__ import annotations

from pathlib import Path

from koch_episodes.dataset import FORMATS, DatasetInfo
from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.load import read_total_stats
from koch_episodes.dataset.stats import Stats
from koch_episodes.dataset.v21 import V21, V21Storage

STATS = "meta/stats.json"


class V20(V21):
    """v2.1 but for the statistics, which the writer works out at the end."""

    name = "v2.0"
    stats_file = STATS
    has_totals = True

    def stats(self, root: Path) -> dict[str, Stats] | None:
        """Read the statistics over all episodes; None where the dataset has none."""
        return read_total_stats(root / STATS)

    def storage(self, root: Path, info: DatasetInfo) -> V21Storage:
        """Open a folder to write to: an empty one, or a dataset that is continued."""
        return V20Storage(root)

    def check_tables(self, report: Report, episodes: list[Episode]) -> None:
        """Check nothing: there are no statistics of single episodes."""


class V20Storage(V21Storage):
    """Tables and videos of v2.1, without statistics of single episodes."""

    def finish(self, info: DatasetInfo, tasks: list[str]) -> None:
        """Write the line-wise JSON tables."""
        super().finish(info, tasks)
        (self._root / V21.stats_file).unlink()


FORMATS.add(V20(), V20.name)
