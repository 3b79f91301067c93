# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Turns the node graph into what launch_ros's Node action takes; imports launch only when asked.

The launch arguments are those of `koch up`, so that the launch file itself only wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from koch_core.options import from_launch, launch_arguments
from koch_vla.child import STAYS_DOWN
from koch_vla.graph import GraphOptions, NodeSpec, RigChoice, build_graph
from koch_vla.paths import default_rig
from koch_vla.preflight import check_files

#: Declared by the models of `koch up`.
LAUNCH_ARGUMENTS = launch_arguments(RigChoice, GraphOptions)


def graph_from_launch(values: Mapping[str, str]) -> tuple[NodeSpec, ...]:
    """Load the rig that the launch arguments name and work out its nodes.

    Raises:
        KochError: The rig or an argument is wrong.
    """
    from koch_rig.load import load_rig

    rig = load_rig(default_rig(from_launch(RigChoice, values).rig, sim=values["sim"] == "true"))
    options = from_launch(GraphOptions, values, **GraphOptions.surroundings())
    specs = build_graph(rig, options)
    check_files(rig, specs, options.params_file)
    return specs


def stays_down(returncode: int) -> bool:
    """Whether a node whose process ended so is not started again, as under `koch up`."""
    return returncode in STAYS_DOWN


def node_arguments(spec: NodeSpec) -> dict[str, Any]:
    """Return the keyword arguments of launch_ros.actions.Node for one node of the graph."""
    return {
        "package": spec.package,
        "executable": spec.executable,
        "name": spec.name,
        "namespace": spec.namespace,
        "parameters": [
            *([{k: _plain(v) for k, v in spec.parameters.items()}] if spec.parameters else []),
            *spec.parameter_files,
        ],
        "ros_arguments": ["--log-level", spec.log_level] if spec.log_level else [],
        "remappings": list(spec.remappings),
        "arguments": list(spec.arguments),
        "respawn": spec.respawn,
        "respawn_delay": spec.respawn_delay_s,
        "output": "screen",
        "emulate_tty": True,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
