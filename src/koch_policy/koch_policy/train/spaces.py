# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The actions of a dataset in the space that a policy is to predict (`train.action_space`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from koch_core.errors import KochError
from koch_policy.configs import ACTION, STATE
from koch_policy.errors import DatasetError
from koch_policy.train.data import Demonstrations
from koch_rig.action_layout import ACTION_SPACES, JOINT, ActionLayout
from koch_rig.action_space import ActionCodec
from koch_rig.joints import joint_of, model_of
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from koch_episodes.dataset.recorded import RecordedDataset


def in_space(
    data: Demonstrations,
    recorded: RecordedDataset,
    name: str,
    actions: Sequence[str],
    state: Sequence[str],
    rig: Path | None,
) -> Demonstrations:
    """Return the data with their actions in a space.

    Args:
        data: As the dataset has them.
        recorded: The dataset.
        name: Of the space; empty: the dataset's own.
        actions, state: Keys that are joined to both; no state: the policy does not see it.
        rig: Rig file where the dataset does not hold its rig.

    Raises:
        DatasetError: The dataset cannot say its actions so.
    """
    if {recorded.made.action_space, name or JOINT} == {JOINT}:
        return data
    stored = ACTION_SPACES[recorded.made.action_space]
    space, has_joints = ACTION_SPACES[name or stored.name], stored.name == JOINT
    if not has_joints and space is not stored and not (stored.name == "tcp" and space.is_tcp):
        raise DatasetError(
            data.name,
            f"holds actions of the space {stored.name}, not {space.name}",
            f"Leave train.action_space out, or convert the bags without --action-space "
            f"{stored.name}: from joints every space can be made.",
        )
    if not state:
        raise DatasetError(
            data.name,
            f"has no {STATE} among the policy's inputs, where the space {space.name} begins",
            f"Add {STATE} to train.inputs.",
        )
    values, found = recorded.vectors(actions)
    _, seen = recorded.vectors(state)
    joints = found if has_joints else _joints(seen)
    observed = recorded.ordered(state, joints).astype(np.float64)
    codec = _codec(data, recorded, space.name, actions, joints, rig)
    poses = codec.poses(values) if has_joints else values.astype(np.float64)
    reference = codec.poses(observed) if space.is_relative else None
    if reference is None and has_joints:
        ends = np.cumsum(data.lengths)[:-1]
        parts = [codec.relate(part, part[:1].reshape(-1)) for part in np.split(poses, ends)]
        poses = np.concatenate(parts)
    return replace(
        data,
        vectors={**data.vectors, ACTION: poses.astype(np.float32)},
        names={**data.names, ACTION: list(codec.names_of(tuple(joints)))},
        codec=codec,
        reference=None if reference is None else reference.astype(np.float32),
        joints=tuple(joints),
    )


def _joints(names: Sequence[str]) -> list[str]:
    return [name for name in names if joint_of(_plain(name)) is not None]


def _plain(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".pos").removeprefix("main_")


def _codec(
    data: Demonstrations,
    recorded: RecordedDataset,
    space: str,
    actions: Sequence[str],
    joints: Sequence[str],
    rig_path: Path | None,
) -> ActionCodec:
    """The codec of a space for the arms that a dataset moves.

    Raises:
        DatasetError: It cannot be told whose joints they are, or their calibration is not known.
    """
    from koch_episodes.convert.schema import rig_from

    kind = Units(recorded.made.units or Units.LEROBOT.value)
    plain = [_plain(name) for name in joints]
    needs_units = ACTION_SPACES[space].is_tcp and kind is not Units.RADIANS
    if rig_path is None and not recorded.made.rig:
        if model_of(plain) is None or needs_units:
            raise DatasetError(
                data.name,
                f"holds no rig, which the action space {space} asks for its calibration",
                "Name it with --rig FILE.",
            )
        layout = ActionLayout.of([("follower", plain)])
        return ActionCodec(ACTION_SPACES[space], layout, {}, kind)
    rig = load_rig(rig_path) if rig_path is not None else rig_from(recorded.made.rig)
    layout = ActionLayout.of_rig(rig, actions)
    if list(layout.names) != plain:
        raise DatasetError(
            data.name,
            f"moves {', '.join(plain)}, its rig {', '.join(layout.names)}",
            "Name the rig that it was recorded with: --rig FILE.",
        )
    units = {}
    if needs_units:
        texts = {} if rig_path is not None else recorded.made.calibrations
        units = {arm: _units(data.name, rig, arm, texts.get(arm)) for arm in layout.arms}
    return ActionCodec(ACTION_SPACES[space], layout, units, kind)


def _units(name: str, rig: Rig, arm: str, text: str | None) -> JointUnits:
    from koch_episodes.convert.columns import calibration_from

    try:
        if text is None:
            return JointUnits.for_arm(rig.arms[arm])
        calibration = calibration_from(text, arm, rig.arms[arm].model.joints)
        return JointUnits(rig.arms[arm], calibration)
    except KochError as exc:
        raise DatasetError(
            name, f"does not tell the calibration of {arm} ({exc})", "Name its rig: --rig FILE."
        ) from exc
