# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the camera node: one dataclass, from which the ROS declarations are derived."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.node import Node


def _described(default: Any, text: str, low: float | None = None, high: float = 0.0) -> Any:
    return field(default=default, metadata={"text": text, "low": low, "high": high})


@dataclass(frozen=True)
class CameraParameters:
    """All parameters are read-only; ``rig`` and ``camera`` have no useful default."""

    rig: str = _described("", "Path of the rig file")
    camera: str = _described("", "Name of the camera in the rig")
    jpeg_quality: int = _described(90, "JPEG quality where encoding is needed", 1, 100)
    timeout_s: float = _described(2.0, "Silence [s] after which the source is reopened", 0.1, 60.0)
    loop: bool = _described(True, "A file starts again at its end: a camera has none")
    frozen_after_s: float = _described(
        2.0,
        "Identical pictures for so long [s] are a frozen camera; 0 = not watched. Not used for a "
        "simulated rig, where a still scene is identical",
        0.0,
        3600.0,
    )
    max_latency_s: float = _described(0.2, "Latency [s] above which is warned", 0.0, 60.0)
    reconnect_longest_s: float = _described(4.0, "Longest wait [s] between attempts", 0.25, 60.0)


def declare(node: Node) -> CameraParameters:
    """Declare all parameters on a node and read them."""
    values = {}
    for item in fields(CameraParameters):
        descriptor = ParameterDescriptor(description=item.metadata["text"], read_only=True)
        low, high = item.metadata["low"], item.metadata["high"]
        if low is not None and isinstance(item.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(low), to_value=float(high))
            ]
        elif low is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
        values[item.name] = node.declare_parameter(item.name, item.default, descriptor).value
    return CameraParameters(**values)
