# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch inspect --rerun`: read back by Rerun's own reader, image for image."""

import sys
from pathlib import Path

import numpy as np
import pytest

from koch_episodes import cdr
from koch_episodes.bag import open_bag
from koch_episodes.inspect_cli import main
from koch_rig.kinematics import Kinematics

SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample"
BAG = SAMPLE / "episode_000000"
IMAGES = "/cameras/above/image_raw/compressed"


def test_without_the_package_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rerun", None)  # as where it is not installed
    file = tmp_path / "a.rrd"
    assert main([str(BAG), "--no-png", "--rerun", str(file)]) == 2
    assert "./koch setup --with rerun" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def exported(tmp_path):
    pytest.importorskip("rerun", reason="./koch setup --with rerun")
    from rerun.dataframe import load_recording

    def export(path, *words):
        file = tmp_path / "out" / "episode.rrd"
        assert main([str(path), "--no-png", "--rerun", str(file), *words]) == 0
        assert [path.name for path in file.parent.iterdir()] == ["episode.rrd"]
        return load_recording(file)

    return export


def column(recording, entity, part, index="episode"):
    """Values of one column, in the order of time, without what is missing."""
    view = recording.view(index=index, contents=entity)
    names = [each.entity_path + " " + each.component for each in view.schema().component_columns()]
    table = view.select().read_all()
    if not table.num_rows:
        table = view.select_static().read_all()
    found = [name for name in table.column_names if name.endswith(part)]
    assert found, (part, table.column_names, names)
    return [value for value in table.column(found[0]).to_pylist() if value is not None]


def test_images_are_the_cameras_own_bytes_under_the_episodes_time(exported):
    recording = exported(BAG)
    with open_bag(BAG) as bag:
        images = [cdr.compressed_image(message.data) for message in bag.messages([IMAGES])]
    shown = column(recording, "/cameras/above", "EncodedImage:blob")
    assert [bytes(np.asarray(blob[0], np.uint8)) for blob in shown] == images
    kinds = {kind[0] for kind in column(recording, "/cameras/above", "EncodedImage:media_type")}
    assert kinds == {"image/jpeg"}
    indexes = {each.name for each in recording.schema().index_columns()}
    assert {"episode", "stamp"} <= indexes


def test_joints_are_scalars_and_frames_agree_with_the_kinematics(exported):
    recording = exported(BAG)
    positions = column(recording, "/follower/joint_states/gripper", "Scalars:scalars")
    with open_bag(BAG) as bag:
        reader = cdr.JointStateReader()
        rows = [reader.read(m.data) for m in bag.messages(["/follower/joint_states"])]
    place = list(rows[0][0]).index("gripper")
    np.testing.assert_allclose([each[0] for each in positions], [row[1][place] for row in rows])
    # From one frame to the next, as Rerun will: the tool must come out where it was.
    paths = sorted({str(each.entity_path) for each in recording.schema().component_columns()})
    (tip,) = [path for path in paths if path.endswith("follower_tcp")]
    parts = tip.split("/")
    base = next(place for place, part in enumerate(parts) if part.endswith("base_link"))
    pose = np.eye(4)
    middle = len(rows) // 2
    for end in range(base + 2, len(parts) + 1):
        entity = "/".join(parts[:end])
        moves = column(recording, entity, "Transform3D:translation")
        turns = column(recording, entity, "Transform3D:quaternion")
        number = middle if len(moves) > 1 else 0
        pose = pose @ matrix(moves[number][0], turns[number][0])
    expected = Kinematics(prefix="follower/").tcp(rows[middle][1])
    np.testing.assert_allclose(pose, expected, atol=2e-3)


def matrix(translation, quaternion):
    from koch_rig.geometry import matrix_from_quaternion

    made = np.eye(4)
    made[:3, :3], made[:3, 3] = matrix_from_quaternion(quaternion), translation
    return made


def test_an_episode_of_a_dataset_refers_to_the_frames_of_its_video(exported):
    recording = exported(SAMPLE / "dataset", "--episode", "0")
    entity = "/observation/images/above"
    frames = column(recording, entity, "VideoFrameReference:timestamp")
    assert len(frames) == 195
    assert frames[15][0] - frames[0][0] == 1_000_000_000  # [ns], 15 a second
    names = {str(each.entity_path) for each in recording.schema().component_columns()}
    assert "/action/gripper.pos" in {name.replace("\\", "") for name in names}


def test_an_episode_that_is_not_there_leaves_no_file(tmp_path, capsys):
    pytest.importorskip("rerun", reason="./koch setup --with rerun")
    file = tmp_path / "a.rrd"
    dataset = str(SAMPLE / "dataset")
    assert main([dataset, "--no-png", "--rerun", str(file), "--episode", "7"]) == 2
    assert "no episode 7" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
