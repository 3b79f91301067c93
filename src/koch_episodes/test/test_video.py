# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Encoders: what they leave behind in the process."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.video import VideoSettings, VideoWriter


def test_av1_leaves_no_thread_with_real_time_priority(tmp_path: Path) -> None:
    """SVT-AV1 gives itself priority 99 when root runs it; a conversion must not stop an arm."""
    picture = np.zeros((64, 96, 3), np.uint8)
    writer = VideoWriter(tmp_path / "video.mp4", VideoSettings.for_codec(Codec.AV1), 30, 64, 96)
    for level in range(3):
        writer.write_rgb(picture + level)
    threads = {int(path.name) for path in Path("/proc/self/task").iterdir()}
    policies = {os.sched_getscheduler(thread) for thread in threads}
    writer.close()
    assert os.SCHED_FIFO not in policies
