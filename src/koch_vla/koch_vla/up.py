# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch up`: runs the node graph of a rig under the supervisor."""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.command_line import command_line
from koch_core.options import OptionModel, option
from koch_core.terminal import complain, say
from koch_ros.shared_topics import NAMESPACE_VARIABLE, chosen_namespace
from koch_vla.errors import OutputFileError
from koch_vla.graph import GraphOptions, NodeSpec, RigChoice, build_graph
from koch_vla.output import PrefixedOutput
from koch_vla.paths import default_rig
from koch_vla.preflight import check_files
from koch_vla.supervisor import Supervisor, stop_on_signals

if TYPE_CHECKING:
    from koch_rig.rig import Rig


@dataclass(frozen=True)
class UpOptions(OptionModel):
    """What is done with the graph."""

    log: Path | None = option(None, "write the output there as well", metavar="FILE")
    list: bool = option(False, "print the nodes and start nothing")


def chosen_graph(
    parser: argparse.ArgumentParser, argv: Sequence[str], **given: Any
) -> tuple[argparse.Namespace, Rig, GraphOptions]:
    """Parse a command line of RigChoice and GraphOptions, and load the rig.

    Raises:
        KochError: No rig is found, or its file or an option is wrong.
    """
    parser.set_defaults(namespace=chosen_namespace())
    words = parser.parse_args(argv, argparse.Namespace(**given))
    os.environ[NAMESPACE_VARIABLE] = words.namespace  # for what watches the graph from here
    rig = load_chosen_rig(words.rig, words.sim)
    return words, rig, GraphOptions.of(words, **GraphOptions.surroundings())


def load_chosen_rig(rig: Path | None, sim: bool | None) -> Rig:
    """Load the rig that was named, or the default one.

    Raises:
        KochError: None was named and none is found, or the file is wrong.
    """
    from koch_rig.load import load_rig

    loaded: Rig = load_rig(default_rig(rig, sim=bool(sim)))
    return loaded


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
    """Where a browser shows what the simulated cameras see; empty where no one serves it."""
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
    """Run the subcommand."""
    parser = command_line(
        "koch up", "Run the node graph of a rig.", RigChoice, GraphOptions, UpOptions
    )
    words, rig, options = chosen_graph(parser, argv)
    own = UpOptions.of(words)
    specs = build_graph(rig, options)
    if own.list:
        say(describe(specs))
        return 0
    check_files(rig, specs, options.params_file)
    return run_graph(specs, own.log, hint=images_hint(rig, specs))
