# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One node of the graph as data, before anyone decides how to start it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")
ParameterValue = bool | int | float | str | tuple[str, ...] | tuple[float, ...]


@dataclass(frozen=True)
class NodeSpec:
    """A ROS node to run.

    Attributes:
        package: ROS package that installs the executable.
        executable: Name in `lib/<package>`.
        name: Node name.
        namespace: Absolute namespace, "/" for none.
        parameters: Parameters by name; start-up values.
        remappings: Pairs (from, to) of topic and service names.
        arguments: Command-line arguments before the ROS ones.
        respawn: Start again when the process ends without having been asked to.
        respawn_delay_s: First delay before a new start; it doubles with each quick failure.
        needs: Full names of the nodes that start before this one and stop after it.
        module: Python module run where no executable is installed.
        parameter_files: ROS parameter files; what they say wins over `parameters`.
        log_level: Least severity that the node logs, one of LOG_LEVELS; empty for ROS's default.
        has_node: Whether a ROS node of this name lives for as long as the process should; not so
            in the emulated servos, and in what does its work and ends.
    """

    package: str
    executable: str
    name: str
    namespace: str = "/"
    parameters: Mapping[str, ParameterValue] = field(default_factory=dict)
    remappings: tuple[tuple[str, str], ...] = ()
    arguments: tuple[str, ...] = ()
    respawn: bool = True
    respawn_delay_s: float = 1.0
    needs: tuple[str, ...] = ()
    module: str = ""
    parameter_files: tuple[str, ...] = ()
    log_level: str = ""
    has_node: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "parameters", MappingProxyType(dict(self.parameters)))
        if not self.namespace.startswith("/"):
            raise ValueError(f"namespace {self.namespace!r} of node {self.name!r} is not absolute")
        if not self.module:
            object.__setattr__(self, "module", f"{self.package}.nodes.{self.executable}")

    @property
    def full_name(self) -> str:
        """Namespace and name, such as /follower/driver."""
        return f"{self.namespace.rstrip('/')}/{self.name}"

    @property
    def label(self) -> str:
        """The full name without its leading slash, as printed before each output line."""
        return self.full_name[1:]

    @property
    def names(self) -> frozenset[str]:
        """All names that `--only` and `--set` accept for it, without leading slashes."""
        names = (self.label, self.name, self.package, self.executable, self.namespace.strip("/"))
        return frozenset(name for name in names if name)
