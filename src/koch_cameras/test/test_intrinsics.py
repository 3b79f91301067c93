# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration YAML, scaling and camera_info."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from koch_cameras.errors import IntrinsicsError
from koch_cameras.intrinsics import Intrinsics, load_intrinsics, save_intrinsics

ROS_FILE = """
image_width: 640
image_height: 480
camera_name: above
camera_matrix:
  rows: 3
  cols: 3
  data: [600., 0., 320., 0., 601., 240., 0., 0., 1.]
distortion_model: plumb_bob
distortion_coefficients:
  rows: 1
  cols: 5
  data: [0.1, -0.2, 0.001, 0.002, 0.]
rectification_matrix:
  rows: 3
  cols: 3
  data: [1, 0, 0, 0, 1, 0, 0, 0, 1]
projection_matrix:
  rows: 3
  cols: 4
  data: [590., 0., 321., 0., 0., 592., 241., 0., 0., 0., 1., 0.]
"""


@pytest.fixture
def ros_file(tmp_path):
    path = tmp_path / "above.yaml"
    path.write_text(ROS_FILE)
    return path


def test_file_of_ros_is_read_and_written_back_the_same(ros_file):
    one = load_intrinsics(ros_file)
    assert (one.width, one.height, one.name) == (640, 480, "above")
    assert one.projection[0, 0] == 590.0
    again_path = ros_file.with_name("again.yaml")
    save_intrinsics(one, again_path)
    two = load_intrinsics(again_path)
    for key in ("camera_matrix", "distortion", "rectification", "projection"):
        np.testing.assert_array_equal(getattr(one, key), getattr(two, key))
    assert list(again_path.parent.glob("*.partial")) == []


def test_scaling_keeps_the_rays_through_pixel_edges(ros_file):
    one = load_intrinsics(ros_file)
    half = one.scaled_to(320, 240)
    # The image's left edge lies at -0.5 in both sizes and is the same ray.
    for item in (one, half):
        left = (-0.5 - item.camera_matrix[0, 2]) / item.camera_matrix[0, 0]
        assert left == pytest.approx((-0.5 - 320.0) / 600.0)
    assert half.projection[1, 1] == pytest.approx(296.0)
    assert one.scaled_to(640, 480) is one


def test_another_aspect_ratio_is_refused(ros_file):
    with pytest.raises(IntrinsicsError, match="unknown crop"):
        load_intrinsics(ros_file).scaled_to(640, 360)


def test_rendered_camera_has_the_field_of_view_of_its_edges():
    item = Intrinsics.from_fovy("above", (640, 480), 90.0)
    assert item.camera_matrix[1, 1] == pytest.approx(240.0)
    assert tuple(item.camera_matrix[:2, 2]) == (319.5, 239.5)
    with pytest.raises(IntrinsicsError, match="fovy"):
        Intrinsics.from_fovy("above", (640, 480), 180.0)


def test_camera_info_is_filled_row_by_row(ros_file):
    message = SimpleNamespace()
    load_intrinsics(ros_file).fill_camera_info(message)
    assert list(message.k) == [600.0, 0, 320, 0, 601, 240, 0, 0, 1]
    assert message.d == [0.1, -0.2, 0.001, 0.002, 0.0]
    assert len(message.p) == 12


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("image_width: 640", "", "'image_width' is missing"),
        ("plumb_bob", "fancy", "expected one of plumb_bob"),
        ("cols: 5", "cols: 6", "malformed value"),
        ("data: [600.,", "data: [.nan,", "not finite"),
        ("data: [600.,", "data: [0.,", "above 0"),
        ("image_width: 640", "image_width: [", "not YAML"),
        (ROS_FILE, "- 1", "no mapping"),
        ("cols: 5\n  data: [0.1, ", "cols: 4\n  data: [", "4 distortion coefficients"),
    ],
)
def test_unusable_files_are_told(ros_file, old, new, reason):
    assert old in ROS_FILE
    ros_file.write_text(ROS_FILE.replace(old, new))
    with pytest.raises(IntrinsicsError, match=reason):
        load_intrinsics(ros_file)


def test_missing_file_says_which_command_writes_it(tmp_path):
    with pytest.raises(IntrinsicsError, match="koch calibrate camera"):
        load_intrinsics(tmp_path / "none.yaml")


def test_values_cannot_be_changed():
    item = Intrinsics.from_fovy("above", (64, 48), 60.0)
    with pytest.raises(ValueError, match="read-only"):
        item.camera_matrix[0, 0] = 1.0
