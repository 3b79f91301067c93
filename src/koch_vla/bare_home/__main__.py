# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""./koch setup: from a clean clone to a built workspace."""

from __future__ import annotations

import argparse
import fcntl
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from . import extras, system, wheels, workspace
from .digest import build_digest, wheels_digest
from .environment import sourced_ros
from .errors import SetupError
from .options import (
    DISTROS,
    Options,
    Record,
    choose,
    read_record,
    record_path,
    write_record,
)
from .run import fail, say

ROOT = Path(__file__).resolve().parents[3]


def main(arguments: list[str]) -> int:
    """Run the set-up; returns the exit code."""
    options = _parser().parse_args(arguments)
    lock_path = ROOT / ".koch" / "setup.lock"
    lock_path.parent.mkdir(exist_ok=True)
    with lock_path.open("w") as lock:
        # Two subcommands started at once must not build at once; the second finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            record = read_record(ROOT)
            if options.quick and record is not None:
                chosen = _as_recorded(record)
            else:
                chosen = choose(record, options.distro, options.without, sourced_ros())
            wanted = extras.parse_with(options.extras)
            set_up(chosen, record, force=options.force and not wanted, quick=options.quick)
            for name in wanted:
                extras.provide(ROOT, name, force=options.force)
            if options.gpu:
                extras.provide_gpu(ROOT)
        except SetupError as error:
            return fail(str(error))
        except KeyboardInterrupt:
            return fail("interrupted; run ./koch setup again, it continues where it stopped")
    return 0


def set_up(options: Options, record: Record | None, *, force: bool, quick: bool) -> None:
    """Do the steps that are not done yet.

    Args:
        options: What to set up.
        record: Of the last set-up.
        force: Do every step again.
        quick: Say nothing when there is nothing to do.

    Raises:
        SetupError: A step failed.
    """
    wheels.check_python(options)
    wheels_wanted, build_wanted = wheels_digest(ROOT, options), build_digest(ROOT, options)
    same_wheels = record is not None and record.wheels == wheels_wanted and not force
    same_build = same_wheels and record is not None and record.build == build_wanted
    same_build = same_build and (ROOT / "install" / "local_setup.sh").is_file()
    if same_build:
        os.utime(record_path(ROOT))  # ./koch looks for files newer than this
        if not quick:
            say(f"koch setup: nothing to do ({_describe(options)})")
        return
    begin = time.monotonic()
    say(f"koch setup: {_describe(options)}")
    say("[1/5] system packages")
    system.provide(ROOT, options)
    say("[2/5] virtual environment")
    python = wheels.make_environment(ROOT, options, record)
    say("[3/5] Python packages")
    if same_wheels and record_path(ROOT).is_file():  # gone with an environment made again
        say("      as pinned")
    else:
        wheels.install_wheels(ROOT, options, python)
        if options.home == "bare":
            wheels.repair(ROOT, python)
    done = Record(options=options, wheels=wheels_wanted)
    write_record(ROOT, done)
    say("[4/5] workspace")
    workspace.build(ROOT, options, python)
    say("[5/5] check")
    workspace.check(ROOT, options, python)
    write_record(ROOT, replace(done, build=build_wanted))
    say(f"koch setup: done in {time.monotonic() - begin:.0f} s")


def _as_recorded(record: Record) -> Options:
    if record.options.home == "ros" and sourced_ros() is None:
        raise SetupError(
            f"this workspace was set up inside ROS 2 {record.options.distro}, which is not "
            f"sourced\n  run: . /opt/ros/{record.options.distro}/setup.sh\n"
            "  or ./koch setup, to change over to the wheels"
        )
    return record.options


def _describe(options: Options) -> str:
    home = "wheels" if options.home == "bare" else "sourced"
    without = f", without {', '.join(options.without)}" if options.without else ""
    version = "{}.{}".format(*sys.version_info[:2])
    return f"ROS 2 {options.distro} ({home}), Python {version}{without}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="koch setup",
        description="Installs what is missing and builds the workspace. What is not asked for "
        "stays as the last set-up chose it.",
    )
    parser.add_argument("--distro", choices=DISTROS, help="ROS 2 of the wheels (default kilted)")
    parser.add_argument(
        "--without", metavar="PARTS", help="leave out parts: console,policy,sim; none takes all"
    )
    parser.add_argument(
        "--with",
        dest="extras",
        metavar="EXTRAS",
        default="",
        help="add lerobot, in an environment of its own; hub, rerun, tensorboard, wandb",
    )
    parser.add_argument(
        "--gpu", action="store_true", help="install the torch for NVIDIA GPUs (CUDA)"
    )
    parser.add_argument(
        "--force", action="store_true", help="do every step again; with --with, its alone"
    )
    parser.add_argument("--quick", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
