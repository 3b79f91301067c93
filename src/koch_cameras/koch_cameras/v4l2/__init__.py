# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Video4Linux2: USB cameras by the kernel's own interface."""

from koch_cameras.v4l2.device import Device, DeviceMode, Identity
from koch_cameras.v4l2.kernel import Kernel, LinuxKernel
from koch_cameras.v4l2.listing import VideoNode, list_nodes
from koch_cameras.v4l2.v4l2_source import V4l2Source

__all__ = [
    "Device",
    "DeviceMode",
    "Identity",
    "Kernel",
    "LinuxKernel",
    "V4l2Source",
    "VideoNode",
    "list_nodes",
]
