# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset opened to learn from it, to measure on it, or to replay it.

Training, int8 calibration, `koch run --replay` and `koch replay` open datasets here, so that all
of them refuse the same: unreadable files, other units or rates, values that are not finite,
elements that are not there by name. What `--delta-actions` stored is handed out as actions again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_episodes.errors import DatasetError
from koch_rig.action_layout import ACTION_SPACES
from koch_rig.units import Units

if TYPE_CHECKING:
    from koch_core.image import Crop

MADE = "meta/koch.json"
ACTION, STATE = "action", "observation.state"
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Made:
    """What the converter wrote about a dataset; empty for datasets of others.

    Attributes:
        units: Units of states and actions.
        fingerprint: Fingerprint of the rig.
        rig: The rig file's text.
        calibrations: Arm to its calibration file's text.
        has_differences: Its action is what `--delta-actions` stores: action minus state.
        action_space: In which the action is stored; see `koch_rig.action_space`.
    """

    units: str = ""
    fingerprint: str = ""
    rig: str = ""
    calibrations: Mapping[str, str] = field(default_factory=dict)
    has_differences: bool = False
    action_space: str = "joint"


class RecordedDataset:
    """A dataset with named, finite vectors.

    Args:
        root: Dataset folder.
        image_size: (height, width) in [px] of the images handed out; None: as stored.
        sizes: The same for single cameras.
        crops: Box per camera that is cut out before.
        cache: Folder for decoded images; None decodes every time.
        outcomes: Only episodes that ended so; empty: all.

    Raises:
        DatasetFormatError: The folder is no readable dataset.
        DatasetError: Its units or its action space are not known.
    """

    def __init__(
        self,
        root: Path,
        *,
        image_size: tuple[int, int] | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        crops: Mapping[str, Crop] | None = None,
        cache: Path | None = None,
        outcomes: Sequence[str] = (),
    ) -> None:
        self.name = str(root)
        self.reader = LeRobotDatasetReader(
            root,
            image_size=image_size,
            sizes=sizes,
            crops=crops,
            cache=cache,
            outcomes=outcomes,
        )
        self.made = how_made(root)
        self._vectors: dict[tuple[str, ...], tuple[Vectors, tuple[str, ...]]] = {}

    @property
    def fps(self) -> float:
        """Frames per second."""
        return float(self.reader.fps)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Frames of each episode."""
        return tuple(episode.length for episode in self.reader.episodes)

    def vectors(self, keys: Sequence[str]) -> tuple[Vectors, tuple[str, ...]]:
        """Put features side by side: values (N, sum of D), and one name per element.

        Several features carry their key in front of the names.

        Raises:
            DatasetError: A feature is not there, no vector, or not finite.
        """
        known = self._vectors.get(tuple(keys))
        if known is not None:
            return known
        columns: list[Vectors] = []
        names: list[str] = []
        for key in keys:
            values = self._column(key)
            columns.append(values)
            found = element_names(key, self.reader.features[key].names, values.shape[1])
            names += [f"{key}/{name}" if len(keys) > 1 else name for name in found]
        joined = np.concatenate(columns, axis=1), tuple(names)
        self._vectors[tuple(keys)] = joined
        return joined

    def ordered(self, keys: Sequence[str], names: Sequence[str]) -> Vectors:
        """Return features with their elements in the order of some names.

        Raises:
            DatasetError: An element is missing, or the dataset names none and has another count.
        """
        values, own = self.vectors(keys)
        if is_unnamed(own) or is_unnamed(names) or not names:
            if names and len(names) != len(own):
                raise DatasetError(
                    self.name,
                    f"{', '.join(keys)} has {len(own)} elements without names, {len(names)} are "
                    f"wanted ({', '.join(names)})",
                    "Name the features in meta/info.json.",
                )
            return values
        plain = [plain_name(name) for name in own]
        missing = [name for name in names if plain_name(name) not in plain]
        if missing or len(set(plain)) != len(plain):
            raise DatasetError(
                self.name,
                f"{', '.join(keys)} has no {', '.join(missing) or 'distinct names'}",
                f"It has {', '.join(own)}.",
            )
        return values[:, [plain.index(plain_name(name)) for name in names]]

    def units(self, asked: str | None = None) -> str:
        """Return the units of states and actions; empty where neither side says.

        Args:
            asked: What the caller takes them for.

        Raises:
            DatasetError: The dataset says that they are others.
        """
        if asked and self.made.units and asked != self.made.units:
            raise DatasetError(
                self.name, f"is in {self.made.units}, not in {asked}", "Leave --units out."
            )
        return asked or self.made.units

    def require_rate(self, fps: float, whose: str) -> None:
        """Raise DatasetError unless the frames have a rate; zero asks for none."""
        if fps and abs(fps - self.fps) > 1e-6:
            raise DatasetError(
                self.name,
                f"has {self.fps:g} frames per second, {whose} {fps:g}",
                "Convert the bags with --fps as it needs them.",
            )

    def _column(self, key: str) -> Vectors:
        spec = self.reader.features.get(key)
        if spec is None or not spec.is_numeric:
            vectors = [name for name, other in self.reader.features.items() if other.is_numeric]
            raise DatasetError(
                self.name, f"has no vector {key!r}", f"It has {', '.join(vectors)}."
            )
        values = self.reader.column(key).astype(np.float32)
        values = values.reshape(len(values), -1)[: len(self.reader)]
        if key == ACTION and self.made.has_differences:  # the converter made sure of one order
            values = values + self._column(STATE)
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            row, element = (int(number) for number in bad[0])
            place = int(np.searchsorted(np.cumsum(self.lengths), row, side="right"))
            episode = self.reader.episodes[place]
            raise DatasetError(
                self.name,
                f"{key} holds {len(bad)} value(s) that are NaN or infinite, the first in episode "
                f"{episode.index}, frame {row - episode.from_index}, element {element}",
                "Delete these episodes or convert the bags again.",
            )
        return values


def element_names(key: str, names: object, count: int) -> list[str]:
    """Return one name per element; made up from the key where the dataset gives none."""
    found = [str(name) for name in names] if isinstance(names, list | tuple) else []
    if isinstance(names, Mapping):  # {"motors": [...]}, as older datasets write it
        found = [str(name) for inner in names.values() for name in inner]
    return found if len(found) == count else [f"{key}.{index}" for index in range(count)]


def is_unnamed(names: Sequence[str]) -> bool:
    """Whether names were made up by `element_names`, and say nothing."""
    places = [name.rpartition(".")[2] for name in names]
    return bool(names) and places == [str(index) for index in range(len(names))]


def plain_name(name: str) -> str:
    """Return an element's name without what formats add: LeRobot writes `shoulder_pan.pos`."""
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.removesuffix(".pos").removeprefix("main_")


def how_made(root: Path) -> Made:
    path = root / MADE
    if not path.is_file():
        return Made()
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DatasetError(
            str(root), f"{MADE} is not readable as JSON ({exc})", "Copy the dataset again."
        ) from exc
    if not isinstance(content, dict):
        raise DatasetError(str(root), f"{MADE} is no JSON object", "Copy the dataset again.")
    units = str(content.get("units") or "")
    known = [each.value for each in Units]
    if units and units not in known:
        raise DatasetError(
            str(root), f"{MADE} says units {units!r}", f"Known are {', '.join(known)}."
        )
    actions = str(content.get("action_space") or "joint")
    if actions not in ACTION_SPACES:
        spaces = ", ".join(ACTION_SPACES)
        raise DatasetError(
            str(root), f"{MADE} says action_space {actions!r}", f"Known are {spaces}."
        )
    return Made(
        units,
        str(content.get("fingerprint") or ""),
        str(content.get("rig") or ""),
        {str(arm): str(text) for arm, text in (content.get("calibrations") or {}).items()},
        has_differences=bool(content.get("delta_actions")),
        action_space=actions,
    )
