# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Starts the node graph of a rig: the same nodes as `koch up`, from the same list.

ros2 launch koch_vla bringup.launch.py sim:=true
ros2 launch koch_vla bringup.launch.py rig:=my_rig.yaml record:=true rviz:=true
"""

from typing import Any

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction
from launch.events import matches_action
from launch.events.process import ProcessExited, ShutdownProcess
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from koch_vla.launch_nodes import (
    LAUNCH_ARGUMENTS,
    graph_from_launch,
    node_arguments,
    stays_down,
)
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def start_nodes(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Turn each node of the graph into a launch_ros action."""
    values = {
        argument.name: LaunchConfiguration(argument.name).perform(context)
        for argument in LAUNCH_ARGUMENTS
    }
    return [_action(node_arguments(spec)) for spec in graph_from_launch(values)]


def _action(arguments: dict[str, Any]) -> Node:
    # Typed, because launch would read a text such as a robot description as YAML.
    arguments["parameters"] = [
        {
            name: ParameterValue(value, value_type=str) if isinstance(value, str) else value
            for name, value in parameters.items()
        }
        if isinstance(parameters, dict)
        else parameters  # the path of a parameter file
        for parameters in arguments["parameters"]
    ]
    arguments["on_exit"] = _stay_down
    return Node(**arguments)


def _stay_down(event: ProcessExited, _: LaunchContext) -> list[LaunchDescriptionEntity] | None:
    """End the respawn of a node that ended well or whose configuration is wrong.

    Launch starts a respawned node again whatever its exit code. It waits for the delay first, and
    a node that is shut down meanwhile is not started.
    """
    if not stays_down(event.returncode):
        return None
    return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(event.action)))]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the graph once they are known."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=argument.choices,
        )
        for argument in LAUNCH_ARGUMENTS
    ]
    return LaunchDescription([*declared, OpaqueFunction(function=start_nodes)])
