# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Video devices of this computer: stable paths and who shares a USB controller, from sysfs."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_SYSFS = Path("/sys/class/video4linux")
_DEV = Path("/dev")
_USB_BUS = re.compile(r"usb(\d+)")


@dataclass(frozen=True)
class VideoNode:
    """One /dev/video* node.

    Attributes:
        path: /dev/videoN.
        name: The driver's name for it.
        by_id: Stable paths below /dev/v4l/by-id and by-path, by-id first.
        controller: PCI or platform address of the USB host controller and bus, or "" if not USB.
        speed_mbps: USB speed of the device in [Mbit/s], or None.
    """

    path: str
    name: str
    by_id: tuple[str, ...]
    controller: str
    speed_mbps: float | None


def list_nodes(sysfs: Path = _SYSFS, dev: Path = _DEV) -> list[VideoNode]:
    """All video nodes, in the order of their numbers."""
    entries = [entry for entry in sysfs.glob("video*") if entry.name[5:].isdigit()]
    return [_node(entry, dev) for entry in sorted(entries, key=lambda item: int(item.name[5:]))]


def device_paths(sysfs: Path = _SYSFS, dev: Path = _DEV) -> list[str]:
    """The most stable path of every node."""
    return [node.by_id[0] if node.by_id else node.path for node in list_nodes(sysfs, dev)]


def controller_of(path: str, sysfs: Path = _SYSFS) -> str:
    """The USB controller that carries a device, or "unknown"."""
    entry = sysfs / os.path.basename(os.path.realpath(path))
    return _controller(entry) or "unknown"


def sharing_controller(path: str, sysfs: Path = _SYSFS, dev: Path = _DEV) -> list[str]:
    """Other *cameras* on the same controller (a camera's second node is not another camera)."""
    mine = sysfs / os.path.basename(os.path.realpath(path))
    controller = _controller(mine)
    if not controller:
        return []
    seen = {_usb_device(mine)}
    found = []
    for node in list_nodes(sysfs, dev):
        device = _usb_device(sysfs / os.path.basename(node.path))
        if node.controller == controller and device not in seen:
            seen.add(device)
            found.append(f"{node.name} ({node.path})")
    return found


def _node(entry: Path, dev: Path) -> VideoNode:
    path = dev / entry.name
    stable = []
    for folder in ("by-id", "by-path"):
        links = sorted((dev / "v4l" / folder).glob("*"))
        stable += [str(link) for link in links if os.path.realpath(link) == os.path.realpath(path)]
    device = _usb_device(entry)
    speed = _read(Path(device) / "speed") if device else ""
    return VideoNode(
        path=str(path),
        name=_read(entry / "name") or entry.name,
        by_id=tuple(stable),
        controller=_controller(entry),
        speed_mbps=float(speed) if speed.replace(".", "", 1).isdigit() else None,
    )


def _controller(entry: Path) -> str:
    """The path .../<controller>/usbN/N-1.2/N-1.2:1.0 names the controller before usbN."""
    parts = Path(os.path.realpath(entry / "device")).parts
    for index, part in enumerate(parts):
        match = _USB_BUS.fullmatch(part)
        if match and index:
            return f"{parts[index - 1]} bus {match.group(1)}"
    return ""


def _usb_device(entry: Path) -> str:
    """The USB device folder, parent of the interface folder, or "" if not USB."""
    interface = Path(os.path.realpath(entry / "device"))
    return str(interface.parent) if ":" in interface.name and _controller(entry) else ""


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""  # sysfs attributes are optional; the caller shows what there is
