# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the camera node: one dataclass, from which the ROS declarations follow."""

from __future__ import annotations

from dataclasses import dataclass

from koch_core.options import same_as
from koch_ros.parameters import parameter
from koch_ros.shared_options import RIG


@dataclass(frozen=True)
class CameraParameters:
    """All parameters are read-only."""

    rig: str = same_as(RIG, "")
    camera: str = parameter("", "name of the camera in the rig", required=True)
    jpeg_quality: int = parameter(90, "JPEG quality where encoding is needed", low=1, high=100)
    timeout_s: float = parameter(
        2.0, "silence after which the source is reopened [s]", low=0.1, high=60.0
    )
    loop: bool = parameter(True, "a file starts again at its end: a camera has none")
    frozen_after_s: float = parameter(
        2.0,
        "identical images for so long are a frozen camera [s]; 0 = not watched. Not used for a "
        "simulated rig, where a still scene is identical",
        low=0.0,
        high=3600.0,
    )
    max_latency_s: float = parameter(0.2, "latency above which is warned [s]", low=0.0, high=60.0)
    reconnect_longest_s: float = parameter(
        4.0, "longest wait between attempts [s]", low=0.25, high=60.0
    )
