# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch teleop`: `koch up` with teleoperation by leader, keyboard or gamepad; a status line."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from koch_core.command_line import add_options, command_line
from koch_core.options import OptionError, OptionModel, option
from koch_core.terminal import say
from koch_vla.errors import GraphError
from koch_vla.graph import GraphOptions, RigChoice, build_graph
from koch_vla.jog_input import KEY_HELP, PAD_HELP
from koch_vla.preflight import check_files
from koch_vla.up import UpOptions, chosen_graph, images_hint, run_graph

if TYPE_CHECKING:
    from koch_rig.rig import Arm, Rig
    from koch_vla.output import PrefixedOutput


@dataclass(frozen=True)
class JogOptions(OptionModel):
    """What moves the hand in place of a leader."""

    keyboard: bool = option(False, "move the hand by keys of this terminal")
    gamepad: str | None = option(
        None, "move it by a gamepad: its event device, or the first one", bare="auto",
        metavar="DEVICE",
    )  # fmt: skip
    arm: str | None = option(
        None, "follower that they move, where there are several", metavar="NAME"
    )

    def __post_init__(self) -> None:
        """Check what does not go together.

        Raises:
            OptionError: A value means nothing.
        """
        super().__post_init__()
        if self.keyboard and self.gamepad is not None:
            raise OptionError("--keyboard", "--gamepad beside it", "one of the two")
        if self.arm is not None and not self.jogs:
            raise OptionError("--arm", self.arm, "--keyboard or --gamepad beside it")
        if self.keyboard and not sys.stdin.isatty():
            raise OptionError("--keyboard", "no terminal", "a terminal as standard input")

    @property
    def jogs(self) -> bool:
        """No leader is used."""
        return self.keyboard or self.gamepad is not None


def main(argv: list[str]) -> int:
    """Run the subcommand."""
    about = (
        "Drive the follower with the leader, by keys or by a gamepad, with a status line. "
        f"{KEY_HELP.capitalize()}. {PAD_HELP.capitalize()}."
    )
    parser = command_line("koch teleop", about, RigChoice, JogOptions)
    add_options(parser, GraphOptions, without=("teleop", "jog"))
    add_options(parser, UpOptions, without=("list",))
    words, rig, options = chosen_graph(parser, argv, teleop=True, jog=False)
    jog = JogOptions.of(words)
    if not jog.jogs and not any(arm.drives for arm in rig.arms.values()):
        raise GraphError(
            f"{rig.path}: no leader drives a follower. Give an arm `role: leader, drives: NAME`, "
            "or drive it by --keyboard or --gamepad."
        )
    follower = None
    if jog.jogs:
        follower = rig.arm(jog.arm) if jog.arm else rig.follower
    specs = build_graph(rig, replace(options, jog=jog.jogs))
    check_files(rig, specs, options.params_file)
    if follower is not None:
        say(KEY_HELP if jog.keyboard else PAD_HELP)
    return run_graph(
        specs,
        words.log,
        lambda output: _beside(output, rig, follower, jog.gamepad),
        hint=images_hint(rig, specs),
    )


@contextlib.contextmanager
def _beside(
    output: PrefixedOutput, rig: Rig, follower: Arm | None, gamepad: str | None
) -> Iterator[None]:
    """The status line, and what sends the speeds of keys or sticks."""
    from koch_vla.nodes.teleop_watch import TeleopWatch

    with contextlib.ExitStack() as stack:
        if follower is not None:
            from koch_vla.nodes.jog_sender import JogSender

            stack.enter_context(JogSender(follower, gamepad, output.say))
        stack.enter_context(TeleopWatch(rig.arms, output.status))
        yield
