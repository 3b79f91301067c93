# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reading the frames of a LeRobot dataset, whatever its format, into one form."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from koch_core.errors import DecodeError
from koch_core.image import decode_image
from koch_episodes.dataset.format import DatasetInfo, Episode
from koch_episodes.dataset.layout import INFO, data_files
from koch_episodes.dataset.stats import Stats, stats_from_json
from koch_episodes.dataset.tables import read_parquet
from koch_episodes.errors import DatasetFormatError

# What pyarrow, json and arithmetic raise on files that were tampered with.
MALFORMED = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    IndexError,
    OverflowError,
    pa.ArrowException,
)


def named_file(root: Path, key: str, template: str | None, usual: str, **place: Any) -> Path:
    """Return the file that a template of info.json names, which is where LeRobot looks."""
    try:
        return root / str(template).format(**place)
    except (KeyError, IndexError, ValueError) as exc:
        raise DatasetFormatError(root / INFO, f"{key} {template!r}", usual) from exc


def json_lines(path: Path, *keys: str) -> list[dict[str, Any]]:
    """Read one JSON object per line.

    Raises:
        DatasetFormatError: Unreadable, or one of the keys is missing in a line.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")  # JSON keeps U+2028 and its like
        rows = [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "JSON lines") from exc
    for number, row in enumerate(rows):
        lacking = [key for key in keys if not isinstance(row, dict) or key not in row]
        if lacking:
            raise DatasetFormatError(path, f"line {number + 1} without {lacking}", "all of them")
    return rows


def read_total_stats(path: Path) -> dict[str, Stats] | None:
    """Read a file of statistics over all episodes; None where there is none.

    Raises:
        DatasetFormatError: It is no JSON.
    """
    if not path.exists():
        return None
    try:
        return stats_from_json(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as exc:
        raise DatasetFormatError(path, f"({exc})", "JSON") from exc


def image_bytes(cell: Any, where: object, what: str) -> bytes:
    """Return the PNG or JPEG file that a cell of an image column holds.

    Args:
        cell: The cell's value: the bytes, or Hugging Face's `{"bytes": ..., "path": ...}`.
        where: File or episode, for the message.
        what: The cell, for the message.

    Raises:
        DatasetFormatError: It holds none.
    """
    data = cell.get("bytes") if isinstance(cell, dict) else cell
    if not isinstance(data, bytes):
        raise DatasetFormatError(str(where), f"no bytes in {what}", "a PNG or JPEG")
    return data


def stored_image(cell: Any, where: object, what: str) -> npt.NDArray[np.uint8]:
    """Decode what a cell of an image column holds: RGB, uint8, shape (H, W, 3).

    Args:
        cell: As `image_bytes`.
        where: As `image_bytes`.
        what: As `image_bytes`.

    Raises:
        DatasetFormatError: It holds no image, a damaged one, or one of another kind.
    """
    try:
        return decode_image(image_bytes(cell, where, what))
    except DecodeError as exc:
        raise DatasetFormatError(str(where), f"in {what} {exc.why}", "a PNG or JPEG") from exc


def column_array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Turn a frame table column into an array of shape (T,) for scalars, (T, *shape) else."""
    array = column.combine_chunks()
    count = len(array)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        sizes = pc.unique(pc.list_value_length(array)).to_pylist()
        if len(sizes) > 1:
            raise ValueError(f"rows of {', '.join(map(str, sizes))} elements")
    while (
        pa.types.is_list(array.type)
        or pa.types.is_fixed_size_list(array.type)
        or (pa.types.is_large_list(array.type))
    ):
        array = array.flatten()
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        return np.array(array.to_pylist(), dtype=object)
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    return values if shape == (1,) else values.reshape(count, *shape)


@dataclass(frozen=True, eq=False)
class Rows:
    """The frames of a dataset, each with the episode that it says it belongs to.

    Attributes:
        episodes: In the order of their numbers; from_index and to_index count in `columns`.
        columns: Feature key to values over all frames of these episodes.
        files: The frame tables they were read from, in order.
        places: Place of each frame in those tables, one after the other; int64, shape (N,).
    """

    episodes: tuple[Episode, ...]
    columns: dict[str, npt.NDArray[Any]]
    files: tuple[Path, ...]
    places: npt.NDArray[np.int64]


def load_rows(
    root: Path,
    info: DatasetInfo,
    outcomes: Sequence[str] = (),
    keys: Sequence[str] | None = None,
) -> Rows:
    """Read the episodes and their frames; with `outcomes`, only those that ended so.

    Of the columns all, or those of `keys`, with episode_index and frame_index among them.

    A frame belongs to the episode that its own ``episode_index`` names, and an episode is as long
    as it has frames, whatever the episode table says of places and lengths: people and tools that
    edit datasets take a line out of one file and forget another. What no episode claims is left
    out.

    Raises:
        DatasetFormatError: As `DatasetFormat.episodes` and `load_columns`; or an episode has no
            frames, some of them twice or not all; or the episodes were numbered again, their
            frames not.
    """
    every = sorted(info.format.episodes(root, info), key=lambda episode: episode.index)
    listed = _ended_as(every, outcomes, root) if outcomes else every
    files = info.format.frame_files(root, info, listed)
    columns = load_columns(root, info, files, keys)
    owners, steps = columns["episode_index"], columns["frame_index"]
    info.format.check_owners(root, info, every, owners)
    order = np.argsort(owners, kind="stable")
    numbers = [episode.index for episode in listed]
    begins = np.searchsorted(owners[order], numbers, side="left")
    ends = np.searchsorted(owners[order], numbers, side="right")
    episodes: list[Episode] = []
    parts = [np.empty(0, np.int64)]
    start = 0
    for episode, begin, end in zip(listed, begins.tolist(), ends.tolist(), strict=True):
        part = order[begin:end]
        if episodes and episodes[-1].index == episode.index:
            raise DatasetFormatError(root, f"episode {episode.index} twice", "each once")
        _check_whole(episode, steps[part], root)
        episodes.append(_placed(episode, start, len(part), info.fps))
        parts.append(part)
        start += len(part)
    places = np.concatenate(parts)
    if not np.array_equal(places, np.arange(len(owners))):
        columns = {key: values[places] for key, values in columns.items()}
    return Rows(tuple(episodes), columns, tuple(files), places)


def _ended_as(every: Sequence[Episode], outcomes: Sequence[str], root: Path) -> list[Episode]:
    listed = [episode for episode in every if episode.outcome in outcomes]
    if not listed:
        told = sorted({episode.outcome or "(none)" for episode in every})
        got = f"episodes that ended as {', '.join(told)}"
        raise DatasetFormatError(root, got, f"some that ended as {', '.join(outcomes)}")
    return listed


def _check_whole(episode: Episode, steps: npt.NDArray[Any], root: Path) -> None:
    """Refuse an episode without frames, with a frame twice, or with one missing."""
    if not len(steps) or not np.array_equal(steps, np.arange(len(steps))):
        shown = ", ".join(map(str, steps[:6]))
        raise DatasetFormatError(
            root,
            f"{len(steps)} rows of episode {episode.index} (frame_index {shown or 'none'}, ...)",
            "its frames 0, 1, 2, ..., each once and in order",
        )


def _placed(episode: Episode, start: int, length: int, fps: float) -> Episode:
    """Return an episode as long as it has frames, whatever the table says."""
    videos = {
        key: replace(place, to_s=place.from_s + length / fps)
        for key, place in episode.videos.items()
    }
    return replace(
        episode, length=length, from_index=start, to_index=start + length, videos=videos
    )


def load_columns(
    root: Path,
    info: DatasetInfo,
    files: Sequence[Path] | None = None,
    keys: Sequence[str] | None = None,
) -> dict[str, npt.NDArray[Any]]:
    """Read all columns that are not images.

    Args:
        root: Dataset folder.
        info: What it declares.
        files: Frame tables to read; None: all there are.
        keys: Columns to read; None: all.

    Raises:
        DatasetFormatError: No tables, an unreadable one, or a declared column is missing.
    """
    files = data_files(root) if files is None else files
    if not files:
        raise DatasetFormatError(root / "data", "no parquet files", "the frame tables")
    if keys is None:
        keys = [key for key, spec in info.features.items() if not spec.is_image]
    pieces: dict[str, list[npt.NDArray[Any]]] = {key: [] for key in keys}
    for path in files:
        try:
            present = pq.read_schema(path).names
            missing = [key for key in keys if key not in present]
            if missing:
                raise DatasetFormatError(path, f"no column(s) {missing}", "all declared features")
            table = read_parquet(path, columns=keys)
        except (OSError, pa.ArrowException) as exc:
            raise DatasetFormatError(path, f"({exc})", f"the columns {keys}") from exc
        for key in keys:
            try:
                pieces[key].append(column_array(table[key], info.features[key].shape))
            except ValueError as exc:
                raise DatasetFormatError(
                    path, f"column {key!r}: {exc}", f"shape {info.features[key].shape}"
                ) from exc
    return {key: np.concatenate(parts) for key, parts in pieces.items()}
