# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A simulated rig that leaves the machine time."""

from __future__ import annotations


def with_small_images(rig: str) -> str:
    """The text of config/rig.sim.yaml with images of 320 x 240 pixels.

    At 640 x 480 the simulated cameras take half of two slow cores, and then it is the machine
    that a test judges.
    """
    small = rig.replace("width: 640", "width: 320").replace("height: 480", "height: 240")
    assert small != rig
    return small
