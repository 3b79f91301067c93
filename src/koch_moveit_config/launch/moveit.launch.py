# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Starts move_group, and RViz with its panel, for a follower that the driver runs.

ros2 launch koch_moveit_config moveit.launch.py rig:=my_rig.yaml
"""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from koch_moveit_config.parameters import CONFIG, move_group_parameters
from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Build both nodes from the rig."""
    text = {name: LaunchConfiguration(name).perform(context) for name in ("rig", "arm", "rviz")}
    arm, parameters = move_group_parameters(text["rig"], text["arm"])
    for name in ("robot_description", "robot_description_semantic"):
        parameters[name] = ParameterValue(parameters[name], value_type=str)
    move_group = Node(
        package="moveit_ros_move_group",
        executable="move_group",
        namespace=arm,
        parameters=[parameters],
        output="screen",
    )
    if text["rviz"] != "true":
        return [move_group]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        namespace=arm,
        arguments=["-d", str(CONFIG / "moveit.rviz")],
        parameters=[parameters],
    )
    return [move_group, rviz]


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments and start the nodes once they are known."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("rig", default_value="", description="Rig file."),
            DeclareLaunchArgument("arm", default_value="", description="The rig's only follower."),
            DeclareLaunchArgument("rviz", default_value="true", choices=("true", "false")),
            OpaqueFunction(function=start),
        ]
    )
