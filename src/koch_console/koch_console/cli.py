# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch console`: serves the page for a graph that runs, or will."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from koch_console.access import OPERATE_TOKEN, READ_TOKEN
from koch_console.options import ConsoleOptions
from koch_core.command_line import from_command_line
from koch_ros.shared_topics import chosen_namespace, namespace_arguments


def main(argv: Sequence[str]) -> int:
    """Run the subcommand until Ctrl-C.

    Raises:
        KochError: No rig is found, or address and tokens do not fit each other.
    """
    options = from_command_line(
        ConsoleOptions, "koch console", "Serve the console in the browser.", argv
    )
    from koch_console.nodes.console import ConsoleNode
    from koch_rig.model import default_rig
    from koch_ros.node import run_node

    for name, token in ((OPERATE_TOKEN, options.token), (READ_TOKEN, options.read_token)):
        if token:
            os.environ[name] = token
    rig = Path(default_rig(options.rig, sim=options.sim)).resolve()
    settings = {"rig": rig, "bind": options.bind, "port": options.port, "root": options.root}
    settings |= {"runs": str(Path(options.runs).expanduser().resolve())}
    words = ["koch console", *namespace_arguments(chosen_namespace()), "--ros-args"]
    for name, value in settings.items():
        if value != "":
            words += ["-p", f"{name}:={value}"]
    return run_node(ConsoleNode, words, realtime=False)
