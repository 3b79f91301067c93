# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch teleop`: `koch up` with teleoperation and a status line."""

from __future__ import annotations

from koch_core.command_line import add_options, command_line
from koch_vla.errors import GraphError
from koch_vla.graph import GraphOptions, RigChoice, build_graph
from koch_vla.preflight import check_files
from koch_vla.up import UpOptions, chosen_graph, images_hint, run_graph


def main(argv: list[str]) -> int:
    """Run the subcommand."""
    about = "Drive the follower with the leader, with a status line."
    parser = command_line("koch teleop", about, RigChoice)
    add_options(parser, GraphOptions, without=("teleop",))
    add_options(parser, UpOptions, without=("list",))
    words, rig, options = chosen_graph(parser, argv, teleop=True)
    leaders = [arm for arm in rig.arms.values() if arm.drives]
    if not leaders:
        raise GraphError(
            f"{rig.path}: no leader drives a follower. Give an arm `role: leader, drives: NAME`."
        )
    specs = build_graph(rig, options)
    check_files(rig, specs, options.params_file)
    from koch_vla.nodes.teleop_watch import TeleopWatch

    return run_graph(
        specs,
        words.log,
        lambda output: TeleopWatch(rig.arms, output.status),
        hint=images_hint(rig, specs),
    )
