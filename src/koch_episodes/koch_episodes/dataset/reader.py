# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading LeRobot datasets, v3.0 and v2.1, without LeRobot: frames and windows for training."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from koch_episodes.dataset.frames import FrameCache, Rgb, VideoFrames, resize_rgb
from koch_episodes.dataset.layout import FeatureSpec, load_info
from koch_episodes.dataset.load import (
    MALFORMED,
    Episode,
    data_files,
    load_columns,
    load_episodes,
    load_stats,
    load_tasks,
)
from koch_episodes.errors import DatasetFormatError

Item = dict[str, Any]


class LeRobotDatasetReader:
    """Random access to a dataset folder.

    Numbers are held in memory; pictures are decoded when asked for, and kept in a memory-mapped
    cache if a folder is given. Safe to share with worker processes, forked or spawned.

    Args:
        root: Dataset folder.
        picture_size: (height, width) in [px] of the pictures handed out; None: as stored.
        cache: Folder for decoded pictures; None: decode each time.

    Raises:
        DatasetFormatError: The folder is no readable dataset.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        picture_size: tuple[int, int] | None = None,
        cache: Path | None = None,
    ) -> None:
        self.root = Path(root)
        try:
            self.info = load_info(self.root)
            self.tasks = tuple(load_tasks(self.root, self.info))
            self.episodes = tuple(load_episodes(self.root, self.info))
            self.stats = load_stats(self.root, self.info)
            self._columns = load_columns(self.root, self.info)
            self._check_rows()
        except MALFORMED as exc:
            got = f"malformed files ({type(exc).__name__}: {exc})"
            raise DatasetFormatError(self.root, got, "a LeRobot dataset") from exc
        self._size = picture_size
        self._videos = VideoFrames()
        self._row_groups: tuple[tuple[Path, int, int], ...] = ()
        self._caches = self._open_caches(cache) if cache else {}

    def _check_rows(self) -> None:
        count = len(self._columns["index"])
        ends = [0, *(episode.to_index for episode in self.episodes)]
        for start, episode in zip(ends, self.episodes, strict=False):
            if episode.from_index != start or episode.to_index > count:
                raise DatasetFormatError(
                    self.root,
                    f"episode {episode.index} in rows {episode.from_index}..{episode.to_index}",
                    f"rows from {start}, at most {count}",
                )
        self._ends = np.array(ends[1:])

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """Features as info.json declares them."""
        return self.info.features

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self.info.fps

    @property
    def picture_keys(self) -> tuple[str, ...]:
        """Camera features."""
        return tuple(key for key, spec in self.features.items() if spec.is_picture)

    def episode(self, index: int) -> Episode:
        """Return an episode's table row."""
        return self.episodes[index]

    def column(self, key: str) -> npt.NDArray[Any]:
        """Return a numeric column over all frames, shape (N,) or (N, D); do not change it."""
        return self._columns[key]

    def __len__(self) -> int:
        """Count the frames."""
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, index: int) -> Item:
        """Return one frame.

        Args:
            index: Global frame index; negative counts from the end.

        Returns:
            Feature key to array (vectors), scalar, or picture (uint8 RGB, shape (H, W, 3)), and
            ``task``.
        """
        index = self._checked(index)
        item: Item = {key: values[index] for key, values in self._columns.items()}
        for key in self.picture_keys:
            item[key] = self.picture(key, index)
        item["task"] = self._task(index)
        return item

    def frame(self, episode: int, frame: int) -> Item:
        """Return one frame by episode and place in it."""
        row = self.episodes[episode]
        if not 0 <= frame < row.length:
            raise IndexError(f"episode {episode} has frames 0..{row.length - 1}, not {frame}")
        return self[row.from_index + frame]

    def window(self, index: int, offsets: Mapping[str, Sequence[int]]) -> Item:
        """Return a frame together with its neighbours in time, for training.

        Args:
            index: Global frame index.
            offsets: Feature key to frame offsets; beyond the episode's ends the edge frame is
                repeated and marked.

        Returns:
            For the keys in `offsets`: array with a leading axis of len(offsets), and
            ``<key>_is_pad`` bool of that length. Other numbers as in `reader[index]`; pictures
            only where asked for by `offsets`. ``task`` text.
        """
        index = self._checked(index)
        episode = self.episodes[int(np.searchsorted(self._ends, index, side="right"))]
        item: Item = {
            key: values[index] for key, values in self._columns.items() if key not in offsets
        }
        for key, steps in offsets.items():
            wanted = index + np.asarray(list(steps), dtype=np.int64)
            rows = np.clip(wanted, episode.from_index, episode.to_index - 1)
            if key in self._columns:
                item[key] = self._columns[key][rows]
            else:
                item[key] = np.stack([self.picture(key, int(row)) for row in rows])
            item[f"{key}_is_pad"] = wanted != rows
        item["task"] = self._task(index)
        return item

    def picture(self, key: str, index: int) -> Rgb:
        """Return one camera picture, from the cache if it is there.

        Args:
            key: Camera feature.
            index: Global frame index.

        Returns:
            RGB, uint8, shape (H, W, 3) of `picture_size`.
        """
        cache = self._caches.get(key)
        if cache is not None:
            known = cache.get(index)
            if known is not None:
                return known
        image = self._decode(key, index)
        if self._size is not None:
            image = resize_rgb(image, *self._size)
        if cache is not None:
            cache.put(index, image)
        return image

    def fill_cache(self, key: str) -> Iterator[int]:
        """Decode a whole camera in order, which is the quickest; yields the count done so far."""
        for index in range(len(self)):
            self.picture(key, index)
            yield index + 1

    def close(self) -> None:
        """Close the video files."""
        self._videos.close()

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index % len(self)

    def _task(self, index: int) -> str:
        return self.tasks[int(self._columns["task_index"][index])]

    def _decode(self, key: str, index: int) -> Rgb:
        if not self.features[key].is_video:
            return self._stored_picture(key, index)
        episode = self.episodes[int(np.searchsorted(self._ends, index, side="right"))]
        place = episode.videos[key]
        time_s = place.from_s + (index - episode.from_index) / self.fps
        return self._videos.rgb(place.path, time_s, 0.25 / self.fps)

    def _stored_picture(self, key: str, index: int) -> Rgb:
        """Read a picture that is stored as a file inside the frame table."""
        from koch_episodes.decode import decode_image

        if not self._row_groups:
            self._row_groups = tuple(_row_groups(self.root))
        row = index
        for path, group, count in self._row_groups:
            if row < count:
                cell = pq.ParquetFile(path).read_row_group(group, columns=[key])[key][row].as_py()
                return decode_image(cell["bytes"] if isinstance(cell, dict) else cell)
            row -= count
        raise DatasetFormatError(self.root, f"{index} rows", f"more than {index}")

    def _open_caches(self, folder: Path) -> dict[str, FrameCache]:
        stamp = os.stat(self.root / "meta/info.json")
        text = f"{self.root.resolve()} {stamp.st_mtime_ns} {len(self)}"
        place = folder / f"{self.root.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        return {
            key: FrameCache(place, key, len(self), *(self._size or self.features[key].shape[:2]))
            for key in self.picture_keys
        }


def _row_groups(root: Path) -> Iterator[tuple[Path, int, int]]:
    for path in data_files(root):
        metadata = pq.ParquetFile(path).metadata
        for group in range(metadata.num_row_groups):
            yield path, group, metadata.row_group(group).num_rows
