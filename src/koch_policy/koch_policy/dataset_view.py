# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset as a policy sees it: its inputs, by name, in its order and units."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import ACTION, TASK, FeatureType, PolicyConfig
from koch_policy.errors import DatasetError
from koch_policy.metadata import CheckpointMetadata

if TYPE_CHECKING:
    from koch_episodes.dataset.layout import FeatureSpec


class DatasetView:
    """Observations and actions of a dataset for one policy.

    Args:
        root: Dataset folder.
        config: The policy's.
        extras: What its checkpoint says about names, units and rate.
        rename: {feature of the dataset: input of the policy}, where they differ.

    Raises:
        DatasetError: An input or element is missing, or units or rate are others.
    """

    def __init__(
        self,
        root: Path,
        config: PolicyConfig,
        extras: CheckpointMetadata,
        rename: Mapping[str, str],
    ) -> None:
        from koch_episodes.dataset.recorded import RecordedDataset
        from koch_policy.execution.compatibility import dataset_keys

        self.data = RecordedDataset(root)
        self.config = config
        policy: Any = SimpleNamespace(config=config, extras=extras, rename=rename)
        self._sources = dataset_keys(policy)
        self._require_features()
        self.data.units(extras.units or None)
        self.data.require_rate(extras.fps, "the policy's actions have")
        actions = list(extras.parts.get(ACTION, [ACTION]))
        if extras.joints:  # actions of another space are compared in joints
            self.actions = self.data.ordered(actions, extras.joints)
        else:
            self.actions = self._ordered(ACTION, actions, extras)
        self._inputs = {
            key: self._ordered(key, parts, extras)
            for key, parts in self._sources.items()
            if config.input_features[key].type is not FeatureType.VISUAL
        }
        self.actions.setflags(write=False)

    @property
    def features(self) -> Mapping[str, FeatureSpec]:
        """The dataset's features."""
        return self.data.reader.features

    def observation(self, row: int) -> dict[str, Any]:
        """Return the policy's input at a row, observation steps in front if several.

        Steps before the beginning of the episode repeat its first row.
        """
        reader, offsets = self.data.reader, self.config.observation_offsets()
        starts = np.array([episode.from_index for episode in reader.episodes])
        first = int(starts[np.searchsorted(starts, row, side="right") - 1])
        rows = [max(row + offset, first) for offset in offsets]
        result: dict[str, Any] = {TASK: reader.tasks[int(reader.column("task_index")[row])]}
        for key, parts in self._sources.items():
            if key in self._inputs:
                values: NDArray[Any] = self._inputs[key][rows]
            else:
                values = np.stack([reader.image(parts[0], each) for each in rows])
            result[parts[0] if len(parts) == 1 else key] = values[0] if len(rows) == 1 else values
        return result

    def _require_features(self) -> None:
        for key in [part for parts in self._sources.values() for part in parts]:
            if key not in self.features:
                have = ", ".join(name for name in self.features if name.startswith("observation"))
                raise DatasetError(
                    self.data.name, f"has no {key}, which the policy needs", f"It has {have}."
                )

    def _ordered(
        self, key: str, parts: list[str], extras: CheckpointMetadata
    ) -> NDArray[np.float32]:
        values = self.data.ordered(parts, extras.names.get(key, []))
        shapes = {**self.config.input_features, **self.config.output_features}
        width = values.shape[1] + len(extras.angles.get(key, {}))
        if shapes[key].shape != (width,):
            raise DatasetError(
                self.data.name,
                f"{', '.join(parts)} gives {width} elements, the policy's {key} "
                f"{shapes[key].shape[0]}",
                "Take the dataset that it was trained on.",
            )
        return values
