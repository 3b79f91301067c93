# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A mount is written into a rig file, and nothing else of it changes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from koch_rig.errors import ModelError
from koch_rig.load import load_rig
from koch_rig.rig import Mount
from koch_rig.rig_edit import with_arm_delay, with_mount, with_stream_offset

MOUNT = Mount(parent="follower/gripper_link", xyz=(0.01, -0.2, 0.3), rpy_rad=(0.1, -0.2, math.pi))
OLD = "    mount: {parent: world, xyz: [0.3, 0, 0.6], rpy_deg: [180, 0, 90]}"


@pytest.mark.parametrize(
    "new",
    [
        OLD + "  # measured by hand",
        "    mount:  # in block style\n      parent: world\n      xyz: [0.3, 0, 0.6]  # m\n"
        "      rpy_deg: [180, 0, 90]  # deg",
        "    # none yet",
    ],
)
def test_it_is_read_back_and_the_rest_stays(write_rig: Callable[..., Path], new: str) -> None:
    path = write_rig((OLD, new))
    text = with_mount(path, "above", MOUNT)
    kept = [line for line in path.read_text("utf-8").splitlines() if line not in new.splitlines()]
    assert [line for line in text.splitlines() if line in kept] == kept
    path.write_text(text, encoding="utf-8")
    mount = load_rig(path).cameras["above"].mount
    assert mount is not None
    assert mount.parent == MOUNT.parent
    assert mount.xyz == pytest.approx(MOUNT.xyz)
    assert mount.rpy_rad == pytest.approx(MOUNT.rpy_rad, abs=1e-5)
    assert with_mount(path, "above", MOUNT) == text


def test_a_camera_in_one_line_gets_one(write_rig: Callable[..., Path]) -> None:
    one = "\n  left: {source: 2, width: 64, height: 48, fps: 30}\n"
    path = write_rig((OLD, OLD + one.rstrip("\n")))
    path.write_text(with_mount(path, "left", MOUNT), encoding="utf-8")
    assert load_rig(path).cameras["left"].mount is not None
    assert load_rig(path).cameras["left"].fps == 30


def test_a_camera_that_is_not_in_the_file_is_named(write_rig: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"cameras\.front: got no mapping in this file"):
        with_mount(write_rig(), "front", MOUNT)


@pytest.mark.parametrize(
    "change",
    [
        ("", ""),
        ("  cameras/above: {max_age_ms: 80, offset_ms: -20}", "  cameras/above: {max_age_ms: 80}"),
        ("  cameras/above: {max_age_ms: 80, offset_ms: -20}\n", ""),
    ],
)
def test_latencies_are_read_back_and_the_rest_stays(
    write_rig: Callable[..., Path], change: tuple[str, str]
) -> None:
    path = write_rig(change) if change[0] else write_rig()
    before = path.read_text("utf-8")
    text = with_stream_offset(before, path, "cameras/above", -41.5)
    text = with_arm_delay(text, path, "follower", 24.0)
    path.write_text(text, encoding="utf-8")
    rig = load_rig(path)
    assert rig.streams["cameras/above"].offset_s == pytest.approx(-0.0415)
    assert rig.arms["follower"].delay_s == pytest.approx(0.024)
    kept = [line for line in before.splitlines() if "cameras/above:" not in line]
    after = text.splitlines()
    assert all(line in after or "follower:" in line for line in kept)
    assert with_arm_delay(text, path, "follower", 24.0) == text


def test_a_file_without_streams_gets_them(tmp_path: Path) -> None:
    text = with_stream_offset("arms: {}", tmp_path, "cameras/above", 7.0)
    assert text == "arms: {}\n\nstreams:\n  cameras/above: {offset_ms: 7}\n"
