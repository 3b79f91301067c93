# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot dataset folders as demonstrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from koch_policy.angles import Angles, expand
from koch_policy.configs import ACTION, ENVIRONMENT, STATE
from koch_policy.errors import DatasetError
from koch_policy.train.config import TrainConfig
from koch_policy.train.data import Demonstrations, FloatArray, Frames, IntArray
from koch_policy.train.mixture import column_weights, joined, named_dataset, picked
from koch_policy.train.spaces import in_space

if TYPE_CHECKING:
    from koch_core.image import Crop
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
        """Return RGB images (len(rows), H, W, 3)."""
        return np.stack([self.reader.image(self.key, int(row)) for row in rows])

    def digest(self, rows: int) -> str:
        """Return a hash of what the dataset's files hold of the first rows' images."""
        return self.reader.image_digest(self.key, rows)


def open_demonstrations(
    root: Path, train: TrainConfig, *, cache: Path | None = None, rig: Path | None = None
) -> Demonstrations:
    """Open a LeRobot dataset (v3.0 or v2.1) for training.

    Args:
        root: Dataset folder.
        train: Chooses inputs, joins vectors (`parts`) and sets the image size.
        cache: Folder for decoded images; None decodes every time.
        rig: Rig file for an action space, where the dataset does not hold its own.

    Raises:
        DatasetError: A chosen feature is not there, or a value is not finite.
        DatasetFormatError: The folder is no dataset.
    """
    data, reader = _opened(root, train, cache, rig)
    _require_weighed([reader], train, str(root))
    return data


def _opened(
    root: Path, train: TrainConfig, cache: Path | None, rig: Path | None
) -> tuple[Demonstrations, LeRobotDatasetReader]:
    from koch_episodes.dataset.recorded import RecordedDataset

    recorded = RecordedDataset(
        root,
        image_size=train.image_size,
        sizes={key: (height, width) for key, (height, width) in train.image_sizes.items()},
        crops={key: _box(box) for key, box in train.crops.items()},
        cache=cache,
        outcomes=train.outcomes,
    )
    reader = recorded.reader
    _require_cameras(train, reader.image_keys, str(root))
    parts = {key: [key] for key in (STATE, ENVIRONMENT) if key in reader.features}
    parts |= {ACTION: [ACTION], **train.parts}
    inputs = _chosen_inputs(train, parts, reader.image_keys, str(root))
    vectors: dict[str, NDArray[np.float32]] = {}
    names: dict[str, list[str]] = {}
    for key in [key for key in inputs if key not in reader.image_keys] + [ACTION]:
        values, found = recorded.vectors(parts.get(key, [key]))
        names[key] = list(found)
        vectors[key] = expand(values, found, _angles(train, key, found, str(root)))
    cameras = [key for key in inputs if key in reader.image_keys]
    frames: dict[str, Frames] = {key: _frames(reader, key) for key in cameras}
    data = Demonstrations(
        name=str(root),
        fps=recorded.fps,
        lengths=recorded.lengths,
        vectors=vectors,
        frames=frames,
        task_index=reader.column("task_index").astype(np.int64).reshape(-1),
        tasks=tuple(reader.tasks),
        names=names,
        angles=dict(train.angles),
        robot_type=reader.info.robot_type or "",
        units=recorded.made.units,
        fingerprint=recorded.made.fingerprint,
        weights=_weights(reader, train, str(root)),
    )
    state = parts[STATE] if STATE in inputs else []
    return in_space(data, recorded, train.action_space, parts[ACTION], state, rig), reader


def _frames(reader: LeRobotDatasetReader, key: str) -> ReaderFrames:
    return ReaderFrames(reader, key, reader.image_shape(key))


def _require_cameras(train: TrainConfig, cameras: Sequence[str], where: str) -> None:
    """Refuse to crop or reduce the images of a camera that is not there."""
    for key in (*train.crops, *train.image_sizes):
        if key not in cameras:
            known = ", ".join(cameras) or "no cameras"
            wish = "crop" if key in train.crops else "reduce"
            raise DatasetError(where, f"has no camera {key!r} to {wish}", f"It has {known}.")


def _chosen_inputs(
    train: TrainConfig, parts: Mapping[str, object], cameras: Sequence[str], where: str
) -> list[str]:
    """Return what the policy will see: what the recipe names, else state, environment, cameras."""
    inputs = list(train.inputs) or [key for key in (STATE, ENVIRONMENT) if key in parts]
    if ACTION in inputs:
        raise DatasetError(where, "has the action among `inputs`", "Leave it out there.")
    if not train.inputs:
        inputs += cameras
    _require_effect(train, inputs, cameras, where)
    return inputs


def open_all(
    named: Sequence[str],
    train: TrainConfig,
    *,
    cache: Path | None = None,
    rig: Path | None = None,
) -> Demonstrations:
    """Open datasets, each DIR or DIR:WEIGHT, as one; then keep `train.episodes` of it.

    An expression is asked of each dataset, where `index` is the episode's number; plain numbers
    count over all of them.

    Raises:
        DatasetError: They do not go together.
        ExpressionError: `train.episodes` asks for what a dataset does not hold.
        NothingSelectedError: It selects no episode.
    """
    parts, weights, readers = [], [], []
    for path, weight in map(named_dataset, named):
        data, reader = _opened(path, train, cache, rig)
        readers.append(reader)
        if isinstance(train.episodes, str):
            places = _selected(reader, train.episodes)
            if not places:  # those of another dataset may be
                continue
            numbers = [reader.episodes[place].index for place in places]
            data = replace(picked(data, places), selected={data.name: numbers})
        parts.append(data)
        weights.append(weight)
    _require_weighed(readers, train, " and ".join(named))
    if not parts:
        from koch_episodes.dataset.selection import NothingSelectedError

        raise NothingSelectedError(str(train.episodes), " and ".join(named), "train.episodes")
    data = joined(parts, weights)
    return data if isinstance(train.episodes, str) else picked(data, train.episodes)


def _selected(reader: LeRobotDatasetReader, text: str) -> list[int]:
    from koch_episodes.dataset.selection import dataset_fields, select

    fields = dataset_fields(reader.root, reader.info, reader.episodes, reader.tasks, reader.column)
    return select(text, "train.episodes", fields, str(reader.root))


def _weights(reader: LeRobotDatasetReader, train: TrainConfig, where: str) -> FloatArray | None:
    """How often each frame is drawn; a column that the dataset has not is true of none."""
    columns = {key: reader.column(key) for key in train.weights if key in _columns(reader)}
    factors = {key: train.weights[key] for key in columns}
    return column_weights(columns, factors, where)


def _columns(reader: LeRobotDatasetReader) -> list[str]:
    return [key for key in reader.features if key not in reader.image_keys]


def _require_weighed(
    readers: Sequence[LeRobotDatasetReader], train: TrainConfig, where: str
) -> None:
    """Refuse weights of a column that none of the datasets has.

    Demonstrations have no `intervention`: no one drove in a policy's place.
    """
    known = list(dict.fromkeys(key for reader in readers for key in _columns(reader)))
    if missing := [key for key in train.weights if key not in known]:
        raise DatasetError(
            where, f"has no column {missing[0]!r} (train.weights)", f"It has {', '.join(known)}."
        )


def _require_effect(
    train: TrainConfig, inputs: Sequence[str], cameras: Sequence[str], where: str
) -> None:
    """Refuse what the recipe says of features that the policy will not see."""
    images = [key for key in inputs if key in cameras]
    if train.image_size is not None and not images:
        raise DatasetError(
            where,
            "has no camera among the policy's inputs, for which train.image_size is set",
            f"The policy sees {', '.join(inputs) or 'nothing'}. Leave it out "
            "(--set train.image_size=null), or put a camera into train.inputs.",
        )
    seen = {
        "crops": images,
        "image_sizes": images,
        "angles": [key for key in inputs if key not in cameras] + [ACTION],
        "parts": [key for key in inputs if key not in cameras] + [ACTION],
    }
    for name, keys in seen.items():
        for key in getattr(train, name):
            if key not in keys:
                raise DatasetError(
                    where,
                    f"has no {key!r} among the policy's inputs, for which train.{name} is set",
                    f"It can be set for {', '.join(keys) or 'no feature'}.",
                )


def _angles(train: TrainConfig, key: str, names: Sequence[str], where: str) -> Angles:
    angles = train.angles.get(key, {})
    if angles and key == ACTION:
        raise DatasetError(where, "has the action among `angles`", "Only inputs can be expanded.")
    missing = [name for name in angles if name not in names]
    if missing:
        raise DatasetError(
            where, f"{key} has no angle {', '.join(missing)}", f"It has {', '.join(names)}."
        )
    return angles


def _box(values: Sequence[float]) -> Crop:
    left, top, width, height = values
    return left, top, width, height
