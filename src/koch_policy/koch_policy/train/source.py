# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot dataset folders as demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import ACTION, ENVIRONMENT, STATE
from koch_policy.errors import DatasetError
from koch_policy.files import read_json
from koch_policy.train.config import TrainConfig
from koch_policy.train.data import Demonstrations, Frames, IntArray

if TYPE_CHECKING:
    from koch_episodes.dataset.frames import Crop
    from koch_episodes.dataset.reader import LeRobotDatasetReader


@dataclass(frozen=True, eq=False)
class ReaderFrames:
    """One camera of a dataset reader, which resizes and caches."""

    reader: LeRobotDatasetReader
    key: str
    size: tuple[int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, 3."""
        return (*self.size, 3)

    def read(self, rows: IntArray) -> NDArray[np.uint8]:
        """Return RGB pictures (len(rows), H, W, 3)."""
        return np.stack([self.reader.picture(self.key, int(row)) for row in rows])


def open_demonstrations(
    root: Path, train: TrainConfig, *, cache: Path | None = None
) -> Demonstrations:
    """Open a LeRobot dataset (v3.0 or v2.1) for training.

    Args:
        root: Dataset folder.
        train: Chooses inputs, joins vectors (`parts`) and sets the picture size.
        cache: Folder for decoded pictures; None decodes every time.

    Raises:
        DatasetError: A chosen feature is not there, or a value is not finite.
        DatasetFormatError: The folder is no dataset.
    """
    from koch_episodes.dataset.reader import LeRobotDatasetReader

    crops = {key: _box(box) for key, box in train.crops.items()}
    reader = LeRobotDatasetReader(root, picture_size=train.image_size, crops=crops, cache=cache)
    for key in crops:
        if key not in reader.picture_keys:
            known = ", ".join(reader.picture_keys) or "no cameras"
            raise DatasetError(str(root), f"has no camera {key!r} to crop", f"It has {known}.")
    parts = {STATE: [STATE], ENVIRONMENT: [ENVIRONMENT], ACTION: [ACTION], **train.parts}
    for key in (STATE, ENVIRONMENT):
        if key not in train.parts and key not in reader.features:
            del parts[key]
    inputs = list(train.inputs) or [key for key in (STATE, ENVIRONMENT) if key in parts]
    if ACTION in inputs:
        raise DatasetError(str(root), "has the action among `inputs`", "Leave it out there.")
    if not train.inputs:
        inputs += list(reader.picture_keys)
    made = _how_made(root)
    vectors, names = {}, {}
    for key in [key for key in inputs if key not in reader.picture_keys] + [ACTION]:
        vectors[key], names[key] = _join(reader, str(root), parts.get(key, [key]))
    frames: dict[str, Frames] = {}
    for key in inputs:
        if key in reader.picture_keys:
            frames[key] = ReaderFrames(reader, key, reader.picture_shape(key))
    return Demonstrations(
        name=str(root),
        fps=float(reader.fps),
        lengths=tuple(episode.length for episode in reader.episodes),
        vectors=vectors,
        frames=frames,
        task_index=reader.column("task_index").astype(np.int64).reshape(-1),
        tasks=tuple(reader.tasks),
        names=names,
        robot_type=reader.info.robot_type or "",
        units=str(made.get("units") or ""),
        fingerprint=str(made.get("fingerprint") or ""),
    )


def _box(values: Sequence[float]) -> Crop:
    left, top, width, height = values
    return left, top, width, height


def _how_made(root: Path) -> dict[str, Any]:
    """Return what our converter wrote about a dataset; nothing for other datasets."""
    path = root / "meta" / "koch.json"
    made = read_json(path) if path.is_file() else {}
    if made.get("delta_actions"):
        raise DatasetError(
            str(root),
            "holds actions as differences to the state, which say no pose to command",
            "Convert it without --delta-actions.",
        )
    return made


def _join(
    reader: LeRobotDatasetReader, where: str, keys: list[str]
) -> tuple[NDArray[np.float32], list[str]]:
    """Put the vectors of several dataset keys side by side, (N, sum of D), with their names."""
    columns, names = [], []
    for key in keys:
        spec = reader.features.get(key)
        if spec is None or spec.is_picture:
            vectors = [name for name, other in reader.features.items() if not other.is_picture]
            raise DatasetError(where, f"has no vector {key!r}", f"It has {', '.join(vectors)}.")
        values = reader.column(key).astype(np.float32)
        columns.append(values.reshape(len(values), -1))
        names += _element_names(key, spec.names, columns[-1].shape[1], prefix=len(keys) > 1)
    return np.concatenate(columns, axis=1), names


def _element_names(key: str, names: object, count: int, *, prefix: bool) -> list[str]:
    """Return one name per element; several joined vectors carry their key in front."""
    found = [str(name) for name in names] if isinstance(names, list | tuple) else []
    if isinstance(names, Mapping):  # {"motors": [...]}, as older datasets write it
        found = [str(name) for inner in names.values() for name in inner]
    if len(found) != count:
        found = [f"{key}.{index}" for index in range(count)]
    return [f"{key}/{name}" if prefix else name for name in found]
