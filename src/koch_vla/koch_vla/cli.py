# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The `koch` command: imports what the subcommand needs, turns errors into messages."""

from __future__ import annotations

import errno
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from koch_core.terminal import Interjections, complain, say
from koch_core.working import Working


@dataclass(frozen=True)
class Subcommand:
    """One thing a person does.

    Attributes:
        name: What is typed.
        module: Holds `main(argv) -> int`.
        summary: One line of the help.
    """

    name: str
    module: str
    summary: str

    @property
    def package(self) -> str:
        """The package that must be installed for it."""
        return self.module.partition(".")[0]


VERBS = (
    Subcommand("doctor", "koch_vla.doctor", "check this machine; each finding comes with its fix"),
    Subcommand("up", "koch_vla.up", "run the node graph of a rig"),
    Subcommand(
        "teleop", "koch_vla.teleop", "drive the follower with the leader, with a status line"
    ),
    Subcommand(
        "console", "koch_console.cli", "serve a page that shows, records, runs and stops the robot"
    ),
    Subcommand("bridge", "koch_vla.bridge_cli", "let LeRobot read and drive the running graph"),
    Subcommand("look", "koch_vla.look", "draw robot, frames, cameras and TCP path as one PNG"),
    Subcommand(
        "demo", "koch_vla.demo", "the whole loop without hardware: record, train, run, report"
    ),
    Subcommand("bench", "koch_vla.bench", "run all benchmarks into one JSON and one table"),
    Subcommand(
        "calibrate", "koch_driver.setup.calibrate_cli", "calibrate an arm, a camera, or latencies"
    ),
    Subcommand(
        "motors",
        "koch_driver.setup.motors_cli",
        "find motors, give them ids, read their registers",
    ),
    Subcommand(
        "cameras", "koch_cameras.cli", "show an image of every camera, list them, grab one"
    ),
    Subcommand("record", "koch_episodes.recorder.terminal", "record episodes from the keyboard"),
    Subcommand("convert", "koch_episodes.convert.cli", "turn episodes into a LeRobot dataset"),
    Subcommand("inspect", "koch_episodes.inspect_cli", "look into an episode or a dataset"),
    Subcommand(
        "dataset", "koch_episodes.dataset.edit.cli", "look at LeRobot datasets and edit them"
    ),
    Subcommand("replay", "koch_episodes.replay_cli", "play a recorded episode on the follower"),
    Subcommand("train", "koch_policy.train.cli", "train a policy on a dataset"),
    Subcommand(
        "identify", "koch_sim.identify_cli", "fit the simulated arm to recordings of yours"
    ),
    Subcommand("hub", "koch_vla.hub", "push datasets and checkpoints to the Hub, or pull them"),
    Subcommand("runs", "koch_policy.runs_cli", "list training runs with their losses and success"),
    Subcommand("run", "koch_policy.run_cli", "let a trained policy drive the follower"),
    Subcommand("serve", "koch_policy.serve_cli", "run a policy for arms on other computers"),
    Subcommand(
        "security", "koch_vla.security_cli", "make SROS 2 keys and permissions for the graph"
    ),
    Subcommand("eval", "koch_vla.evaluate_cli", "measure the success of a policy in simulation"),
    Subcommand(
        "compare", "koch_vla.compare_cli", "two policies in the same set-ups: which is better?"
    ),
    Subcommand(
        "improve", "koch_vla.improve", "rounds of running, correcting and learning, in simulation"
    ),
    Subcommand("completion", "koch_vla.completion", "let bash, zsh or fish complete koch's words"),
)
# Those that say also in a log what they are doing.
_LONG = ("train", "eval", "compare", "improve", "record", "run")
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
CAMERA_CALIBRATION = Subcommand(
    "calibrate camera", "koch_cameras.calibrate_cli", "calibrate a camera"
)
CAMERA_POSE = Subcommand(
    "calibrate camera --pose", "koch_vla.camera_pose_cli", "find where a camera is mounted"
)
LATENCY = Subcommand(
    "calibrate latency", "koch_vla.latency_cli", "measure how late cameras and arm are"
)
FROM_LEROBOT = "koch_vla.lerobot.commands"
LOCKSTEP_RECORD = Subcommand(
    "record --lockstep", "koch_sim.record_cli", "record the scripted expert"
)

# What a set-up may have left out, and what to call to get it.
OPTIONAL = {
    "koch_console": "console",
    "aiohttp": "console",
    "koch_policy": "policy",
    "koch_sim": "sim",
    "torch": "policy",
    "safetensors": "policy",
    "openvino": "policy",
    "mujoco": "sim",
}


def usage() -> str:
    """The help text, one line for each subcommand."""
    width = max(len(each.name) for each in VERBS)
    lines = [f"  {each.name:<{width}}  {each.summary}" for each in VERBS]
    return "\n".join(
        [
            "usage: koch COMMAND [arguments]      (koch COMMAND --help tells more)",
            "",
            "Koch v1.1 arms that learn from demonstration: drive, record, train, run.",
            "",
            *lines,
            "",
            "In a checkout, ./koch also knows: setup (build everything), test (all tests).",
            "Start with: koch doctor, then koch demo.",
        ]
    )


def find_subcommand(argv: Sequence[str]) -> tuple[Subcommand, list[str]]:
    """Return the subcommand of a command line and the arguments that are left for it.

    Raises:
        UnknownSubcommandError: There is no such subcommand.
    """
    from koch_vla.lerobot.flags import lerobot_command  # a long table, which --help does without

    name, *rest = argv
    if command := lerobot_command(name, rest):
        return Subcommand(command, FROM_LEROBOT, "a command line of LeRobot's"), [command, *rest]
    if name == "calibrate" and rest[:1] == ["camera"]:
        pose = any(word.partition("=")[0] == "--pose" for word in rest)
        return CAMERA_POSE if pose else CAMERA_CALIBRATION, rest[1:]
    if name == "calibrate" and rest[:1] == ["latency"]:
        return LATENCY, rest[1:]
    if name == "record" and "--lockstep" in rest:
        return LOCKSTEP_RECORD, rest
    for known in VERBS:
        if known.name == name:
            return known, rest
    from koch_vla.errors import UnknownSubcommandError

    raise UnknownSubcommandError(name, [known.name for known in VERBS])


def load(command: Subcommand) -> Callable[[list[str]], int]:
    """Import a subcommand's module and return its main function.

    Raises:
        SubcommandUnavailableError: Its package, or a library that it needs, is not installed.
    """
    try:
        # PyTorch alone takes seconds; what a script reads stays as it is elsewhere.
        is_long = command.name in _LONG
        with Working(f"koch {command.name}: loading", in_logs=is_long, at_once=is_long):
            module = importlib.import_module(command.module)
    except ModuleNotFoundError as error:
        raise _unavailable(command, error) from error
    main: Callable[[list[str]], int] = module.main
    return main


def _unavailable(command: Subcommand, error: ModuleNotFoundError) -> Exception:
    """Say which part of the workspace is missing; other import errors are our own bugs."""
    from koch_vla.errors import SubcommandUnavailableError

    missing = (error.name or "").partition(".")[0]
    if missing == "rclpy" or missing.endswith("_msgs") or missing == "koch_interfaces":
        remedy = "Run `./koch setup`, or source your ROS 2 and the workspace's local_setup.bash."
        return SubcommandUnavailableError(f"ROS 2 ({missing})", remedy)
    if f"{command.module}.".startswith(f"{error.name}."):
        part = command.package.removeprefix("koch_")
    elif missing in OPTIONAL:
        part = OPTIONAL[missing]
    else:
        return error
    remedy = f"Add it with `{setup_with(part)}`."
    return SubcommandUnavailableError(error.name or command.package, remedy)


def setup_with(part: str) -> str:
    """The set-up command that adds a part and leaves out what else was left out before."""
    left_out = [name for name in os.environ.get("KOCH_WITHOUT", "").split(",") if name]
    rest = ",".join(name for name in left_out if name != part)
    return f"./koch setup --without {rest}" if rest else "./koch setup"


def main(argv: Sequence[str]) -> int:
    """Run a command line.

    Returns:
        The subcommand's exit code; 2 for a mistake of the user's, 130 after an interrupt.
    """
    from koch_core.errors import KochError

    if not argv or argv[0] in ("-h", "--help", "help"):
        say(usage())
        return 0
    if argv[0] in ("-V", "--version", "version"):
        from koch_vla import __version__

        say(f"koch_vla {__version__}")
        return 0
    logging.basicConfig(handlers=[Interjections()], format="%(levelname)s %(message)s")
    try:
        command, rest = find_subcommand(argv)
        return _call(command, rest)
    except KochError as error:
        complain(f"koch {argv[0]}: {error}")
        return 2
    except KeyboardInterrupt:
        complain("")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        if error.filename is None and error.errno not in DISK_ERRORS:
            raise  # a device or a socket: not a file that the user named
        where = f"{error.filename}: " if error.filename is not None else ""
        complain(
            f"koch {argv[0]}: {where}{error.strerror}. Name another file or folder, or repair it."
        )
        return 2


def _call(command: Subcommand, arguments: list[str]) -> int:
    try:
        return int(load(command)(arguments) or 0)
    except ModuleNotFoundError as error:  # imported late, inside the subcommand
        raise _unavailable(command, error) from error


def own_words() -> tuple[str, ...]:
    """The words that start this command in a process of its own, for what is below koch_vla."""
    return (sys.executable, "-m", "koch_vla")


def console() -> None:
    """Entry point of the `koch` executable."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console()
