# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Short MP4 files of camera images, small enough to stand inside a report."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np

from koch_core.image import decode_image

FPS = 10
SHRINK = 2  # of the image's width and height
OPTIONS = {"crf": "28", "preset": "veryfast"}  # some 30 kB for each second of the simulated table


def write_clip(path: Path, jpegs: Iterable[bytes], fps: int = FPS) -> bool:
    """Write camera images as an MP4 that browsers play; False, and no file, without images.

    Args:
        path: The file.
        jpegs: Encoded images, all of one size.
        fps: Of the file.
    """
    images = iter(jpegs)
    first = next(images, None)
    if first is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # The index in front, so that a browser begins before it has all of the file.
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        small = _small(first)
        stream = container.add_stream("libx264", rate=fps, options=OPTIONS)
        stream.height, stream.width = small.shape[:2]
        stream.pix_fmt = "yuv420p"
        for image in (small, *map(_small, images)):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return True


def _small(jpeg: bytes) -> np.ndarray:
    """Decode and shrink; H.264 wants even sizes."""
    image = decode_image(jpeg)[::SHRINK, ::SHRINK]
    height, width = (size // 2 * 2 for size in image.shape[:2])
    return np.ascontiguousarray(image[:height, :width])
