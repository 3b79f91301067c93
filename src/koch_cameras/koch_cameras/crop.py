# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The part of a camera's image that a policy sees (`train.crops`), chosen by looking at it."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from koch_cameras.errors import CropError
from koch_core.image import Crop, Image, crop_slices

_RULERS = 8  # in each direction
_DIM = 0.35  # brightness of what a policy does not see
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_INK = (255, 255, 0)


def fractions(box_px: Sequence[int], image: Image) -> Crop:
    """Turn a box in pixels (left, top, width, height) into fractions, to a ten-thousandth.

    Raises:
        CropError: It is empty, or reaches beyond the image.
    """
    left, top, width, height = box_px
    rows, columns = image.shape[:2]
    is_inside = min(left, top) >= 0 and left + width <= columns and top + height <= rows
    if not is_inside or min(width, height) < 1:
        raise CropError(box_px, columns, rows)
    first_x, first_y = round(left / columns, 4), round(top / rows, 4)
    # Rounded twice it could reach beyond the image by a ten-thousandth.
    wide = min(round(width / columns, 4), round(1.0 - first_x, 4))
    high = min(round(height / rows, 4), round(1.0 - first_y, 4))
    return first_x, first_y, wide, high


def with_rulers(image: Image) -> Image:
    """Return the image with lines that bear their pixel numbers."""
    drawn = np.array(_coloured(image))
    height, width = drawn.shape[:2]
    for number in range(1, _RULERS):
        x, y = width * number // _RULERS, height * number // _RULERS
        cv2.line(drawn, (x, 0), (x, height - 1), _INK, 1)
        cv2.line(drawn, (0, y), (width - 1, y), _INK, 1)
        cv2.putText(drawn, str(x), (x + 2, 12), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
        cv2.putText(drawn, str(y), (2, y - 3), _FONT, 0.4, _INK, 1, cv2.LINE_AA)
    return drawn


def with_box(image: Image, box: Crop) -> Image:
    """Return the image, dark but for the box."""
    seen = _coloured(image)
    drawn: Image = (seen * _DIM).astype(np.uint8)
    height, width = seen.shape[:2]
    place = crop_slices(height, width, box)
    drawn[place] = seen[place]
    return drawn


def _coloured(image: Image) -> Image:
    return image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2)
