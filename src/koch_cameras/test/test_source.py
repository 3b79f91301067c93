# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Settings of a source, and what the rig says."""

from __future__ import annotations

import pytest

from koch_cameras.errors import SourceConfigError
from koch_cameras.rig_camera import (
    UnknownCameraError,
    expectation_of,
    find_camera,
    intrinsics_of,
    usb_neighbours,
)
from koch_cameras.source import Rotation, SourceConfig
from koch_rig.load import load_rig


class Settings:
    """The node parameters that the watch needs."""

    frozen_after_s = 2.0
    max_latency_s = 0.2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"width": 640}, "both or neither"),
        ({"width": 0, "height": 480}, "above 0"),
        ({"fps": float("nan")}, "above 0"),
        ({"fourcc": "MJPEG"}, "four letters"),
        ({"rotation": 45}, "0, 90, 180 or -90"),
        ({"color_mode": "yuv"}, "rgb or bgr"),
        ({"timeout_s": -1.0}, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, reason):
    with pytest.raises(SourceConfigError, match=reason):
        SourceConfig(0, **settings)


@pytest.mark.parametrize(
    ("rotation", "size"), [(0, (640, 480)), (180, (640, 480)), (90, (480, 640)), (-90, (480, 640))]
)
def test_width_and_height_are_those_after_rotation(rotation, size):
    assert SourceConfig(0, 640, 480, rotation=rotation).capture_size == size


def test_rig_gives_the_settings(rig_file):
    rig = load_rig(rig_file("2", rotation=-90, fourcc="YUYV", color_mode="bgr", fps=15))
    config = SourceConfig.from_rig(find_camera(rig, "above"), timeout_s=1.0, loop=True)
    assert (config.index_or_path, config.rotation) == (2, Rotation.COUNTERCLOCKWISE)
    assert (config.fourcc, config.color_mode.value, config.fps) == ("YUYV", "bgr", 15)
    assert (config.timeout_s, config.loop) == (1.0, True)
    with pytest.raises(UnknownCameraError, match="Cameras of this rig: above"):
        find_camera(rig, "wrist")


def test_simulated_lens_gives_intrinsics_and_none_gives_none(rig_file):
    with_lens = load_rig(rig_file(0, fovy_deg=90)).cameras["above"]
    assert intrinsics_of(with_lens).camera_matrix[0, 0] == pytest.approx(24.0)
    assert intrinsics_of(load_rig(rig_file(0)).cameras["above"]) is None


def test_still_scene_is_not_frozen_in_simulation(rig_file):
    path = rig_file(0)
    rig = load_rig(path)
    assert expectation_of(rig, rig.cameras["above"], Settings()).frozen_after_s == 2.0
    path.write_text(path.read_text() + "simulation: {physics: mujoco, seed: 0}\n")
    rig = load_rig(path)
    assert expectation_of(rig, rig.cameras["above"], Settings()).frozen_after_s == 0.0


def test_streams_have_no_usb_neighbours():
    assert usb_neighbours("http://127.0.0.1/x") == ""
    assert usb_neighbours(0) == ""
