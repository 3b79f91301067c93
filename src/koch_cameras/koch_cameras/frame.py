# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One image as it came from a source, with its acquisition time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt


class Encoding(Enum):
    """Layout of ``CameraFrame.data``; the value is the name in sensor_msgs/image_encodings."""

    JPEG = "jpeg"
    RGB8 = "rgb8"
    BGR8 = "bgr8"
    MONO8 = "mono8"
    YUYV = "yuv422_yuy2"
    UYVY = "yuv422"
    NV12 = "nv12"


class TimeBase(Enum):
    """Which clock ``CameraFrame.time_ns`` counts in."""

    MONOTONIC = "monotonic"
    """CLOCK_MONOTONIC of this computer: the kernel's buffer stamp, or the arrival."""
    SERVER = "server"
    """The clock of the server that sent X-Timestamp: Unix time, or simulation time."""


@dataclass(frozen=True, eq=False)
class CameraFrame:
    """One image; immutable.

    Attributes:
        sequence: Counted by the source where it is made; a jump of n+1 means n lost images.
        time_ns: Acquisition time in [ns] of ``time_base``.
        time_base: Clock of ``time_ns``.
        encoding: Layout of ``data``.
        width: Columns in [px], before rotation.
        height: Rows in [px], before rotation.
        data: JPEG bytes untouched, or a read-only uint8 array: (H, W, 3) for RGB8 and BGR8, (H, W)
            for MONO8, (H, W, 2) for YUYV and UYVY, (H*3/2, W) for NV12.
        full_range: For the YUV layouts: luma uses 0..255 (True) or 16..235 (False).
    """

    sequence: int
    time_ns: int
    time_base: TimeBase
    encoding: Encoding
    width: int
    height: int
    data: bytes | npt.NDArray[np.uint8]
    full_range: bool = True

    @property
    def jpeg(self) -> bytes | None:
        """The JPEG bytes, or None for a decoded image."""
        return self.data if isinstance(self.data, bytes) else None

    @property
    def pixels(self) -> npt.NDArray[np.uint8] | None:
        """The decoded image, or None for JPEG."""
        return None if isinstance(self.data, bytes) else self.data


def read_only(array: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Mark an array that no one else writes to as read-only and hand it on."""
    array.setflags(write=False)
    return array
