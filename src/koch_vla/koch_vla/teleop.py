# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch teleop`: `koch up` with teleoperation and a status line."""

from __future__ import annotations

from koch_core.terminal import CommandLine
from koch_vla.errors import GraphError
from koch_vla.graph import build_graph
from koch_vla.preflight import check_files
from koch_vla.up import (
    add_graph_arguments,
    images_hint,
    load_chosen_rig,
    options_from,
    run_graph,
)


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = CommandLine(
        prog="koch teleop", description="Drive the follower with the leader, with a status line."
    )
    add_graph_arguments(parser)
    arguments = parser.parse_args(argv)
    rig = load_chosen_rig(arguments.rig, arguments.sim)
    leaders = [arm for arm in rig.arms.values() if arm.drives]
    if not leaders:
        raise GraphError(
            f"{rig.path}: no leader drives a follower. Give an arm `role: leader, drives: NAME`."
        )
    options = options_from(arguments, teleop=True)
    specs = build_graph(rig, options)
    check_files(rig, specs, options.params_file)
    from koch_vla.nodes.teleop_watch import TeleopWatch

    return run_graph(
        specs,
        arguments.log,
        lambda output: TeleopWatch(rig.arms, output.status),
        hint=images_hint(rig, specs),
    )
