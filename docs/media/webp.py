# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writes the moving images of the README."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def save(
    path: Path,
    images: Sequence[Image.Image],
    durations_ms: Sequence[int],
    *,
    quality: int,
    most: int,
) -> None:
    """Write images as one file that repeats, of at most so many bytes."""
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=list(durations_ms),
        loop=0,
        quality=quality,
        method=4,
    )
    size = path.stat().st_size
    assert size < most, f"{path} has {size} bytes"
    print(f"{path}: {len(images)} images, {size} bytes")
