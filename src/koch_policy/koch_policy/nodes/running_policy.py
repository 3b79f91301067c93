# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a policy node shows to the parts that serve its action and report its status."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from koch_interfaces.msg import PolicyStatus

    from koch_policy.chunks import DelayQuantile
    from koch_policy.execution import PolicyRun
    from koch_policy.execution.takeover import Takeovers
    from koch_policy.nodes.command_publisher import CommandPublisher
    from koch_policy.nodes.parameters import PolicyParameters


class StatusReport(Protocol):
    """Says how the node is."""

    def message(self) -> PolicyStatus:
        """The present state."""

    def publish(self) -> PolicyStatus:
        """Publish the state now."""


class RunningPolicy(Protocol):
    """The policy node, as far as its parts see it.

    Attributes:
        run: The newest run; None before the first.
        state: Of koch_interfaces/msg/PolicyStatus, while no run is under way.
        reason: Why.
        strategy: Of chunk execution.
        runtime: What computes.
        settings: The node's parameters.
        delay: Of inferences.
        outputs: Where commands go.
        takeover: Who drives each arm.
        status: Reports the above.
    """

    run: PolicyRun | None
    state: int
    reason: str
    strategy: str
    runtime: str
    settings: PolicyParameters
    delay: DelayQuantile
    outputs: CommandPublisher
    takeover: Takeovers
    status: StatusReport

    @property
    def blocked(self) -> str:
        """Why no run may begin now; empty when one may."""

    def begin(self, task: str, max_duration_s: float, strategy: str) -> PolicyRun:
        """Begin a run; raises PolicyError."""

    def shadow_summary(self) -> str:
        """Errors against the human, for people; empty outside shadow mode."""

    def now_ns(self) -> int:
        """ROS time [ns]."""

    # Of rclpy's Node.
    def create_publisher(self, *args: Any) -> Any: ...
    def create_timer(self, *args: Any) -> Any: ...
    def count_publishers(self, topic: str) -> int: ...
    def get_logger(self) -> Any: ...
    def get_namespace(self) -> str: ...
