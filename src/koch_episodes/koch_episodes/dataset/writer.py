# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writing LeRobot datasets of any format; the folder appears when it is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.files import link_or_copy, replace_folder, write_atomically
from koch_episodes.dataset import layout
from koch_episodes.dataset.append import AppendState, append_state
from koch_episodes.dataset.format import FORMATS, DatasetInfo, NewEpisode, format_names
from koch_episodes.dataset.layout import DEFAULT_FEATURES, FeatureSpec, Version
from koch_episodes.dataset.load import load_columns
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.stats import (
    LEVELS,
    ImageStats,
    Stats,
    aggregate,
    column_stats,
    exact_quantiles,
    feature_stats,
    level_quantiles,
    like,
    sampled_frames,
    stats_to_json,
    without_quantiles,
)
from koch_episodes.dataset.validate import validate_dataset
from koch_episodes.dataset.video import VideoSettings, VideoWriter, video_info
from koch_episodes.dataset.video_files import probe
from koch_episodes.errors import DatasetFormatError, DatasetWriteError, OutputExistsError

Images = Iterable[npt.NDArray[np.uint8]]


class DatasetWriter:
    """Writes a dataset episode by episode, into a hidden folder that is renamed at the end.

    Args:
        root: Folder of the dataset. Must not exist, unless `append`.
        features: The user's features in order; the five index features are added.
        fps: Frames per second, a whole number.
        robot_type: For info.json.
        version: Name of the format.
        video: Encoder settings for images given to `add_episode`.
        append: Continue the dataset at `root`: its files are linked, not rewritten.
        replace: Put the dataset in the place of the one at `root`, once it is whole.

    Raises:
        OutputExistsError: `root` exists, and neither `append` nor `replace` is set.
        DatasetWriteError: No format has this name; or `append` and the existing dataset has
            other features or another fps.
    """

    def __init__(
        self,
        root: Path,
        features: Mapping[str, FeatureSpec],
        *,
        fps: int,
        robot_type: str | None = None,
        version: str = Version.V30,
        video: VideoSettings | None = None,
        append: bool = False,
        replace: bool = False,
    ) -> None:
        made_as = FORMATS.find(version)
        if made_as is None:
            raise DatasetWriteError(f"{root}, format", version, format_names())
        root = root.resolve() if root.is_symlink() else root  # else the link would be replaced
        bring_back(root)
        if root.exists() and not (append or replace):
            raise OutputExistsError(root)
        self.root = root
        self._published = False
        self._video = video or VideoSettings()
        user = {key: spec for key, spec in features.items() if key not in DEFAULT_FEATURES}
        self.info = DatasetInfo(made_as, fps, {**user, **DEFAULT_FEATURES}, robot_type)
        codec = video.codec if video else None
        self._start = append_state(root, self.info, codec) if append else AppendState(self.info)
        self.info = self._start.info
        self._stage = root.with_name(f".{root.name}.writing")
        self._parts = root.with_name(f".{root.name}.writing-parts")
        self._remove_drafts()
        if append:
            shutil.copytree(root, self._stage, copy_function=link_or_copy)
        else:
            self._stage.mkdir(parents=True)
        self._storage = made_as.storage(self._stage, self.info)
        self._tasks = list(self._start.tasks)
        self._stats: dict[str, list[Stats]] = {}
        self._levels = {key: [levels] for key, levels in self._start.levels.items()}
        self._frames = self.info.total_frames
        self._episodes = self.info.total_episodes

    def add_part(self, part: StagedEpisode) -> None:
        """Append a finished episode; its files are linked or copied, never changed."""
        if part.length < 1:
            raise DatasetWriteError(f"episode {self._episodes}", "no frames", "at least one")
        self._tasks += [task for task in part.tasks if task not in self._tasks]
        columns = {**part.columns, **self._index_columns(part)}
        wanted = [key for key, spec in self.info.features.items() if not spec.is_image]
        held = columns.keys() if part.rows is None else {*columns, *part.rows.column_names}
        missing = [key for key in wanted if key not in held]
        if missing or set(part.videos) != set(self.info.video_keys):
            raise DatasetWriteError(
                f"episode {self._episodes}",
                f"columns {sorted(part.columns)} and videos {sorted(part.videos)}",
                f"all of {sorted(self.info.features)}",
            )
        stats = {key: dict(part.stats[key]) for key in self.info.features if key in part.stats}
        for key in stats:
            if (levels := stats[key].pop(LEVELS, None)) is not None:
                self._levels.setdefault(key, []).append(levels)
        stats.update({key: column_stats(columns[key]) for key in DEFAULT_FEATURES})
        if self._episodes == 0:
            self._note_video_info(part)
        self._storage.add(
            NewEpisode(self.info, self._episodes, self._frames, columns, part, stats)
        )
        for key, value in stats.items():
            self._stats.setdefault(key, []).append(value)
        self._frames += part.length
        self._episodes += 1

    def _index_columns(self, part: StagedEpisode) -> dict[str, npt.NDArray[Any]]:
        count = part.length
        steps = np.arange(count, dtype=np.int64)
        return {
            "timestamp": (steps / self.info.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(count, self._episodes, dtype=np.int64),
            "index": self._frames + steps,
            "task_index": np.array(
                [self._tasks.index(task) for task in part.frame_tasks or [part.task] * count],
                dtype=np.int64,
            ),
        }

    def _note_video_info(self, part: StagedEpisode) -> None:
        features = {
            key: replace(spec, info=part.video_info.get(key)) if spec.is_video else spec
            for key, spec in self.info.features.items()
        }
        self.info = replace(self.info, features=features)

    def add_episode(
        self,
        columns: Mapping[str, npt.NDArray[Any]],
        images: Mapping[str, Images],
        task: str,
        outcome: str = "",
    ) -> None:
        """Encode and append an episode held by the caller.

        Args:
            columns: Numeric feature key to values, shape (T,) or (T, *shape of the feature).
            images: Camera key to T RGB images, uint8, shape (H, W, 3).
            task: Task text.
            outcome: ``success``, ``failure``, a word of the user's, or empty.

        Raises:
            DatasetWriteError: Lengths differ, or a feature is missing, unknown, or an image that
                is not stored as video.
        """
        length = self._length_of(columns, images)
        folder = self._parts / f"episode_{self._episodes:06d}"
        folder.mkdir(parents=True)
        stats = {
            key: feature_stats(np.asarray(values, dtype=spec.dtype), spec.shape)
            for key, values in columns.items()
            if (spec := self.info.features[key]).is_numeric
        }
        videos: dict[str, Path] = {}
        facts: dict[str, dict[str, Any]] = {}
        for key, frames in images.items():
            videos[key] = folder / f"{key}.mp4"
            stats[key] = self._encode(key, frames, length, videos[key])
            found = probe(videos[key])
            facts[key] = video_info(vars(found), self._video, self.info.fps)
        self.add_part(StagedEpisode(task, columns, stats, videos, facts, length, outcome))

    def _length_of(
        self, columns: Mapping[str, npt.NDArray[Any]], images: Mapping[str, Images]
    ) -> int:
        """Count the frames of an episode that is given; refuse what is none of the features."""
        where = f"episode {self._episodes}"
        user = {k: spec for k, spec in self.info.features.items() if k not in DEFAULT_FEATURES}
        for key, spec in user.items():
            if spec.is_image and (spec.is_depth or not spec.is_video):
                got = "a depth map" if spec.is_depth else f"dtype {spec.dtype}"
                expected = "video of colours, since images are encoded here"
                raise DatasetWriteError(f"{where}, feature {key}", got, expected)
        for what, given, wanted in (
            ("columns", columns, [key for key, spec in user.items() if not spec.is_image]),
            ("images", images, [key for key, spec in user.items() if spec.is_image]),
        ):
            if set(given) != set(wanted):
                expected = f"those of {', '.join(wanted) or 'none'}"
                got = ", ".join(given) or "none"
                raise DatasetWriteError(f"{where}, {what}", got, expected)
        lengths = {key: len(values) for key, values in columns.items()}
        if len(set(lengths.values())) != 1:
            got = ", ".join(f"{key} of {count} frames" for key, count in lengths.items())
            raise DatasetWriteError(where, got or "no column", "columns of one length")
        return next(iter(lengths.values()))

    def _encode(self, key: str, frames: Images, length: int, path: Path) -> Stats:
        height, width = self.info.features[key].shape[:2]
        sampled, counted = set(sampled_frames(length)), ImageStats()
        with VideoWriter(path, self._video, self.info.fps, height, width) as video:
            for index, image in enumerate(frames):
                video.write_rgb(image)
                if index in sampled:
                    counted.add(image)
        if video.frames != length:
            raise DatasetWriteError(f"camera {key}", f"{video.frames} images", f"{length}")
        return counted.result()

    def finalize(self, extra: Mapping[str, Any] | None = None) -> DatasetInfo:
        """Write the metadata and put the dataset in its place; once done, it stays done.

        Args:
            extra: Relative path to JSON content of further files (``meta/koch.json``).

        Raises:
            DatasetWriteError: No episode was added.
        """
        if not self._published:
            self._prepare(extra)
            self._publish()
        return self.info

    def finalize_valid(
        self, extra: Mapping[str, Any], complete: Callable[[Path], None] = lambda stage: None
    ) -> None:
        """Do what `finalize` does with a dataset in which every check of `validate` finds nothing.

        Args:
            extra: As `finalize` takes it.
            complete: Puts further files into the hidden folder, before the checks.

        Raises:
            DatasetWriteError: No episode was added.
            DatasetFormatError: The dataset is not valid (a bug).
        """
        stage = self._prepare(extra)
        complete(stage)
        if errors := validate_dataset(stage).errors:
            raise DatasetFormatError(self.root, str(errors[0]), "a valid dataset")
        self._publish()

    def _prepare(self, extra: Mapping[str, Any] | None = None) -> Path:
        """Write the metadata and return the hidden folder, whole but not yet in its place."""
        if self._episodes == 0:
            raise DatasetWriteError(str(self.root), "no episodes", "at least one")
        self.info = self.info.with_totals(self._episodes, self._frames, len(self._tasks))
        self._storage.finish(self.info, self._tasks)
        shutil.rmtree(self._parts, ignore_errors=True)
        if self.info.format.has_totals:
            self._write_stats()
        for name, content in (extra or {}).items():
            write_json(self._stage / name, content)
        write_json(self._stage / layout.INFO, self.info.to_json())
        return self._stage

    def _write_stats(self) -> None:
        """Write the statistics over all episodes, those of an appended-to dataset included."""
        merged = dict(self._start.stats)
        for key, parts in self._stats.items():
            merged[key] = aggregate([merged[key], *parts] if key in merged else parts)
        for key, spec in self.info.features.items():
            if key in merged and spec.is_numeric:  # one at a time: this is all of a dataset
                values = load_columns(self._stage, self.info, keys=[key])[key]
                merged[key] = {**merged[key], **exact_quantiles(like(values, merged[key]))}
        levels = {
            key: np.sum(parts, axis=0)
            for key, parts in self._levels.items()
            if len(parts) == len(self._stats.get(key, ())) + (key in self._start.stats)
        }
        for key, counts in levels.items():
            merged[key] = {**merged[key], **level_quantiles(counts)}
        told = merged if self.info.format.has_quantiles else without_quantiles(merged)
        write_json(self._stage / self.info.format.stats_file, stats_to_json(told))
        if levels:
            text = json.dumps({key: counts.tolist() for key, counts in levels.items()})
            write_atomically(self._stage / layout.KOCH_LEVELS, text)
        else:
            (self._stage / layout.KOCH_LEVELS).unlink(missing_ok=True)

    def _publish(self) -> None:
        """Move the prepared folder to its place; an older dataset there is replaced."""
        old = _aside(self.root)
        shutil.rmtree(old, ignore_errors=True)
        if self.root.exists():
            replace_folder(self._stage, self.root, old)
        else:
            os.replace(self._stage, self.root)
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(self._stage, ignore_errors=True)  # the older one, where they were exchanged
        self._published = True

    def abort(self) -> None:
        """Throw away what was written."""
        self._remove_drafts()

    def _remove_drafts(self) -> None:
        shutil.rmtree(self._stage, ignore_errors=True)
        shutil.rmtree(self._parts, ignore_errors=True)

    def __enter__(self) -> DatasetWriter:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Finish the dataset, or throw it away after an error."""
        if kind is None:
            self.finalize()
        else:
            self.abort()


def bring_back(root: Path) -> None:
    """Undo a replacement that a crash cut in two, when the older dataset stood aside."""
    old = _aside(root)
    if old.is_dir() and not root.exists():
        os.replace(old, root)


def _aside(root: Path) -> Path:
    return root.with_name(f".{root.name}.old")


def write_json(path: Path, content: Any) -> None:
    """Write JSON; a linked original stays as it is."""
    text = json.dumps(content, indent=4, ensure_ascii=False)
    # Names of files may be no UTF-8; such bytes become JSON's own escapes.
    write_atomically(path, text.encode("utf-8", "backslashreplace").decode())
