# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Making the dataset of a plan: episode by episode, and in its place when it is whole and valid.

Rows and images are held one episode at a time; the validator then reads all numbers at once. What
a killed run leaves behind is a hidden folder, which is no dataset and which the next run to the
same place removes.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from koch_core.files import sole_writer
from koch_core.yuv import rgb_of_frame
from koch_episodes.dataset.edit.cut import (
    Cut,
    Way,
    encode,
    frames_of,
    make_cut,
    plan_cut,
)
from koch_episodes.dataset.edit.pieces import Piece, Plan, StatsFrom
from koch_episodes.dataset.format import DatasetInfo
from koch_episodes.dataset.layout import INFO, KOCH, FeatureSpec
from koch_episodes.dataset.load import column_array, stored_image
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.stats import (
    ImageStats,
    Stats,
    expected_shape,
    feature_stats,
    sampled_frames,
)
from koch_episodes.dataset.video import video_info
from koch_episodes.dataset.video_files import probe
from koch_episodes.dataset.writer import DatasetWriter, write_json
from koch_episodes.errors import (
    DatasetEditError,
    OutputUnwritableError,
)

Progress = Callable[[int, int], None]
_OURS = ("data", "videos", "images", "meta")


@dataclass
class EditResult:
    """What came of a plan.

    Attributes:
        info: The new dataset's info.json; None after a dry run.
        ways: What was, or would be, done to images: how often each, and frames encoded again.
        encoded: Frames that are encoded again.
    """

    info: DatasetInfo | None
    ways: Counter[Way] = field(default_factory=Counter)
    encoded: int = 0


def look(plan: Plan) -> EditResult:
    """Tell what making a plan would do to the images; nothing is written.

    Raises:
        VideoError: A video cannot be read, or lacks images.
    """
    made = EditResult(None)
    for piece in plan.pieces:
        for cut in _cuts(plan, piece).values():
            made.ways[cut.way] += 1
            made.encoded += cut.encoded
    return made


def make(plan: Plan, *, replaces: bool = False, progress: Progress | None = None) -> EditResult:
    """Write the dataset of a plan.

    Args:
        plan: What to make.
        replaces: Put it in the place of a dataset that is there.
        progress: Called after each episode with the number done and the number of all.

    Raises:
        DatasetFormatError: What was made is not valid (a bug); nothing is left of it.
        KochError: A source cannot be read, or the output not written.
    """
    if not plan.pieces:
        raise DatasetEditError(f"{plan.out}: no episode is left", "Nothing was written.")
    try:
        with sole_writer(plan.out):
            return _make(plan, replaces, progress)
    except OSError as exc:
        raise OutputUnwritableError(plan.out, exc) from exc


def _make(plan: Plan, replaces: bool, progress: Progress | None) -> EditResult:
    source, made = plan.source, EditResult(None)
    folder = plan.out.with_name(f".{plan.out.name}.writing-parts")
    with DatasetWriter(
        plan.out,
        plan.features,
        fps=source.info.fps,
        robot_type=source.info.robot_type,
        version=source.info.format.name,
        replace=replaces,
    ) as writer:
        for number, piece in enumerate(plan.pieces):
            part = _part(plan, piece, folder / f"episode_{number:06d}", made)
            writer.add_part(part)
            if progress is not None:
                progress(number + 1, len(plan.pieces))
        writer.finalize_valid(_sidecars(plan), partial(_carry_along, plan))
    made.info = writer.info
    return made


def _part(plan: Plan, piece: Piece, folder: Path, made: EditResult) -> StagedEpisode:
    columns = [key for key, spec in plan.features.items() if not spec.is_video]
    rows = piece.source.rows(piece.episode, columns).slice(piece.start, piece.length)
    folder.mkdir(parents=True)
    videos: dict[str, Path] = {}
    for key, cut in _cuts(plan, piece).items():
        videos[key] = folder / f"{key}.mp4"
        if plan.encode is not None and not plan.features[key].is_depth:
            encode(cut.path, cut.numbers, plan.encode, plan.source.info.fps, videos[key])
        else:
            make_cut(cut, plan.source.info.fps, videos[key])
        made.ways[cut.way] += 1
        made.encoded += cut.encoded
    tasks = piece.tasks()
    return StagedEpisode(
        tasks[0],
        {},
        _stats(plan, piece, rows, videos),
        videos,
        _video_facts(plan, videos),
        piece.length,
        piece.episode.outcome if piece.outcome is None else piece.outcome,
        rows=rows,
        frame_tasks=tasks,
    )


def _cuts(plan: Plan, piece: Piece) -> dict[str, Cut]:
    cuts = {}
    for key, spec in plan.features.items():
        if not spec.is_video:
            continue
        if spec.is_depth and not piece.is_whole:
            raise DatasetEditError(
                f"episode {piece.episode.index}: {key} is a depth map, of which no part is cut",
                f"Leave it out with 'koch dataset drop-feature --feature {key}'.",
            )
        place = piece.episode.videos[key]
        declared = piece.source.features[key].info
        cut = plan_cut(place, piece.start, piece.stop, plan.source.info.fps, declared)
        copied = plan.encode is None or spec.is_depth
        cuts[key] = cut if copied else replace(cut, way=Way.ENCODE)
    return cuts


def _video_facts(plan: Plan, videos: Mapping[str, Path]) -> dict[str, Mapping[str, Any]]:
    fps = plan.source.info.fps
    return {
        key: plan.features[key].info or {}
        if plan.encode is None or plan.features[key].is_depth
        else video_info(vars(probe(path)), plan.encode, fps)
        for key, path in videos.items()
    }


def _stats(
    plan: Plan, piece: Piece, rows: pa.Table, videos: Mapping[str, Path]
) -> dict[str, Stats]:
    keep = piece.is_whole and plan.stats is StatsFrom.STORED and plan.encode is None
    known = piece.source.stats(piece.episode) if piece.is_whole else {}
    stored = known if keep else {}
    stats: dict[str, Stats] = {}
    for key, spec in plan.features.items():
        if spec.is_numeric:
            stats[key] = feature_stats(column_array(rows[key], spec.shape), spec.shape)
        elif not spec.is_image:
            continue
        elif spec.is_depth:
            stats[key] = _depth_stats(known.get(key, {}), key, spec, piece)
        elif _fit(stored.get(key, {}), spec):
            stats[key] = stored[key]
        else:
            where = f"{piece.source.root}, episode {piece.episode.index}"
            stats[key] = _image_stats(where, key, spec, rows, videos)
    return stats


def _fit(stats: Stats, spec: FeatureSpec) -> bool:
    """Whether stored statistics of images can be kept: all there, of the right shapes, finite."""
    return all(
        name in stats
        and stats[name].shape == expected_shape(spec, name)
        and bool(np.isfinite(stats[name].astype(np.float64)).all())
        for name in ("min", "max", "mean", "std", "count")
    )


def _depth_stats(stored: Stats, key: str, spec: FeatureSpec, piece: Piece) -> Stats:
    """Keep the statistics of a depth map, which cannot be worked out here.

    Raises:
        DatasetEditError: There are none.
    """
    if _fit(stored, spec):
        return stored
    raise DatasetEditError(
        f"episode {piece.episode.index}: {key} is a depth map, whose statistics are unknown",
        f"Leave it out with 'koch dataset drop-feature --feature {key}'.",
    )


def _image_stats(
    where: str, key: str, spec: FeatureSpec, rows: pa.Table, videos: Mapping[str, Path]
) -> Stats:
    """Work out the statistics of an episode's images as LeRobot samples them."""
    counted, sampled = ImageStats(), sampled_frames(len(rows))
    if spec.is_video:
        for frame, count in frames_of(videos[key], tuple(sampled)):
            for _ in range(count):
                counted.add(rgb_of_frame(frame))
    else:
        for number in sampled:
            cell = rows[key][number].as_py()
            counted.add(stored_image(cell, where, f"{key!r} of frame {number}"))
    found = counted.result()
    channels = spec.shape[-1]
    if channels == 3:
        return found
    return {name: value[:channels] if value.ndim == 3 else value for name, value in found.items()}


def _sidecars(plan: Plan) -> dict[str, Any]:
    """What is known of how the datasets were made, and what was done to them since."""
    sources = list({id(piece.source): piece.source for piece in plan.pieces}.values())
    if not all(source.koch for source in sources):
        return {}
    koch = dict(sources[0].koch)
    koch["bags"] = {
        k: v for source in sources for k, v in dict(source.koch.get("bags", {})).items()
    }
    for name in ("calibrations", "camera_info"):
        told = [source.koch.get(name) for source in sources]
        if any(each != told[0] for each in told):  # one's would be wrong for the others
            koch.pop(name, None)
    koch["edits"] = [*koch.get("edits", []), *plan.told]
    if plan.encode is not None:
        koch["vcodec"] = plan.encode.codec.value
    return {KOCH: koch}


def _carry_along(plan: Plan, stage: Path) -> None:
    """Keep what people put into the folder: a README, and entries of info.json of their own."""
    for path in sorted(plan.source.root.iterdir()):
        if path.name in _OURS or path.name.startswith(".") or not path.is_file():
            continue
        shutil.copy2(path, stage / path.name)  # no link: people write into such files
    if foreign := plan.source.foreign_info:
        info = json.loads((stage / INFO).read_text(encoding="utf-8"))
        write_json(stage / INFO, {**info, **foreign})
