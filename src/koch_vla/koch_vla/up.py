# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch up`: runs the node graph of a rig under the supervisor."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.terminal import CommandLine, complain, say
from koch_ros.shared_topics import NAMESPACE_VARIABLE, chosen_namespace
from koch_vla import paths
from koch_vla.errors import OutputFileError
from koch_vla.graph import GraphOptions, NodeSpec, build_graph
from koch_vla.node_spec import LOG_LEVELS
from koch_vla.output import PrefixedOutput
from koch_vla.paths import package_prefix
from koch_vla.preflight import check_files
from koch_vla.settings import parse_setting
from koch_vla.supervisor import Supervisor, stop_on_signals

if TYPE_CHECKING:
    from koch_rig.rig import Rig


def add_graph_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments that choose a rig and what of it runs."""
    parser.add_argument(
        "--rig", type=Path, metavar="FILE", help="rig file (default: config/rig.yaml)"
    )
    parser.add_argument(
        "--sim",
        action=argparse.BooleanOptionalAction,
        help="use config/rig.sim.yaml; --no-sim: a simulated rig whose world runs elsewhere",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME[,NAME]",
        help="run only these nodes, named by node, package, namespace or executable",
    )
    parser.add_argument("--record", action="store_true", help="run the episode recorder")
    parser.add_argument("--record-root", default="", metavar="DIR", help="folder of its episodes")
    parser.add_argument(
        "--policy", default="", metavar="DIR", help="run the policy of a checkpoint"
    )
    parser.add_argument("--strategy", default="", help="chunk execution of the policy")
    parser.add_argument("--shadow", action="store_true", help="policy computes, does not command")
    parser.add_argument("--expert", action="store_true", help="simulated hand moves the leader")
    parser.add_argument(
        "--speed", type=float, default=1.0, metavar="X", help="simulated seconds per second"
    )
    parser.add_argument("--rviz", action="store_true", help="start RViz")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="settings",
        metavar="NODE.PARAMETER=VALUE",
        help="a parameter of a node, such as follower/driver.on_exit=rest (repeatable)",
    )
    parser.add_argument(
        "--namespace",
        default=chosen_namespace(),
        metavar="NAME",
        help=f"namespace of the whole rig, so that two share a graph (default: "
        f"${NAMESPACE_VARIABLE}, which the other subcommands read)",
    )
    parser.add_argument(
        "--ros2-control", action="store_true", help="run ros2_control for each follower"
    )
    parser.add_argument(
        "--params-file", default="", metavar="FILE", help="ROS parameters that nodes read last"
    )
    parser.add_argument(
        "--log-level", default="", choices=LOG_LEVELS, help="least severity that nodes log"
    )
    parser.add_argument("--log", type=Path, metavar="FILE", help="write the output there as well")


def options_from(arguments: argparse.Namespace, *, teleop: bool) -> GraphOptions:
    """Turn parsed arguments into graph options, absolute paths included."""
    os.environ[NAMESPACE_VARIABLE] = arguments.namespace  # for what watches the graph from here
    rviz_config = paths.find_shared("config/rviz/koch.rviz")
    return GraphOptions(
        sim=arguments.sim,
        teleop=teleop,
        record=arguments.record,
        record_root=_absolute(arguments.record_root),
        policy=_absolute(arguments.policy),
        strategy=arguments.strategy,
        shadow=arguments.shadow,
        expert=arguments.expert,
        speed=arguments.speed,
        rviz=arguments.rviz,
        rviz_config=str(rviz_config) if rviz_config else "",
        ros_state_publisher=package_prefix("robot_state_publisher") is not None,
        settings=tuple(parse_setting(text) for text in arguments.settings),
        only=tuple(name for text in arguments.only for name in text.split(",")),
        namespace=arguments.namespace,
        ros2_control=arguments.ros2_control,
        params_file=_absolute(arguments.params_file),
        log_level=arguments.log_level,
    )


def load_chosen_rig(rig: Path | None, sim: bool | None) -> Rig:
    """Load the rig that the arguments name, or the default one.

    Raises:
        RigFileNotFoundError: None was named and none stands where it is looked for.
        KochError: The file is wrong.
    """
    from koch_rig.load import load_rig

    loaded: Rig = load_rig(rig.resolve() if rig else paths.default_rig(sim=bool(sim)))
    return loaded


def _absolute(path: str) -> str:
    return str(Path(path).expanduser().resolve()) if path else ""


def run_graph(
    specs: tuple[NodeSpec, ...],
    log: Path | None = None,
    beside: Callable[[PrefixedOutput], AbstractContextManager[object]] | None = None,
    hint: str = "",
) -> int:
    """Run nodes in the foreground until they end or a signal comes; returns the exit code.

    Args:
        specs: The nodes.
        log: File that gets the output as well.
        beside: Makes something that runs as long as the nodes do and may write beside them.
        hint: What to say of a graph that is ready.

    Raises:
        OutputFileError: The log cannot be written.
        NamesakesError: Nodes of these names run already.
    """
    from koch_vla.nodes.namesakes import refuse_namesakes
    from koch_vla.nodes.process_report import ProcessReport

    refuse_namesakes(specs)

    with contextlib.ExitStack() as stack:
        stream = None
        if log is not None:
            try:
                log.parent.mkdir(parents=True, exist_ok=True)
                stream = stack.enter_context(log.open("w", encoding="utf-8"))
            except OSError as error:
                raise OutputFileError("--log", log, error.strerror) from error
        output = PrefixedOutput(specs, log=stream)
        processes = stack.enter_context(ProcessReport(specs, output.say, hint))
        supervisor = Supervisor(specs, report=output, changed=processes.changed)
        stack.enter_context(stop_on_signals(supervisor))
        if beside is not None:
            stack.enter_context(beside(output))
        code = supervisor.run()
    # Behind what the other nodes said while they ended: the cause is what is read last.
    if supervisor.cause:
        complain(f"koch up: {supervisor.cause}")
    return code


def images_hint(rig: Rig, specs: tuple[NodeSpec, ...]) -> str:
    """Where a browser shows what the simulated cameras see; empty where nobody serves it."""
    sources = [str(camera.source) for camera in rig.cameras.values()]
    served = any(spec.package == "koch_sim" for spec in specs)
    if not (served and sources and "//" in sources[0]):
        return ""
    scheme, _, rest = sources[0].partition("//")
    return f"camera images: {scheme}//{rest.partition('/')[0]}/"


def describe(specs: tuple[NodeSpec, ...]) -> str:
    """Write a graph as a table for a person."""
    width = max((len(spec.full_name) for spec in specs), default=0)
    lines = []
    for spec in specs:
        values = " ".join(
            f"{key}={value if len(str(value)) < 80 else '...'}"
            for key, value in spec.parameters.items()
        )
        executable = f"{spec.package}/{spec.executable}"
        lines.append(f"{spec.full_name:<{width}}  {executable:<34} {values}".rstrip())
    return "\n".join(lines)


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = CommandLine(prog="koch up", description="Run the node graph of a rig.")
    add_graph_arguments(parser)
    parser.add_argument(
        "--teleop",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let each leader drive its follower",
    )
    parser.add_argument("--list", action="store_true", help="print the nodes and start nothing")
    arguments = parser.parse_args(argv)
    rig = load_chosen_rig(arguments.rig, arguments.sim)
    options = options_from(arguments, teleop=arguments.teleop)
    specs = build_graph(rig, options)
    if arguments.list:
        say(describe(specs))
        return 0
    check_files(rig, specs, options.params_file)
    return run_graph(specs, arguments.log, hint=images_hint(rig, specs))
