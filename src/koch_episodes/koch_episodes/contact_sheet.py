# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How trials ended, as one image: their last images side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from koch_core.image import decode_image, save_image

_COLUMNS = 5
_SHRINK = 3  # of an image's width and height
_BORDER_PX = 4
_FRAMES = {True: (40, 170, 60), False: (200, 40, 40), None: (150, 150, 150)}


def write_contact_sheet(path: Path, images: Sequence[tuple[bytes, bool | None]]) -> None:
    """Write the final images as one PNG, framed green, red, or grey where no one judged.

    Args:
        path: The PNG.
        images: JPEG bytes and success of each trial, at least one; all of one size.
    """
    tiles = []
    for jpeg, success in images:
        rgb = decode_image(jpeg)[::_SHRINK, ::_SHRINK]
        height, width = (size + 2 * _BORDER_PX for size in rgb.shape[:2])
        tile = np.full((height, width, 3), _FRAMES[success], np.uint8)
        tile[_BORDER_PX:-_BORDER_PX, _BORDER_PX:-_BORDER_PX] = rgb
        tiles.append(tile)
    columns = min(_COLUMNS, len(tiles))
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % columns)
    rows = [np.hstack(tiles[i : i + columns]) for i in range(0, len(tiles), columns)]
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(path, np.vstack(rows))
