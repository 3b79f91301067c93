# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Films of camera images: as long as they should be, and of the right colours."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import simplejpeg

from koch_episodes.clip import FPS, write_clip


@pytest.mark.parametrize(("width", "height"), [(640, 480), (322, 242), (96, 50)])
def test_a_film_has_every_image(tmp_path: Path, width: int, height: int) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = 220  # red on the left
    path = tmp_path / "deep" / "film.mp4"
    assert write_clip(path, [simplejpeg.encode_jpeg(image)] * (2 * FPS))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == FPS
    assert len(frames) == 2 * FPS
    assert frames[0].shape[0] == height // 4 * 2
    left, right = frames[0][:, : width // 8], frames[0][:, -width // 8 :]
    assert left[..., 0].mean() > 150 > 60 > right[..., 0].mean()


def test_no_images_make_no_film(tmp_path: Path) -> None:
    assert not write_clip(tmp_path / "film.mp4", [])
    assert not (tmp_path / "film.mp4").exists()
