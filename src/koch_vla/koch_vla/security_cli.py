# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch security`: keys and permissions of SROS 2 for the graph that runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import command_line
from koch_core.options import OptionModel, option
from koch_core.terminal import say
from koch_vla.errors import GraphError
from koch_vla.graph import GraphOptions, RigChoice, build_graph
from koch_vla.security import by_enclave, write_keystore
from koch_vla.up import chosen_graph


@dataclass(frozen=True)
class SecurityOptions(OptionModel):
    """What `koch security` is asked for."""

    keystore: Path = option(Path("keystore"), "made, or added to", metavar="FOLDER")
    seconds: float = option(5.0, "how long to look at the graph [s]", low=1.0, high=3600.0)


def main(argv: list[str]) -> int:
    """Run the subcommand.

    Raises:
        KochError: Nodes of the graph do not run, or the keystore cannot be written.
    """
    parser = command_line(
        "koch security",
        "Make SROS 2 keys and permissions for the graph that runs: give the options of its "
        "`koch up`, and let run beside it what you use (console, koch run, ...).",
        RigChoice,
        GraphOptions,
        SecurityOptions,
    )
    words, rig, options = chosen_graph(parser, argv)
    own = SecurityOptions.of(words)
    from koch_vla.nodes.used_names import used_names

    names = {spec.full_name for spec in build_graph(rig, options) if spec.has_node}
    found = used_names(own.seconds)
    missing = sorted(names - set(found))
    if missing:
        raise GraphError(
            f"these nodes do not run: {', '.join(missing)}. Start `koch up` with the same options "
            "in another terminal first: what they use is read from the running graph."
        )
    domain = int(os.environ.get("ROS_DOMAIN_ID") or 0)
    allowed = write_keystore(own.keystore, domain, by_enclave(found, names))
    for enclave, permissions in sorted(allowed.items()):
        counts = f"{len(permissions.publish)} to publish, {len(permissions.subscribe)} to hear"
        say(f"{enclave}: {counts}")
    say(f"export ROS_SECURITY_KEYSTORE={own.keystore.absolute()}")
    say("export ROS_SECURITY_ENABLE=true ROS_SECURITY_STRATEGY=Enforce")
    return 0
