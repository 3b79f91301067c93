# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters of the recorder node."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from rcl_interfaces.msg import FloatingPointRange, ParameterDescriptor, ParameterType

from koch_rig.errors import KochError

if TYPE_CHECKING:
    from rclpy.node import Node


class ParameterMissingError(KochError):
    """A parameter that has no default was not given."""

    def __init__(self, name: str, what: str) -> None:
        super().__init__(f"Parameter '{name}' is empty: expected the {what}.")


def _described(
    default: Any, text: str, *, live: bool = False, low: float | None = None, high: float = 0.0
) -> Any:
    return field(default=default, metadata={"text": text, "live": live, "low": low, "high": high})


@dataclass(frozen=True)
class RecorderParameters:
    """Parameters; those marked live may be set while the node runs."""

    rig: str = _described("", "path of the rig file")
    root: str = _described("", "folder of the episodes; empty: ~/koch_episodes/<rig>")
    start_timeout_s: float = _described(
        10.0, "how long a start waits for dead streams [s]", live=True, low=0.1, high=3600.0
    )
    reset_time_s: float = _described(
        0.0, "pause behind each episode [s]; a start ends it", live=True, low=0.0, high=3600.0
    )
    discard_red: bool = _described(False, "red episodes go to the trash", live=True)
    disk_reserve_mb: float = _described(
        500.0, "recording stops when less than this is free [MB]", low=0.0, high=1e7
    )
    extra_topics: tuple[str, ...] = _described((), "more topics to record")


LIVE = tuple(item.name for item in fields(RecorderParameters) if item.metadata["live"])


def declare(node: Node) -> RecorderParameters:
    """Declare the parameters on a node and read them.

    Raises:
        ParameterMissingError: No rig file is given.
    """
    values: dict[str, Any] = {}
    for item in fields(RecorderParameters):
        meta = item.metadata
        descriptor = ParameterDescriptor(description=meta["text"], read_only=not meta["live"])
        if meta["low"] is not None:
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=float(meta["low"]), to_value=float(meta["high"]))
            ]
        default = item.default
        if isinstance(default, tuple):
            default = [""]  # an empty list would have no type
            descriptor.type = ParameterType.PARAMETER_STRING_ARRAY
        value = node.declare_parameter(item.name, default, descriptor).value
        values[item.name] = tuple(value or ()) if isinstance(item.default, tuple) else value
    parameters = RecorderParameters(**values)
    if not parameters.rig:
        raise ParameterMissingError("rig", "path of a rig file")
    return parameters
