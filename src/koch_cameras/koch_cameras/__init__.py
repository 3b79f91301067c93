# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Camera sources, the camera node and intrinsic calibration."""

from koch_cameras.capture_loop import Backoff, CaptureLoop, Delivery, LinkState
from koch_cameras.errors import CameraError
from koch_cameras.frame import CameraFrame, Encoding, TimeBase
from koch_cameras.intrinsics import Intrinsics, load_intrinsics, save_intrinsics
from koch_cameras.open_source import open_source, register_camera
from koch_cameras.source import FrameSource, Mode, Rotation, SourceConfig
from koch_cameras.watch import CameraReport, Expectation, StreamWatch

__all__ = [
    "Backoff",
    "CameraError",
    "CameraFrame",
    "CameraReport",
    "CaptureLoop",
    "Delivery",
    "Encoding",
    "Expectation",
    "FrameSource",
    "Intrinsics",
    "LinkState",
    "Mode",
    "Rotation",
    "SourceConfig",
    "StreamWatch",
    "TimeBase",
    "load_intrinsics",
    "open_source",
    "register_camera",
    "save_intrinsics",
]
