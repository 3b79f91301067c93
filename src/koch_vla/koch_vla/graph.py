# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The node graph as data: which nodes a rig needs, with their names and parameters.

`koch up` and `launch/bringup.launch.py` both run what `build_graph` returns; neither knows a
node that the other does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.options import OptionModel, option, same_as
from koch_rig.rig import PhysicsKind, Role
from koch_ros.shared_options import (
    CHECKPOINT,
    EPISODE_ROOT,
    EXPERT,
    RIG,
    SHADOW,
    SPEED,
    STRATEGY,
    absolute,
)
from koch_ros.shared_topics import NAMESPACE_VARIABLE, SHARED_TOPICS
from koch_vla import ghost
from koch_vla.errors import GraphError, NotSimulatedError, UnknownNodeError
from koch_vla.node_spec import LOG_LEVELS, NodeSpec, ParameterValue
from koch_vla.paths import find_shared, package_prefix
from koch_vla.settings import Setting, apply_settings, parse_setting

if TYPE_CHECKING:
    from koch_rig.rig import Rig

__all__ = ["GraphOptions", "NodeSpec", "build_graph", "start_order"]

STATE_PUBLISHER = "robot_state_publisher"
_NAMESPACE = re.compile(r"[A-Za-z_]\w*(/[A-Za-z_]\w*)*", re.ASCII)


@dataclass(frozen=True)
class RigChoice(OptionModel):
    """Which rig."""

    rig: Path | None = same_as(
        RIG, None, text="rig file (default: $KOCH_RIG, config/rig.yaml, or the simulated one)"
    )


@dataclass(frozen=True)
class GraphOptions(OptionModel):
    """What of a rig is to run: options of `koch up` and arguments of the launch file alike.

    Attributes:
        rviz_config: The file for RViz.
        ros_state_publisher: The package robot_state_publisher is installed and is to be used.
    """

    sim: bool | None = option(
        None, "use config/rig.sim.yaml; --no-sim: a simulated rig whose world runs elsewhere"
    )
    teleop: bool = option(True, "let each leader drive its follower")
    jog: bool = option(
        False, "move each follower's hand by speeds, of keys or a gamepad, in place of its leader"
    )
    record: bool = option(False, "run the episode recorder")
    record_root: str = same_as(EPISODE_ROOT, "")
    policy: str = same_as(CHECKPOINT, "", text="run the policy of a checkpoint or training output")
    strategy: str = same_as(STRATEGY, "")
    shadow: bool = same_as(SHADOW, False)
    expert: bool = same_as(EXPERT, False)
    speed: float = same_as(SPEED, 1.0)
    rviz: bool = option(False, "start RViz")
    console: bool = option(False, "serve the console in the browser")
    settings: tuple[Setting, ...] = option(
        (),
        "a parameter of a node, such as follower/driver.on_exit=rest (repeatable)",
        flags=("--set",),
        metavar="NODE.PARAMETER=VALUE",
        parse=parse_setting,
    )
    only: tuple[str, ...] = option(
        (),
        "run only these nodes, named by node, package, namespace or executable",
        metavar="NAME[,NAME]",
    )
    namespace: str = option(
        "",
        f"namespace of the whole rig, so that two share a graph (default: ${NAMESPACE_VARIABLE}, "
        "which the other subcommands read)",
        metavar="NAME",
    )
    ros2_control: bool = option(False, "run ros2_control for each follower")
    params_file: str = option(
        "", "ROS parameters that every node reads last", metavar="FILE", parse=absolute
    )
    log_level: str = option("", "least severity that nodes log", choices=LOG_LEVELS)
    rviz_config: str = ""
    ros_state_publisher: bool = False

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            GraphError: Options do not fit each other.
        """
        super().__post_init__()
        if self.namespace.strip("/") and not _NAMESPACE.fullmatch(self.namespace.strip("/")):
            raise GraphError(
                f"namespace {self.namespace}: expected words of letters, digits and underscores, "
                "none beginning with a digit, joined by slashes; such as left_table."
            )
        if self.ros2_control and not self.ros_state_publisher:
            raise GraphError(
                "ros2_control needs a ROS installation that has robot_state_publisher. Install "
                " ros-$ROS_DISTRO-{robot-state-publisher,ros2-control,ros2-controllers,"
                "joint-state-topic-hardware-interface} and source ROS."
            )

    @classmethod
    def refuse(cls, name: str, got: object, expected: str, hint: str = "") -> Exception:
        """The error of a wrong value."""
        return GraphError(str(super().refuse(name, got, expected, hint)))

    @staticmethod
    def surroundings() -> dict[str, Any]:
        """The fields that no option sets: what is installed here."""
        rviz_config = find_shared("config/rviz/koch.rviz")
        return {
            "rviz_config": str(rviz_config) if rviz_config else "",
            "ros_state_publisher": package_prefix("robot_state_publisher") is not None,
        }


def build_graph(rig: Rig, options: GraphOptions | None = None) -> tuple[NodeSpec, ...]:
    """Work out the nodes of a rig, in an order in which they can be started.

    Raises:
        GraphError: The options do not fit the rig, or `only` or a setting names nothing that
            exists.
    """
    options = options or GraphOptions()
    world = _world(rig, options)
    needs = tuple(node.full_name for node in world)
    nodes = [
        *world,
        *_drivers(rig, needs),
        *(_jog(rig) if options.jog else _teleop(rig) if options.teleop else []),
        *_cameras(rig, needs),
        *_state_publishers(rig, options),
        *(_ros2_control(rig) if options.ros2_control else []),
        *_learning(rig, options),
        *_viewer(options),
        *_console(rig, options),
    ]
    if options.speed != 1.0:
        clock = {node.full_name for node in world}
        nodes = [node if node.full_name in clock else _on_sim_time(node) for node in nodes]
    nodes = [_told(node, options) for node in apply_settings(nodes, options.settings)]
    chosen = _select(nodes, options.only)
    return start_order([_within(options.namespace.strip("/"), node) for node in chosen])


def _within(namespace: str, node: NodeSpec) -> NodeSpec:
    """A node in the namespace of its rig.

    Topics that ROS gives absolute names move as well, so that two rigs can share a graph: each has
    its own transforms (as with Nav2's robots, frames keep their names), clock and diagnostics.
    """
    if not namespace:
        return node
    moved = tuple((name, f"/{namespace}{name}") for name in SHARED_TOPICS)
    targets = tuple(
        (name, f"/{namespace}{target}" if target.startswith("/") else target)
        for name, target in node.remappings
    )
    return replace(
        node,
        namespace=f"/{namespace}{node.namespace.rstrip('/')}",
        needs=tuple(f"/{namespace}{need}" for need in node.needs),
        remappings=(*targets, *moved),
    )


def _world(rig: Rig, options: GraphOptions) -> list[NodeSpec]:
    """The process that stands for the hardware: none, emulated servos alone, or MuJoCo."""
    simulation = rig.simulation
    if simulation is None:
        for asked, option in (
            (options.sim, "sim"),
            (options.expert, "expert"),
            (options.speed != 1.0, "speed"),
        ):
            if asked:
                raise NotSimulatedError(rig.path, option)
        return []
    if options.sim is False:
        return []
    if simulation.physics is PhysicsKind.FIRST_ORDER:
        if options.speed != 1.0:
            raise GraphError(
                f"--speed {options.speed:g}: the servos of {rig.path} are emulated in real time; "
                "expected a rig with `simulation: {physics: mujoco}`, such as config/rig.sim.yaml."
            )
        return [
            NodeSpec(
                package="koch_driver",
                executable="emulator",
                name="emulator",
                arguments=("--rig", str(rig.path)),
                module="koch_driver.emulator",
                has_node=False,
            )
        ]
    parameters: dict[str, ParameterValue] = {
        "rig": str(rig.path),
        "seed": int(simulation.seed),
        "speed": float(options.speed),
        "expert": options.expert,
    }
    return [NodeSpec("koch_sim", "world", "world", parameters=parameters)]


def _drivers(rig: Rig, needs: tuple[str, ...]) -> list[NodeSpec]:
    return [
        NodeSpec(
            package="koch_driver",
            executable=arm.role.value,
            name="driver",
            namespace=f"/{arm.name}",
            parameters={"rig": str(rig.path), "arm": arm.name},
            needs=needs,
        )
        for arm in rig.arms.values()
    ]


def _teleop(rig: Rig) -> list[NodeSpec]:
    return [
        NodeSpec(
            package="koch_driver",
            executable="teleop",
            name="teleop",
            namespace=f"/{arm.drives}",
            parameters={"rig": str(rig.path), "leader": arm.name},
            needs=(f"/{arm.drives}/driver", f"/{arm.name}/driver"),
        )
        for arm in rig.arms.values()
        if arm.role is Role.LEADER and arm.drives
    ]


def _jog(rig: Rig) -> list[NodeSpec]:
    return [
        NodeSpec(
            package="koch_driver",
            executable="jog",
            name="teleop",
            namespace=f"/{arm.name}",
            parameters={"rig": str(rig.path), "arm": arm.name},
            needs=(f"/{arm.name}/driver",),
        )
        for arm in rig.arms.values()
        if arm.role is Role.FOLLOWER
    ]


def _cameras(rig: Rig, needs: tuple[str, ...]) -> list[NodeSpec]:
    return [
        NodeSpec(
            package="koch_cameras",
            executable="camera",
            name=name,
            namespace="/cameras",
            parameters={"rig": str(rig.path), "camera": name},
            needs=needs,
        )
        for name in rig.cameras
    ]


def _state_publishers(rig: Rig, options: GraphOptions) -> list[NodeSpec]:
    """ROS's own publisher where it is installed, one for each arm; else ours for all arms."""
    if not options.ros_state_publisher:
        return [
            NodeSpec(
                package="koch_vla",
                executable="state_publisher",
                name=STATE_PUBLISHER,
                parameters={"rig": str(rig.path)},
            )
        ]
    from koch_rig.model import world_camera_arm

    publishers = [
        NodeSpec(
            package=STATE_PUBLISHER,
            executable=STATE_PUBLISHER,
            name=STATE_PUBLISHER,
            namespace=f"/{arm}",
            parameters={
                "robot_description": _description(rig, arm, options),
                "publish_frequency": 30.0,
            },
            remappings=(("robot_description", "/robot_description"),)
            if arm == world_camera_arm(rig)
            else (),
        )
        for arm in rig.arms
    ]
    if options.policy:
        publishers += _ghost_publishers(rig)
    return publishers


def _description(rig: Rig, arm: str, options: GraphOptions) -> str:
    """URDF of an arm; a follower's has the ros2_control tag where a controller manager runs."""
    from koch_rig.model import published_urdf

    if options.ros2_control and rig.arm(arm).role is Role.FOLLOWER:
        from koch_ros2_control import robot_description

        described: str = robot_description(rig, arm, f"/{options.namespace.strip('/')}")
        return described
    return published_urdf(rig, arm)


def _ros2_control(rig: Rig) -> list[NodeSpec]:
    """A controller manager for each follower, and what loads its controllers and ends."""
    from koch_rig.model import world_camera_arm
    from koch_ros2_control import ACTIVE_CONTROLLERS, LOADED_CONTROLLERS, controllers_file

    nodes = []
    for arm in rig.arms.values():
        if arm.role is not Role.FOLLOWER:
            continue
        space = f"/{arm.name}"
        file = str(controllers_file(arm.joint_prefix))
        described = "/robot_description" if arm.name == world_camera_arm(rig) else ""
        nodes.append(
            NodeSpec(
                package="controller_manager",
                executable="ros2_control_node",
                name="controller_manager",
                namespace=space,
                remappings=(("robot_description", described),) if described else (),
                parameter_files=(file,),
                needs=(f"{space}/driver",),
            )
        )
        for name, controllers, options in (
            ("active", ACTIVE_CONTROLLERS, ()),
            ("loaded", LOADED_CONTROLLERS, ("--inactive",)),
        ):
            nodes.append(
                NodeSpec(
                    package="controller_manager",
                    executable="spawner",
                    name=f"spawner_{name}",
                    namespace=space,
                    arguments=(*controllers, *options, "--param-file", file),
                    needs=(f"{space}/controller_manager",),
                    has_node=False,
                )
            )
    return nodes


def _ghost_publishers(rig: Rig) -> list[NodeSpec]:
    """What shows the arms where the policy will have them: more robots behind `ghost/`."""
    urdfs = ghost.ghost_urdfs(rig)
    if not urdfs:
        return []
    alone = len(urdfs) == 1
    return [
        *(
            NodeSpec(
                package=STATE_PUBLISHER,
                executable=STATE_PUBLISHER,
                name=STATE_PUBLISHER,
                namespace="/policy/ghost" if alone else f"/policy/ghost/{arm}",
                parameters={
                    "robot_description": urdf,
                    "publish_frequency": 30.0,
                    "frame_prefix": ghost.PREFIX,
                },
                # One message carries all arms.
                remappings=() if alone else (("joint_states", f"/{ghost.TOPIC}"),),
            )
            for arm, urdf in urdfs.items()
        ),
        NodeSpec(
            package="tf2_ros",
            executable="static_transform_publisher",
            name="ghost_world",
            namespace="/policy",
            arguments=("--frame-id", "world", "--child-frame-id", f"{ghost.PREFIX}world"),
        ),
    ]


def _learning(rig: Rig, options: GraphOptions) -> list[NodeSpec]:
    nodes = []
    if options.record:
        parameters: dict[str, ParameterValue] = {"rig": str(rig.path)}
        if options.record_root:
            parameters["root"] = options.record_root
        nodes.append(NodeSpec("koch_episodes", "recorder", "recorder", parameters=parameters))
    if options.policy:
        parameters = {"rig": str(rig.path), "checkpoint": options.policy}
        if options.strategy:
            parameters["strategy"] = options.strategy
        parameters["shadow"] = options.shadow
        nodes.append(NodeSpec("koch_policy", "policy", "policy", parameters=parameters))
    return nodes


def _viewer(options: GraphOptions) -> list[NodeSpec]:
    if not options.rviz:
        return []
    arguments = ("-d", options.rviz_config) if options.rviz_config else ()
    return [NodeSpec("rviz2", "rviz2", "rviz2", arguments=arguments, respawn=False)]


def _console(rig: Rig, options: GraphOptions) -> list[NodeSpec]:
    """The page; it ends with no episode lost, so it stays up on its own."""
    if not options.console:
        return []
    parameters: dict[str, ParameterValue] = {"rig": str(rig.path)}
    if options.record_root:
        parameters["root"] = options.record_root
    return [NodeSpec("koch_console", "console", "console", parameters=parameters)]


def _told(node: NodeSpec, options: GraphOptions) -> NodeSpec:
    """A node with what the options say to every node."""
    files = (*node.parameter_files, *([options.params_file] if options.params_file else []))
    return replace(node, parameter_files=files, log_level=options.log_level)


def _on_sim_time(node: NodeSpec) -> NodeSpec:
    return replace(node, parameters={**node.parameters, "use_sim_time": True})


def _select(nodes: list[NodeSpec], only: Iterable[str]) -> list[NodeSpec]:
    """Keep the nodes that one of the names in `only` stands for; commas may join names."""
    wanted = [name.strip("/ ") for text in only for name in text.split(",") if name.strip("/ ")]
    if not wanted:
        return nodes
    for name in wanted:
        if not any(name in node.names for node in nodes):
            known = sorted(set().union(*(node.names for node in nodes)))
            raise UnknownNodeError("--only", name, known)
    return [node for node in nodes if not node.names.isdisjoint(wanted)]


def start_order(nodes: Iterable[NodeSpec]) -> tuple[NodeSpec, ...]:
    """Sort nodes so that each is behind those that it needs; otherwise keep the order.

    Needed nodes that are not in the list are someone else's business.

    Raises:
        GraphError: Two nodes share a full name, or nodes need each other.
    """
    waiting = list(nodes)
    names = [node.full_name for node in waiting]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise GraphError(f"Two nodes of the graph have the same name: {', '.join(sorted(twice))}.")
    present = set(names)
    ordered: list[NodeSpec] = []
    done: set[str] = set()
    while waiting:
        ready = [
            node for node in waiting if all(n in done or n not in present for n in node.needs)
        ]
        if not ready:
            circle = ", ".join(node.full_name for node in waiting)
            raise GraphError(f"These nodes need each other, so none can start: {circle}.")
        ordered.extend(ready)
        done.update(node.full_name for node in ready)
        waiting = [node for node in waiting if node.full_name not in done]
    return tuple(ordered)
