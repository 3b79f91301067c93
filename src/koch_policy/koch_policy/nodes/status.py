# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the policy node says about itself: status at 2 Hz and on change, diagnostics at 1 Hz."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from koch_interfaces.msg import PolicyStatus

from koch_policy.nodes.command_publisher import stamp
from koch_ros.qos import DIAGNOSTICS, STATE

if TYPE_CHECKING:
    from koch_policy.nodes.running_policy import RunningPolicy

_PERIOD_S = 0.5


class PolicyStatusPublisher:
    """Publishes `policy/status` and a line on `/diagnostics`."""

    def __init__(self, node: RunningPolicy) -> None:
        self._node = node
        self._publisher = node.create_publisher(PolicyStatus, "policy/status", STATE)
        self._diagnostics = node.create_publisher(DiagnosticArray, "/diagnostics", DIAGNOSTICS)
        self._published: tuple[int, str] | None = None
        self._shown: tuple[int, str] | None = None
        self._count = 0
        node.create_timer(_PERIOD_S, self._on_timer)

    def _state(self) -> tuple[int, str]:
        """State and its reason; asked at every tick, so nothing else is worked out here."""
        node, run = self._node, self._node.run
        if run is None or run.end is not None:
            return node.state, node.reason
        paused = run.pause_reason
        if paused:
            return PolicyStatus.PAUSED, paused
        return (PolicyStatus.SHADOW if run.settings.is_shadow else PolicyStatus.RUNNING), ""

    def message(self) -> PolicyStatus:
        """The present state."""
        node, run = self._node, self._node.run
        message = PolicyStatus()
        message.header.stamp = stamp(node.now_ns())
        message.state, message.reason = self._state()
        message.strategy, message.runtime = node.strategy, node.runtime
        message.delay_p50_s = node.delay.percentile(0.5)
        message.delay_p95_s = node.delay.percentile(0.95)
        message.chunk_age_s = -1.0
        if run is None:
            return message
        message.refusals = run.refusals
        message.steps_executed = run.steps
        if run.end is None:
            message.task = run.settings.task
            message.rate_hz = run.rate_hz()
            message.chunk_age_s = run.chunk_age_s
        return message

    def publish(self) -> PolicyStatus:
        """Publish the state now."""
        message = self.message()
        self._published = (message.state, message.reason)
        self._publisher.publish(message)
        return message

    def publish_change(self) -> None:
        """Publish the state if it is another than was last published."""
        if self._state() != self._published:
            self.publish()

    def _on_timer(self) -> None:
        message = self.publish()
        self._count += 1
        state = (message.state, message.reason)
        if state != self._shown and message.state == PolicyStatus.PAUSED:
            self._node.get_logger().info(f"paused: {message.reason}")
        self._shown = state
        if self._count % 2 == 0:
            self._diagnose(message)

    def _diagnose(self, message: PolicyStatus) -> None:
        run = self._node.run
        values: dict[str, object] = {
            "rate_hz": f"{message.rate_hz:.1f}",
            "delay_p50_ms": f"{1e3 * message.delay_p50_s:.1f}",
            "delay_p95_ms": f"{1e3 * message.delay_p95_s:.1f}",
            "strategy": message.strategy,
            "runtime": message.runtime,
        }
        if run is not None:
            values |= {
                "steps": run.steps,
                "skipped_steps": run.scheduler.skipped,
                "starved_steps": run.scheduler.starved,
                "expired_chunks": run.scheduler.expired,
                "refusals": run.refusals,
            }
        shadow = self._node.shadow_summary()
        if shadow:
            values["action_error"] = shadow
        aborted = message.state == PolicyStatus.ABORTED
        status = DiagnosticStatus(
            level=DiagnosticStatus.ERROR if aborted else DiagnosticStatus.OK,
            name="policy",
            message=message.reason or "ok",
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        array = DiagnosticArray(status=[status])
        array.header.stamp = message.header.stamp
        self._diagnostics.publish(array)
