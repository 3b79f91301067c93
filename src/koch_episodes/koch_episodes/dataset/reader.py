# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading LeRobot datasets of any format without LeRobot: frames and windows for training."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from koch_core.files import write_atomically
from koch_core.image import Crop, crop_rgb, crop_slices, resize_rgb
from koch_episodes.dataset.format import Episode, load_info
from koch_episodes.dataset.frames import FrameCache, Rgb, VideoFrames
from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.dataset.load import MALFORMED, image_bytes, load_rows, stored_image
from koch_episodes.dataset.selection import EpisodeField, chosen_numbers, dataset_fields
from koch_episodes.dataset.video_files import check_places, files_digest
from koch_episodes.errors import DatasetFormatError

Item = dict[str, Any]
_OPEN_ROW_GROUPS = 64
_ROWS_AT_ONCE = 64  # bounds the memory in which a row group is unpacked


class StoredImages:
    """Images that are stored as encoded files inside the frame tables, one at a time.

    Parquet hands out no single value: it unpacks a whole row group, an episode, for each. So each
    row group is unpacked once, into a temporary file that is memory-mapped; LeRobot does so with
    all of a dataset when it opens it. Processes forked from this one share the files.

    Args:
        files: Frame tables in order.
        folder: Where the temporary files go; None: where the system has them.
    """

    def __init__(self, files: Sequence[Path], folder: Path | None = None) -> None:
        self._files = tuple(files)
        self._parent = folder
        self._folder: Path | None = None
        self._groups: list[tuple[Path, int]] = []
        self._ends: npt.NDArray[np.int64] | None = None
        self._open: OrderedDict[tuple[str, int], pa.ipc.RecordBatchFileReader] = OrderedDict()

    def prepare(self) -> None:
        """Note where rows are and make the folder, before other processes need it."""
        if self._parent is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix="koch_images_", dir=self._parent))
        weakref.finalize(self, _remove, self._folder, os.getpid())
        counts = []
        for path in self._files:
            metadata = pq.read_metadata(path)
            for group in range(metadata.num_row_groups):
                self._groups.append((path, group))
                counts.append(metadata.row_group(group).num_rows)
        self._ends = np.cumsum(counts)

    def encoded(self, key: str, row: int) -> bytes:
        """Return the image of a row (counted over all tables) as a PNG or JPEG file's bytes.

        Raises:
            DatasetFormatError: The cell holds none.
        """
        if self._ends is None:
            self.prepare()
        assert self._ends is not None
        number = int(np.searchsorted(self._ends, row, side="right"))
        place = row - (int(self._ends[number - 1]) if number else 0)
        batches = self._unpacked(key, number)
        batch = 0
        while place >= (rows := batches.get_batch(batch)).num_rows:
            place, batch = place - rows.num_rows, batch + 1
        cell = rows.column(0)[place].as_py()
        return image_bytes(cell, self._groups[number][0], f"{key!r} of row {row}")

    def _unpacked(self, key: str, number: int) -> pa.ipc.RecordBatchFileReader:
        found = self._open.pop((key, number), None)
        if found is None:
            assert self._folder is not None
            path = self._folder / f"{key}.{number}.arrow"
            if not path.exists():
                self._unpack(key, number, path)
            found = pa.ipc.open_file(pa.memory_map(str(path)))
        self._open[key, number] = found
        if len(self._open) > _OPEN_ROW_GROUPS:
            self._open.popitem(last=False)
        return found

    def _unpack(self, key: str, number: int, path: Path) -> None:
        table, group = self._groups[number]
        draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with pq.ParquetFile(table) as file:
            kind = file.schema_arrow.field(key)
            with pa.ipc.new_file(str(draft), pa.schema([kind])) as target:
                for batch in file.iter_batches(_ROWS_AT_ONCE, row_groups=[group], columns=[key]):
                    target.write_batch(batch.select([key]))
        draft.replace(path)

    def __getstate__(self) -> dict[str, Any]:
        """Send places, not open files, to another process."""
        return {**self.__dict__, "_open": OrderedDict()}


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)


class LeRobotDatasetReader:
    """Random access to a dataset folder.

    Numbers are held in memory; images are decoded when asked for, and kept in a memory-mapped
    cache if a folder is given. Safe to share with worker processes, forked or spawned.

    Args:
        root: Dataset folder.
        image_size: (height, width) in [px] of the images handed out; None: as stored.
        sizes: The same for single camera features, in place of `image_size`.
        crops: Box per camera feature that is cut out before the size is changed.
        cache: Folder for decoded images; None: decode each time.
        outcomes: Only episodes that ended so (``success``); empty: all.

    Raises:
        DatasetFormatError: The folder is no readable dataset.
    """

    def __init__(
        self,
        root: Path | str,
        *,
        image_size: tuple[int, int] | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        crops: Mapping[str, Crop] | None = None,
        cache: Path | None = None,
        outcomes: Sequence[str] = (),
    ) -> None:
        self.root = Path(root)
        try:
            self.info = load_info(self.root)
            self.tasks = tuple(self.info.format.tasks(self.root))
            self.stats = self.info.format.stats(self.root)
            self._rows = load_rows(self.root, self.info, outcomes)
        except MALFORMED as exc:
            got = f"malformed files ({type(exc).__name__}: {exc})"
            raise DatasetFormatError(self.root, got, "a LeRobot dataset") from exc
        self.episodes = self._rows.episodes
        self._columns = self._rows.columns
        self._require_tasks()
        self._ends = np.array([episode.to_index for episode in self.episodes])
        self._outcomes = tuple(outcomes)
        self._size, self._sizes = image_size, dict(sizes or {})
        self._crops = dict(crops or {})
        self._videos = VideoFrames()
        self._placed: set[str] = set()  # cameras whose episodes lie in their files as told
        self._stored = StoredImages(self._rows.files, cache)
        if any(not self.features[key].is_video for key in self.image_keys):
            self._stored.prepare()
        self._caches = self._open_caches(cache) if cache else {}

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """Features as info.json declares them."""
        return self.info.features

    @property
    def fps(self) -> int:
        """Frames per second."""
        return self.info.fps

    @property
    def image_keys(self) -> tuple[str, ...]:
        """Camera features; depth maps are none."""
        return tuple(
            key for key, spec in self.features.items() if spec.is_image and not spec.is_depth
        )

    def episode(self, index: int) -> Episode:
        """Return an episode by its place among those that are there; see `episode_numbered`."""
        return self.episodes[index]

    def episode_numbered(self, number: int) -> Episode:
        """Return the episode whose ``episode_index`` is this; edited datasets have holes.

        Raises:
            DatasetFormatError: There is none.
        """
        for episode in self.episodes:
            if episode.index == number:
                return episode
        numbers = [episode.index for episode in self.episodes]
        whole = numbers == list(range(len(numbers)))
        known = f"0..{len(numbers) - 1}" if whole else ", ".join(map(str, numbers))
        raise DatasetFormatError(self.root, f"no episode {number}", f"one of {known}")

    def chosen(self, text: str, *, option: str = "--episodes") -> list[Episode]:
        """Return the episodes that numbers like ``0,3-5`` or an expression mean.

        Raises:
            KochError: There are none, or the text means nothing.
        """
        numbers = [episode.index for episode in self.episodes]
        found = chosen_numbers(self.root, numbers, text, fields=self.fields, option=option)
        return [self.episode_numbered(number) for number in found]

    def fields(self) -> dict[str, EpisodeField]:
        """What an expression can ask of the episodes, in their order."""
        return dataset_fields(self.root, self.info, self.episodes, self.tasks, self.column)

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
            Feature key to array (vectors), scalar, or image (uint8 RGB, shape (H, W, 3)), and
            ``task``.
        """
        index = self._checked(index)
        item: Item = {key: values[index] for key, values in self._columns.items()}
        for key in self.image_keys:
            item[key] = self.image(key, index)
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
            ``<key>_is_pad`` bool of that length. Other numbers as in `reader[index]`; images
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
                item[key] = np.stack([self.image(key, int(row)) for row in rows])
            item[f"{key}_is_pad"] = wanted != rows
        item["task"] = self._task(index)
        return item

    def image_shape(self, key: str) -> tuple[int, int]:
        """Return height and width in [px] of the images handed out."""
        size = self._sizes.get(key, self._size)
        if size is not None:
            return size
        height, width = self.features[key].shape[:2]
        if key not in self._crops:
            return height, width
        rows, columns = crop_slices(height, width, self._crops[key])
        return rows.stop - rows.start, columns.stop - columns.start

    def image(self, key: str, index: int) -> Rgb:
        """Return one camera image, from the cache if it is there.

        Args:
            key: Camera feature.
            index: Global frame index.

        Returns:
            RGB, uint8, shape (H, W, 3) of `image_size`.
        """
        cache = self._caches.get(key)
        if cache is not None:
            known = cache.get(index)
            if known is not None:
                return known
        image = self._decode(key, index)
        if key in self._crops:
            image = crop_rgb(image, self._crops[key])
        size = self._sizes.get(key, self._size)
        if size is not None:
            image = resize_rgb(image, *size)
        if cache is not None:
            cache.put(index, image)
        return image

    # Their names in 0.1.0, which scripts of others use.
    picture, picture_keys = image, image_keys

    def fill_cache(self, key: str) -> Iterator[int]:
        """Decode a whole camera in order, which is the quickest; yields the count done so far."""
        for index in range(len(self)):
            self.image(key, index)
            yield index + 1

    def image_digest(self, key: str, rows: int) -> str:
        """Return a hash that tells one camera's stored images of the first rows from others.

        Of video files it covers sizes and 1 MB of each, spread over the file; of images inside
        the tables 16 of them. Copying a dataset, or rewriting its tables, changes nothing.
        """
        if not self.features[key].is_video:
            chosen = np.unique(np.linspace(0, rows - 1, 16).astype(np.int64)).tolist()
            digest = hashlib.sha256()
            for row in chosen:
                digest.update(self._stored.encoded(key, int(self._rows.places[row])))
            return digest.hexdigest()
        shown = [e.videos[key] for e in self.episodes if e.to_index <= rows]
        return files_digest(dict.fromkeys(place.path for place in shown))

    def close(self) -> None:
        """Close the video files."""
        self._videos.close()

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index % len(self)

    def _require_tasks(self) -> None:
        found = np.unique(self._columns["task_index"].astype(np.int64))
        beyond = found[(found < 0) | (found >= len(self.tasks))]
        if len(beyond):
            raise DatasetFormatError(
                self.root, f"task_index {beyond[0]}", f"0 to {len(self.tasks) - 1}, its tasks"
            )

    def _task(self, index: int) -> str:
        return self.tasks[int(self._columns["task_index"][index])]

    def _decode(self, key: str, index: int) -> Rgb:
        if self.features[key].is_depth:
            raise DatasetFormatError(self.root, f"{key}, a depth map", "a camera of colours")
        if not self.features[key].is_video:
            data = self._stored.encoded(key, int(self._rows.places[index]))
            return stored_image(data, self.root, f"{key!r} of frame {index}")
        if key not in self._placed:
            check_places(key, self.episodes, self.fps)
            self._placed.add(key)
        episode = self.episodes[int(np.searchsorted(self._ends, index, side="right"))]
        place = episode.videos[key]
        time_s = place.from_s + (index - episode.from_index) / self.fps
        return self._videos.rgb(place.path, time_s, 0.25 / self.fps)

    def _open_caches(self, folder: Path) -> dict[str, FrameCache]:
        stamp = os.stat(self.root / "meta/info.json")
        text = f"{self.root.resolve()} {stamp.st_mtime_ns} {len(self)} {self._outcomes}"
        if self._crops:
            text += f" {sorted(self._crops.items())}"
        place = folder / f"{self.root.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        self._forget_other_images(place)
        return {
            key: FrameCache(place, key, len(self), *self.image_shape(key))
            for key in self.image_keys
        }

    def _forget_other_images(self, cache: Path) -> None:
        """Empty a cache whose files were changed where they are; missing ones were not."""
        shown = [place.path for e in self.episodes for place in e.videos.values()]
        stats = {path: path.stat() for path in {*shown, *self._rows.files} if path.is_file()}
        now = {str(path): [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
        told = cache / "files.json"
        before = json.loads(told.read_text(encoding="utf-8")) if told.is_file() else {}
        if any(before.get(path, found) != found for path, found in now.items()):
            shutil.rmtree(cache)
        cache.mkdir(parents=True, exist_ok=True)
        write_atomically(told, json.dumps({**before, **now}))
