# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Devices, by-id paths and shared USB controllers from a sysfs tree."""

from __future__ import annotations

from pathlib import Path

import pytest

from koch_cameras.v4l2.listing import controller_of, list_nodes, sharing_controller


@pytest.fixture
def tree(tmp_path: Path) -> tuple[Path, Path]:
    """Two cameras on bus 1 (the first with a metadata node), one on bus 3."""
    sysfs, dev = tmp_path / "class", tmp_path / "dev"
    sysfs.mkdir()
    (dev / "v4l" / "by-id").mkdir(parents=True)
    places = {
        0: ("0000:00:14.0/usb1/1-1", "1-1:1.0", "Cam A"),
        1: ("0000:00:14.0/usb1/1-1", "1-1:1.0", "Cam A"),
        2: ("0000:00:14.0/usb1/1-4/1-4.2", "1-4.2:1.0", "Cam B"),
        10: ("0000:05:00.3/usb3/3-1", "3-1:1.0", "Cam C"),
    }
    for number, (device, interface, name) in places.items():
        folder = tmp_path / "devices" / device / interface
        folder.mkdir(parents=True, exist_ok=True)
        (folder.parent / "speed").write_text("480\n")
        entry = sysfs / f"video{number}"
        entry.mkdir()
        (entry / "device").symlink_to(folder)
        (entry / "name").write_text(name + "\n")
        (dev / f"video{number}").touch()
    (dev / "v4l" / "by-id" / "usb-A-index0").symlink_to(dev / "video0")
    return sysfs, dev


def test_nodes_are_listed_in_number_order_with_stable_paths(tree):
    nodes = list_nodes(*tree)
    assert [Path(node.path).name for node in nodes] == ["video0", "video1", "video2", "video10"]
    assert [Path(path).name for path in nodes[0].by_id] == ["usb-A-index0"]
    assert nodes[0].controller == "0000:00:14.0 bus 1"
    assert nodes[3].controller == "0000:05:00.3 bus 3"
    assert nodes[0].speed_mbps == 480.0


def test_sharing_names_other_cameras_but_not_the_own_second_node(tree):
    sysfs, dev = tree
    assert sharing_controller("/dev/video0", sysfs, dev) == [f"Cam B ({dev}/video2)"]
    assert sharing_controller("/dev/video10", sysfs, dev) == []
    assert controller_of("/dev/video2", sysfs) == "0000:00:14.0 bus 1"


def test_devices_off_usb_share_nothing(tmp_path):
    sysfs = tmp_path / "class"
    (sysfs / "video0").mkdir(parents=True)
    (tmp_path / "platform" / "isp").mkdir(parents=True)
    (sysfs / "video0" / "device").symlink_to(tmp_path / "platform" / "isp")
    assert sharing_controller("/dev/video0", sysfs, tmp_path) == []
    assert controller_of("/dev/video0", sysfs) == "unknown"


def test_no_devices_at_all(tmp_path):
    assert list_nodes(tmp_path / "absent", tmp_path) == []
