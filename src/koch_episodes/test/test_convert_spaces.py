# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch convert --action-space`: the hand's pose in place of the joints, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from koch_core.options import OptionError
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.to_bag import to_bags
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_episodes.dataset.recorded import RecordedDataset
from koch_episodes.errors import DatasetWriteError
from koch_episodes.replay.motion import load_motion
from koch_rig.geometry import matrix_from_quaternion, matrix_from_sixd
from koch_rig.kinematics import Kinematics
from koch_rig.load import load_rig
from koch_rig.units import Units

WriteBag = Callable[..., Path]
SIXD = [
    "ee.x",
    "ee.y",
    "ee.z",
    "ee.r00",
    "ee.r10",
    "ee.r20",
    "ee.r01",
    "ee.r11",
    "ee.r21",
    "gripper.pos",
]


def options(rig: Path, space: str, units: Units = Units.RADIANS) -> ConvertOptions:
    return ConvertOptions(rig=rig, units=units, action_space=space)


def test_the_action_is_the_pose_of_the_hand(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag = write_bag(seconds=1.0)
    for space in ("joint", "tcp", "tcp_quaternion"):
        convert([bag], tmp_path / space, options(rig_file, space))
    joints, tcp, turned = (
        RecordedDataset(tmp_path / space).vectors(["action"])
        for space in ("joint", "tcp", "tcp_quaternion")
    )
    assert list(tcp[1]) == SIXD
    assert list(turned[1]) == ["ee.x", "ee.y", "ee.z", "ee.qx", "ee.qy", "ee.qz", "ee.qw",
                               "gripper.pos"]  # fmt: skip
    arm = Kinematics()
    for row, pose, quaternion in zip(joints[0], tcp[0], turned[0], strict=True):
        expected = arm.tcp(row)
        np.testing.assert_allclose(pose[:3], expected[:3, 3], atol=1e-6)
        np.testing.assert_allclose(matrix_from_sixd(pose[3:9]), expected[:3, :3], atol=1e-5)
        turn = matrix_from_quaternion(quaternion[3:7])
        np.testing.assert_allclose(turn, expected[:3, :3], atol=1e-5)
        assert pose[9] == quaternion[7] == row[5]
    assert (np.sum(turned[0][1:, 3:7] * turned[0][:-1, 3:7], axis=1) > 0.0).all()
    state = LeRobotDatasetReader(tmp_path / "tcp").features["observation.state"]
    assert state.shape == (6,)  # what is seen stays in joints


@pytest.mark.parametrize("units", [Units.RADIANS, Units.LEROBOT])
def test_replay_brings_the_poses_back_to_the_joints(
    units: Units, write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag = write_bag(seconds=1.0)
    for space in ("joint", "tcp", "tcp_quaternion"):
        convert([bag], tmp_path / space, options(rig_file, space, units))
    rig = load_rig(rig_file)
    expected, *found = (
        load_motion(tmp_path / space, rig=rig)[1].positions_rad
        for space in ("joint", "tcp", "tcp_quaternion")
    )
    for each in found:
        np.testing.assert_allclose(each, expected, atol=2e-3)


def test_poses_and_joints_are_not_joined(
    write_bag: WriteBag, rig_file: Path, tmp_path: Path
) -> None:
    bag, other = (write_bag(name, seconds=1.0) for name in ("one", "two"))
    convert([bag], tmp_path / "out", options(rig_file, "tcp"))
    with pytest.raises(DatasetWriteError, match=r"append"):
        convert([other], tmp_path / "out", options(rig_file, "joint"), append=True)
    with pytest.raises(OptionError, match=r"--action-space.*nothing beside --delta-actions"):
        ConvertOptions(delta_actions=True, action_space="tcp")


def test_bags_of_poses_hold_the_poses(write_bag: WriteBag, rig_file: Path, tmp_path: Path) -> None:
    convert([write_bag(seconds=1.0)], tmp_path / "out", options(rig_file, "tcp"))
    to_bags(tmp_path / "out", tmp_path / "bags", ConvertOptions())
    back = ConvertOptions(map=tmp_path / "bags" / "map.yaml", units=Units.RADIANS)
    convert([tmp_path / "bags"], tmp_path / "again", back)
    first, again = (LeRobotDatasetReader(tmp_path / name) for name in ("out", "again"))
    np.testing.assert_allclose(again.column("action"), first.column("action"), atol=1e-6)
