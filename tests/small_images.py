# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated rig that leaves the machine time."""

from __future__ import annotations

import re
from pathlib import Path


def with_small_images(rig: str) -> str:
    """The text of config/rig.sim.yaml with images of 320 x 240 pixels.

    At 640 x 480 the simulated cameras take half of two slow cores, and then it is the machine
    that a test judges.
    """
    small = rig.replace("width: 640", "width: 320").replace("height: 480", "height: 240")
    assert small != rig
    return small


def with_small_rig(folder: Path) -> Path:
    """Write config/rig.sim.yaml with small images into a folder, and return the file."""
    from koch_vla.nodes.running_graph import RIG_FILE

    text = with_small_images(RIG_FILE.read_text(encoding="utf-8"))
    text = re.sub(r"(calibration|intrinsics): ", rf"\1: {RIG_FILE.parent}/", text)
    file = folder / "rig.yaml"
    file.write_text(text, encoding="utf-8")
    return file
