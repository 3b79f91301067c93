# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bridge`: the bridge of `koch_vla.bridge` on the graph of `koch up`."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import say
from koch_ros.shared_options import RIG
from koch_vla.bridge import TOKEN, BridgeServer, check_access

DEFAULT_PORT = 8791


@dataclass(frozen=True, kw_only=True)
class BridgeOptions(OptionModel):
    """What `koch bridge` is asked for."""

    rig: Path | None = same_as(RIG, None, text="rig file (default: $KOCH_RIG, else the shipped)")
    host: str = option("127.0.0.1", f"address to listen on; others than this computer: ${TOKEN}")
    port: int = option(DEFAULT_PORT, "TCP port; 0: any", low=0, high=65535)


def main(argv: list[str]) -> int:
    """Run the subcommand until Ctrl-C."""
    about = "Let programs without ROS, such as LeRobot, read and drive the graph of koch up."
    options = from_command_line(BridgeOptions, "koch bridge", about, argv)
    token = os.environ.get(TOKEN, "")
    check_access(options.host, token)
    from koch_rig.load import load_rig
    from koch_rig.model import default_rig
    from koch_vla.nodes.bridge import GraphRobot

    logging.getLogger("koch_vla.bridge").setLevel(logging.INFO)
    rig = load_rig(default_rig(options.rig))
    with GraphRobot(rig) as robot:
        server = BridgeServer(robot, options.host, options.port, token)
        robot.meet_graph()  # before a client asks: the graph's clock tells the age of samples
        with server:
            where = f"{options.host}:{server.port}"
            say(f"the bridge of {rig.name} listens on {where}; Ctrl-C ends it")
            robot.run()
    return 0
