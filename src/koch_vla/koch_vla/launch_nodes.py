# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Turns the node graph into what launch_ros's Node action takes; imports launch only when asked.

The launch arguments stand here as data, so that the launch file itself only wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_vla import paths
from koch_vla.child import STAYS_DOWN
from koch_vla.errors import GraphError
from koch_vla.graph import GraphOptions, NodeSpec, build_graph
from koch_vla.node_spec import LOG_LEVELS
from koch_vla.paths import package_prefix
from koch_vla.preflight import check_files
from koch_vla.settings import parse_setting


@dataclass(frozen=True)
class LaunchArgument:
    """A launch argument: name, default and description; `choices` are checked by launch."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] | None = None


BOOLEAN = ("true", "false")
LAUNCH_ARGUMENTS = (
    LaunchArgument("rig", "", "Rig file; empty for config/rig.yaml, or the simulated one."),
    LaunchArgument("sim", "false", "Use config/rig.sim.yaml where rig is empty.", BOOLEAN),
    LaunchArgument("teleop", "true", "Let each leader drive its follower.", BOOLEAN),
    LaunchArgument("record", "false", "Run the episode recorder.", BOOLEAN),
    LaunchArgument("record_root", "", "Folder of the recorder's episodes."),
    LaunchArgument("policy", "", "Checkpoint folder of a policy to run; empty for none."),
    LaunchArgument("strategy", "", "Chunk execution of the policy; empty for what suits it."),
    LaunchArgument("shadow", "false", "The policy computes, but does not command.", BOOLEAN),
    LaunchArgument("expert", "false", "The simulated hand moves the leader.", BOOLEAN),
    LaunchArgument("speed", "1.0", "Simulated seconds per second."),
    LaunchArgument("rviz", "false", "Start RViz.", BOOLEAN),
    LaunchArgument("set", "", "NODE.PARAMETER=VALUE, as in koch up --set; ; between several."),
    LaunchArgument("namespace", "", "Namespace of the whole rig; two rigs then share a graph."),
    LaunchArgument("ros2_control", "false", "Run ros2_control for each follower.", BOOLEAN),
    LaunchArgument("params_file", "", "ROS parameter file that every node reads last."),
    LaunchArgument("log_level", "", "Least severity that nodes log.", ("", *LOG_LEVELS)),
    LaunchArgument("only", "", "Run only these nodes, as in koch up --only; comma separated."),
)


def options_from_launch(values: Mapping[str, str]) -> GraphOptions:
    """Turn the texts of launch arguments into graph options.

    Raises:
        GraphError: The speed is not a number, or out of range; a setting cannot be read.
    """
    try:
        speed = float(values["speed"])
    except ValueError as error:
        raise GraphError(f"speed:={values['speed']}: expected a number such as 1.0.") from error
    rviz_config = paths.find_shared("config/rviz/koch.rviz")
    return GraphOptions(
        sim=True if values["sim"] == "true" else None,
        teleop=values["teleop"] == "true",
        record=values["record"] == "true",
        record_root=_absolute(values["record_root"]),
        policy=_absolute(values["policy"]),
        strategy=values["strategy"],
        shadow=values["shadow"] == "true",
        expert=values["expert"] == "true",
        speed=speed,
        rviz=values["rviz"] == "true",
        rviz_config=str(rviz_config) if rviz_config else "",
        ros_state_publisher=package_prefix("robot_state_publisher") is not None,
        settings=tuple(parse_setting(text) for text in values["set"].split(";") if text.strip()),
        only=tuple(name for name in values["only"].split(",") if name),
        namespace=values["namespace"],
        ros2_control=values["ros2_control"] == "true",
        params_file=_absolute(values["params_file"]),
        log_level=values["log_level"],
    )


def graph_from_launch(values: Mapping[str, str]) -> tuple[NodeSpec, ...]:
    """Load the rig that the launch arguments name and work out its nodes.

    Raises:
        KochError: The rig or an argument is wrong.
    """
    from koch_rig.load import load_rig

    named = values["rig"]
    sim = values["sim"] == "true"
    path = Path(named).expanduser().resolve() if named else paths.default_rig(sim=sim)
    rig = load_rig(path)
    options = options_from_launch(values)
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


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""
