# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One image of every device on one sheet, to learn which is which."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from koch_cameras.errors import CameraError
from koch_cameras.frame import CameraFrame
from koch_cameras.image import pixels
from koch_cameras.source import FrameSource, SourceConfig
from koch_cameras.v4l2.listing import VideoNode
from koch_core.image import save_image
from koch_rig.rig import Camera, ColorMode

TILE_WIDTH, TILE_HEIGHT, LABEL_HEIGHT = 480, 360, 56
COLUMNS = 3
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LETTERS = 58  # that a line of a label holds
Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Candidate:
    """Something that may give images.

    Attributes:
        place: What a rig file's `source` would say.
        name: What the device or the rig calls it.
        config: How to open it.
        cameras: Names of the rig's cameras that have this source.
    """

    place: str
    name: str
    config: SourceConfig
    cameras: tuple[str, ...] = ()

    @property
    def used_by(self) -> str:
        """Which camera of the rig it is."""
        return f"rig: {', '.join(self.cameras)}" if self.cameras else "in no rig yet"


@dataclass(frozen=True, eq=False)
class ShownCamera:
    """What came of a candidate: an image, RGB uint8 (H, W, 3), or why there is none."""

    candidate: Candidate
    image: Image | None
    problem: str = ""


def candidates(nodes: Iterable[VideoNode], cameras: Iterable[Camera]) -> list[Candidate]:
    """Every device of this computer, then what the rig has besides: files and URLs."""
    rest = {camera.name: camera for camera in cameras}
    found = []
    for node in nodes:
        place = node.by_id[0] if node.by_id else node.path
        names = [name for name, camera in rest.items() if _is_same(camera.source, node.path)]
        found.append(Candidate(place, node.name, SourceConfig(node.path), tuple(names)))
        rest = {name: camera for name, camera in rest.items() if name not in names}
    for name, camera in rest.items():
        found.append(Candidate(str(camera.source), name, SourceConfig.from_rig(camera), (name,)))
    return found


def _is_same(source: int | str, device: str) -> bool:
    place = f"/dev/video{source}" if str(source).isdigit() else str(source)
    return os.path.realpath(place) == os.path.realpath(device)


def look_through(
    wanted: Iterable[Candidate],
    open_one: Callable[[SourceConfig], FrameSource],
    newest: Callable[[FrameSource], CameraFrame],
) -> list[ShownCamera]:
    """Take an image of each, one after the other: two at once may be too much for a USB bus."""
    shown = []
    for candidate in wanted:
        try:
            source = open_one(candidate.config)
            try:
                frame = newest(source)
            finally:
                source.close()
            image = pixels(candidate.place, frame, candidate.config.rotation, ColorMode.RGB)
            if image.ndim == 2:
                image = np.repeat(image[:, :, None], 3, axis=2)
            shown.append(ShownCamera(candidate, image))
        except CameraError as exc:
            shown.append(ShownCamera(candidate, None, str(exc)))
    return shown


def draw(shown: Sequence[ShownCamera], path: Path) -> None:
    """Write the sheet.

    Raises:
        KochError: The file cannot be written.
    """
    tiles = [_tile(item) for item in shown]
    columns = min(COLUMNS, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    save_image(path, np.vstack(rows))


def _tile(item: ShownCamera) -> Image:
    tile = np.full((TILE_HEIGHT + LABEL_HEIGHT, TILE_WIDTH, 3), 255, np.uint8)
    place = item.candidate.place
    short = place if len(place) < _LETTERS else f"...{place[3 - _LETTERS :]}"
    for row, text in enumerate((short, f"{item.candidate.name}   {item.candidate.used_by}")):
        _write(tile, text, 20 + 24 * row)
    if item.image is None:
        tile[LABEL_HEIGHT:] = 225
        for row in range(6):
            part = item.problem[row * _LETTERS : (row + 1) * _LETTERS]
            _write(tile, part, LABEL_HEIGHT + 40 + 24 * row)
        return tile
    height, width = item.image.shape[:2]
    scale = min(TILE_WIDTH / width, TILE_HEIGHT / height)
    small = cv2.resize(item.image, (round(scale * width), round(scale * height)))
    tile[LABEL_HEIGHT : LABEL_HEIGHT + small.shape[0], : small.shape[1]] = small
    return tile


def _write(tile: Image, text: str, y: int) -> None:
    cv2.putText(tile, text, (8, y), _FONT, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
