# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Publishes episodes/status, five times a second and on each change, and /diagnostics."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from koch_interfaces.msg import EpisodeStatus, StreamHealth

from koch_core.health import Light
from koch_episodes.recorder.bag_thread import BagWriterThread
from koch_episodes.recorder.quality import Health, worst
from koch_episodes.recorder.session import RecorderPhase, RecorderSession
from koch_ros.qos import DIAGNOSTICS, LATCHED

if TYPE_CHECKING:
    from rclpy.node import Node

_TICKS = 4  # of 50 ms
_DIAGNOSTIC_TICKS = 20
_LEVEL = {
    Light.GREEN: DiagnosticStatus.OK,
    Light.AMBER: DiagnosticStatus.WARN,
    Light.RED: DiagnosticStatus.ERROR,
}


class RecorderStatusPublisher:
    """Turns session and stream health into messages."""

    def __init__(self, node: Node, session: RecorderSession, intake: BagWriterThread) -> None:
        self._node = node
        self._session = session
        self._intake = intake
        self._publisher = node.create_publisher(EpisodeStatus, "episodes/status", LATCHED)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._count = 0
        self._phase: RecorderPhase | None = None

    def tick(self) -> None:
        """Publish when it is time or the phase has changed."""
        self._count += 1
        if self._count % _TICKS == 0 or self._session.phase is not self._phase:
            self.publish()
        if self._count % _DIAGNOSTIC_TICKS == 0:
            self._diagnose()

    def _diagnose(self) -> None:
        """Say what stands in the way of a good episode, the last write error first."""
        session = self._session
        light, reason = self._judge(self._intake.health())
        if self._intake.error:
            light, reason = Light.RED, "; ".join(filter(None, (self._intake.error, reason)))
        values = {
            "phase": session.phase.name.lower(),
            "episodes_saved": session.shelf.saved,
            "disk_minutes_left": f"{session.disk.minutes_left:.0f}",
            "last_verdict": session.shelf.last_verdict,
        }
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        status = DiagnosticStatus(
            level=_LEVEL[light],
            name=f"{self._node.get_fully_qualified_name().lstrip('/')}: streams and disk",
            message=reason or session.phase.name.lower(),
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message.status = [status]
        self._diagnostics.publish(message)

    def _judge(self, health: list[Health]) -> tuple[Light, str]:
        """The worst of streams and disk, and why."""
        light, reason = worst(health)
        disk_light, disk_reason = self._session.disk.light()
        if disk_light >= light and disk_reason:
            return disk_light, "; ".join(filter(None, (disk_reason, reason)))
        return light, reason

    def publish(self) -> None:
        """Publish now."""
        session = self._session
        self._phase = session.phase
        health = self._intake.health()
        light, reason = self._judge(health)
        message = EpisodeStatus(
            phase=int(session.phase),
            episode_index=session.index,
            task=session.task,
            elapsed_s=float(session.elapsed_s),
            remaining_s=float(session.remaining_s),
            light=int(light),
            reason=reason,
            streams=[_stream(item) for item in health],
            disk_minutes_left=float(session.disk.minutes_left),
            episodes_saved=session.shelf.saved,
            last_verdict=session.shelf.last_verdict,
            path=session.path,
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)


def _stream(health: Health) -> StreamHealth:
    return StreamHealth(
        name=health.name,
        rate_hz=float(health.rate_hz),
        expected_hz=float(health.expected_hz),
        max_gap_s=float(health.max_gap_s),
        age_s=float(health.age_s) if math.isfinite(health.age_s) else math.inf,
        lost=health.lost,
        light=int(health.light),
        reason=health.reason,
    )
