# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Decoders and encoders: what one image leaves behind for the next, and in the process."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from koch_core.image import PacketDecoder
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.video import VideoSettings, VideoWriter
from koch_episodes.errors import VideoError


def test_a_png_shows_itself_whatever_was_decoded_before() -> None:
    decoder = PacketDecoder()
    for level in (10, 40, 90):
        image = np.full((16, 24, 3), level, np.uint8)
        image[:, :8] = 2 * level
        frame = decoder.decode(cv2.imencode(".png", image)[1].tobytes())
        assert np.array_equal(frame.to_ndarray(format="bgr24"), image)


def test_av1_leaves_no_thread_with_real_time_priority(tmp_path: Path) -> None:
    """SVT-AV1 gives itself priority 99 when root runs it; a conversion must not stop an arm."""
    image = np.zeros((64, 96, 3), np.uint8)
    writer = VideoWriter(tmp_path / "video.mp4", VideoSettings.for_codec(Codec.AV1), 30, 64, 96)
    for level in range(3):
        writer.write_rgb(image + level)
    threads = {int(path.name) for path in Path("/proc/self/task").iterdir()}
    policies = {os.sched_getscheduler(thread) for thread in threads}
    writer.close()
    assert os.SCHED_FIFO not in policies


@pytest.mark.parametrize(("codec", "preset"), [(Codec.H264, "nonsense"), (Codec.AV1, "99")])
def test_a_preset_that_no_encoder_knows_is_named(
    tmp_path: Path, codec: Codec, preset: str
) -> None:
    settings = replace(VideoSettings.for_codec(codec), preset=preset)
    with pytest.raises(VideoError, match=f"and preset '{preset}'"):
        VideoWriter(tmp_path / "video.mp4", settings, 30, 64, 96)
