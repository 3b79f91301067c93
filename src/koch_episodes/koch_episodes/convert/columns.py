# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From recorded values to dataset columns: units, tool poses, delta actions."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_episodes.bag import Bag, open_bag
from koch_episodes.convert.mapping import (
    ACTION,
    DONE,
    REWARD,
    STATE,
    SUCCESS,
    TCP_POSE,
    FeatureMap,
    MappedFeature,
)
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import Segment
from koch_episodes.decode import continuous, quaternions
from koch_rig.action_layout import ACTION_SPACES, JOINT, ActionLayout
from koch_rig.arm_model import KOCH_V1_1, ArmModel
from koch_rig.calibration import Calibration, load_calibration
from koch_rig.geometry import sixd_from_matrix
from koch_rig.rig import Rig
from koch_rig.units import JointUnits, Units

CALIBRATION = "koch.calibration."  # and the arm: of a bag's custom data
Table = npt.NDArray[np.float64]


def calibration_of(bag: Bag, rig: Rig, arm: str) -> Calibration:
    """Return an arm's calibration: the one stored in the bag, else the rig's file.

    Raises:
        CalibrationError: Neither can be read.
    """
    joints = rig.arms[arm].model.joints
    text = bag.custom.get(f"{CALIBRATION}{arm}")
    if text is None:
        return load_calibration(rig.arms[arm].calibration_path, joints)
    return calibration_from(text, arm, joints)


def calibration_from(text: str, arm: str, joints: Sequence[str]) -> Calibration:
    """Load a calibration from the text of its file.

    Raises:
        CalibrationError: It is none of these joints.
    """
    with tempfile.TemporaryDirectory(prefix="koch_calibration_") as folder:
        path = Path(folder) / f"{arm}.json"
        path.write_text(text, encoding="utf-8")
        return load_calibration(path, joints)


def calibrations_of(bags: Sequence[Path]) -> dict[str, str]:
    """Return arm to its calibration file's text, where all bags hold the same; else nothing."""
    found: list[dict[str, str]] = []
    for path in bags:
        with open_bag(path) as bag:
            named = {k: v for k, v in bag.custom.items() if k.startswith(CALIBRATION)}
        found.append({key.removeprefix(CALIBRATION): text for key, text in named.items()})
    return found[0] if found and all(each == found[0] for each in found) else {}


def joint_units(
    bag: Bag, rig: Rig | None, feature_map: FeatureMap, options: ConvertOptions
) -> dict[str, JointUnits]:
    """Return a converter for every arm that a feature needs."""
    if rig is None:
        return {}
    arms = {source.arm for feature in feature_map.features for source in feature.sources}
    named = sorted(arm for arm in arms if arm is not None)
    if options.units is Units.RADIANS:
        named = []
    return {arm: JointUnits(rig.arms[arm], calibration_of(bag, rig, arm)) for arm in named}


def dataset_columns(
    segment: Segment,
    feature_map: FeatureMap,
    units: Mapping[str, JointUnits],
    rig: Rig | None,
    options: ConvertOptions,
) -> dict[str, npt.NDArray[Any]]:
    """Turn a segment's recorded vectors into dataset columns, in their dtypes.

    Shape (T, N), and (T, *shape) where the mapping gives a feature a shape.
    """
    columns: dict[str, Table] = {}
    for feature in feature_map.features:
        if feature.key not in segment.columns:
            continue
        table = segment.columns[feature.key]
        for turn in _turns(feature):
            table = continuous(table, turn)
        layout = ActionLayout.of((s.arm or "", s.names) for s in feature.sources)
        columns[feature.key] = layout.rad_to(units, options.units, table)
        if feature.key == ACTION and options.action_space != JOINT:
            codec = ACTION_SPACES[options.action_space].codec(layout, units, options.units)
            poses = codec.poses(columns[ACTION])
            columns[ACTION] = codec.relate(poses, poses[0])
    if options.delta_actions:
        action = next(feature for feature in feature_map.features if feature.key == ACTION)
        columns[ACTION] = _difference(columns[ACTION], columns[STATE], _turns(action))
    if options.tcp_pose:
        assert rig is not None
        state = next(feature for feature in feature_map.features if feature.key == STATE)
        name = state.sources[0].arm
        model = KOCH_V1_1 if name is None else rig.arms[name].model
        joints = segment.columns[STATE][:, : len(model.joints)]
        columns[TCP_POSE] = tool_poses(joints, model)
    with np.errstate(over="ignore"):  # the caller refuses infinity
        mapped = {feature.key: feature for feature in feature_map.features}
        return {
            key: table.astype(mapped[key].dtype if key in mapped else "float32").reshape(
                len(table), *(mapped[key].shape if key in mapped else ()) or (-1,)
            )
            for key, table in columns.items()
        }


def _turns(feature: MappedFeature) -> list[list[int]]:
    """Return the columns of each quaternion of a feature."""
    place, found = 0, []
    for source in feature.sources:
        found += [[place + k for k in turn] for turn in quaternions(source.names)]
        place += len(source.names)
    return found


def _difference(action: Table, state: Table, turns: list[list[int]]) -> Table:
    """Return action minus state; of an action's q and -q the one nearer to the state counts."""
    near = action.copy()
    for turn in turns:
        opposite = np.sum(action[:, turn] * state[:, turn], axis=1) < 0.0
        near[np.ix_(opposite, turn)] *= -1.0
    result: Table = near - state
    return result


def reward_columns(length: int, *, succeeds: bool) -> dict[str, npt.NDArray[Any]]:
    """Return what LeRobot's tables say of an episode's end.

    Args:
        length: Count of frames.
        succeeds: Whether the task is done at the last one.

    Returns:
        ``next.done`` true at the last frame, ``next.success`` there where it `succeeds`, and
        ``next.reward`` 1 there, else 0.
    """
    last = np.arange(length) == length - 1
    success = last & succeeds
    return {DONE: last, SUCCESS: success, REWARD: success.astype(np.float32)}


def tool_poses(joints_rad: Table, model: ArmModel = KOCH_V1_1) -> Table:
    """Return tool positions and 6D rotations in the arm's base frame.

    Args:
        joints_rad: Joint angles in [rad], shape (T, J).
        model: The arm's.

    Returns:
        x, y, z in [m] and the first two columns of the rotation matrix, shape (T, 9).
    """
    from koch_rig.kinematics import Kinematics

    arm = Kinematics.for_arm(model=model)
    rows = []
    for joints in joints_rad:
        T_base_tcp = arm.tcp(joints)
        rows.append(np.concatenate([T_base_tcp[:3, 3], sixd_from_matrix(T_base_tcp[:3, :3])]))
    return np.array(rows).reshape(-1, 9)
