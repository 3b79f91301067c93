# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Puts the health of a camera into a diagnostic message."""

from __future__ import annotations

from dataclasses import dataclass

from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from koch_cameras.capture_loop import LinkState
from koch_cameras.watch import CameraReport
from koch_core.health import Light


@dataclass(frozen=True)
class CameraFacts:
    """Facts beside link and stream.

    Attributes:
        refused: Images refused as not newer than the last.
        damaged: Images of which the decoder found damage.
        foreign_clock: The server's X-Timestamp counts from another epoch; arrival is used.
        sharers: Other cameras on the same USB controller, with its name, or "".
    """

    refused: int = 0
    damaged: int = 0
    foreign_clock: bool = False
    sharers: str = ""


def camera_status(
    name: str, source: str, link: LinkState, stream: CameraReport, extras: CameraFacts
) -> DiagnosticStatus:
    """Judge link and stream together; the reason that explains the others comes first."""
    reasons = list(stream.reasons)
    level = stream.light
    if not link.connected:
        level = Light.RED
        reasons.insert(0, link.error or "not connected yet")
    if extras.foreign_clock:
        level = max(level, Light.AMBER)
        reasons.append("server's X-Timestamp is on another clock, arrival time used")
    if extras.sharers and level is not Light.GREEN:
        reasons.append(f"shares {extras.sharers}")
    values = {
        "connected": link.connected,
        "mode": link.mode or "",
        "connections": link.connections,
        "frames": stream.frames,
        "rate [Hz]": f"{stream.rate_hz:.2f}",
        "jitter [ms]": f"{stream.jitter_s * 1e3:.2f}",
        "largest gap [ms]": f"{stream.max_gap_s * 1e3:.1f}",
        "age [ms]": f"{stream.age_s * 1e3:.1f}",
        "latency mean [ms]": f"{stream.latency_s * 1e3:.2f}",
        "latency max [ms]": f"{stream.max_latency_s * 1e3:.2f}",
        "lost by the source": stream.lost,
        "dropped by the node": link.overwritten,
        "damaged": link.corrupt + extras.damaged,
        "damaged now [%]": f"{stream.damaged_fraction * 100:.0f}",
        "refused as old": extras.refused,
        "identical for [s]": f"{stream.frozen_s:.1f}",
        "black": stream.black,
        "last error": link.error,
    }
    return DiagnosticStatus(
        level=bytes([level]),
        name=name,
        message="; ".join(reasons) or f"{stream.rate_hz:.1f} fps",
        hardware_id=source,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )
