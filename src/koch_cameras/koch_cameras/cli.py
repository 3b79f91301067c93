# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""``koch cameras``: every device at a glance, a list, one image of a camera or its crop."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_cameras.errors import CameraError, CorruptFrameError
from koch_cameras.frame import CameraFrame
from koch_cameras.image import pixels
from koch_cameras.open_source import open_source
from koch_cameras.rig_camera import find_camera
from koch_cameras.source import FrameSource, SourceConfig
from koch_cameras.v4l2.device import Device
from koch_cameras.v4l2.kernel import Kernel, LinuxKernel
from koch_cameras.v4l2.listing import VideoNode, list_nodes
from koch_core.command_line import parsed_subcommand, subcommands
from koch_core.errors import KochError
from koch_core.image import Image, save_image
from koch_core.options import Option, OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_rig.rig import ColorMode
from koch_ros.shared_options import RIG

_DAMAGED_LIMIT = 30


_WARMUP = Option("seconds to read before [s]", low=0.0)


@dataclass(frozen=True, kw_only=True)
class ShowCameras(OptionModel):
    """One sheet with an image of every device (default)."""

    rig: Path | None = same_as(RIG, None, text="rig file (default: $KOCH_RIG)")
    output: Path = option(
        Path("cameras.png"), "image to write", flags=("--output", "-o"), metavar="PNG"
    )
    warmup: float = same_as(_WARMUP, 1.0)


@dataclass(frozen=True, kw_only=True)
class ListCameras(OptionModel):
    """Devices, stable paths, modes, shared USB controllers."""


@dataclass(frozen=True, kw_only=True)
class GrabImage(OptionModel):
    """Write one image of a camera of the rig as PNG."""

    name: str = option(..., "name of the camera in the rig file", flags=("name",))
    rig: Path | None = same_as(RIG, None, text="rig file")
    output: Path | None = option(
        None, "file to write; NAME.png, or NAME_crop.png, by default", flags=("--output", "-o")
    )
    warmup: float = same_as(_WARMUP, 1.0)
    timeout: float = option(5.0, "give up after silence [s]", above=0.0)


@dataclass(frozen=True, kw_only=True)
class CropImage(GrabImage):
    """Draw the part of a camera's image that a policy sees."""

    box: tuple[int, int, int, int] | None = option(
        None,
        "in pixels of the image; without it the image gets rulers to read it off",
        metavar="LEFT TOP WIDTH HEIGHT",
    )


KINDS = {"show": ShowCameras, "list": ListCameras, "grab": GrabImage, "crop": CropImage}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand; 2 = something the person can repair, told in one message."""
    about = "Every device at a glance, a list, one image of a camera or its crop."
    parser = subcommands("koch cameras", about, KINDS, "show")
    word, options = parsed_subcommand(parser, sys.argv[1:] if argv is None else argv, KINDS)
    do: dict[str, Callable[[Any], int]] = {
        "show": _show, "list": _list, "grab": _grab, "crop": _crop,
    }  # fmt: skip
    try:
        return do[word](options)
    except KochError as exc:
        complain(f"koch cameras: {exc}")
        return 2


def _list(_: ListCameras) -> int:
    say(listing(list_nodes(), LinuxKernel()))
    return 0


def _show(options: ShowCameras) -> int:
    """Write a sheet with an image of every device and of what the rig has besides."""
    from koch_cameras import sheet  # here, because the other subcommands need no OpenCV

    kernel = LinuxKernel()
    nodes = [node for node in list_nodes() if _captures(node, kernel)]
    wanted = sheet.candidates(nodes, load_rig(default_rig(options.rig)).cameras.values())
    if not wanted:
        say(listing((), kernel))
        return 2
    shown = sheet.look_through(
        wanted, open_source, lambda source: _newest_after(source, options.warmup)
    )
    for item in shown:
        what = f"{item.candidate.place}  {item.candidate.name} ({item.candidate.used_by})"
        say(f"{what}: {item.problem}" if item.problem else what)
    sheet.draw(shown, options.output)
    say(f"{options.output}: what each of them sees")
    return 0 if any(item.image is not None for item in shown) else 2


def _captures(node: VideoNode, kernel: Kernel) -> bool:
    """Whether a node gives images; one that may not be asked counts, since opening says why."""
    try:
        device = Device(node.path, kernel)
    except CameraError:
        return True
    try:
        return bool(device.identity().captures)
    except CameraError:
        return True
    finally:
        device.close()


def listing(nodes: Sequence[VideoNode], kernel: Kernel) -> str:
    """Devices with stable paths, modes, and who shares a USB controller."""
    if not nodes:
        return (
            "No video devices. Plug a camera in; inside a container pass --device=/dev/video0. "
            "URLs and files need no device."
        )
    lines = []
    for node in nodes:
        lines += _describe(node, kernel)
    lines += _shared(nodes)
    return "\n".join(lines)


def _describe(node: VideoNode, kernel: Kernel) -> list[str]:
    speed = f", {node.speed_mbps:g} Mbit/s" if node.speed_mbps else ""
    usb = f" (USB {node.controller}{speed})" if node.controller else ""
    lines = [f"{node.path}  {node.name}{usb}", *(f"  {path}" for path in node.by_id)]
    try:
        device = Device(node.path, kernel)
    except CameraError as exc:
        return [*lines, f"  {exc}"]
    try:
        if not device.identity().captures:
            return [*lines, "  no video here (metadata or output node)"]
        return [*lines, *(f"    {mode}" for mode in device.modes())]
    except CameraError as exc:
        return [*lines, f"  {exc}"]
    finally:
        device.close()


def _shared(nodes: Sequence[VideoNode]) -> list[str]:
    groups: dict[str, list[str]] = {}
    for node in nodes:
        if node.controller:
            names = groups.setdefault(node.controller, [])
            if node.name not in names:
                names.append(node.name)
    return [
        f"USB controller {controller} is shared by: {', '.join(names)}"
        for controller, names in groups.items()
        if len(names) > 1
    ]


def _grab(options: GrabImage) -> int:
    image, mode = _image_of(options)
    path = options.output or Path(f"{options.name}.png")
    save_image(path, image)
    say(f"{path}: {image.shape[1]}x{image.shape[0]} from {mode}")
    return 0


def _crop(options: CropImage) -> int:
    """Draw a box into an image and say how a recipe gives it to a policy."""
    from koch_cameras import crop

    image, _ = _image_of(options)
    path = options.output or Path(f"{options.name}_crop.png")
    if options.box is None:
        save_image(path, crop.with_rulers(image))
        say(f"{path}: read a box off it, then --box LEFT TOP WIDTH HEIGHT in its pixels")
        return 0
    box = crop.fractions(options.box, image)
    save_image(path, crop.with_box(image, box))
    say(f"{path}: what a policy would see is bright")
    say(f'--set "train.crops={{observation.images.{options.name}: {list(box)}}}"')
    return 0


def _image_of(options: GrabImage) -> tuple[Image, str]:
    """The newest image of a camera of the rig, as a dataset has it, and the camera's mode."""
    rig = load_rig(default_rig(options.rig))
    camera = find_camera(rig, options.name)
    config = SourceConfig.from_rig(camera, timeout_s=options.timeout)
    source = open_source(config)
    try:
        frame = _newest_after(source, options.warmup)
    finally:
        source.close()
    return pixels(str(camera.source), frame, config.rotation, ColorMode.RGB), str(source.mode)


def _newest_after(source: FrameSource, warmup_s: float) -> CameraFrame:
    """Read for a while first: the exposure of a camera that was just opened settles."""
    end_s = time.monotonic() + warmup_s
    damaged = 0
    while True:
        try:
            frame = source.read()
        except CorruptFrameError:
            damaged += 1
            if damaged >= _DAMAGED_LIMIT:
                raise
            continue
        if time.monotonic() >= end_s:
            return frame


if __name__ == "__main__":
    sys.exit(main())
