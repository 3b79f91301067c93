# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch demo`: the whole loop without hardware, in one command."""

from __future__ import annotations

import argparse
from pathlib import Path

from koch_vla.demo.step import DemoContext, DemoSettings, Step, run_steps
from koch_vla.terminal import say

__all__ = ["main"]


def steps() -> list[Step]:
    """The demo's steps; their modules are imported here, when they are needed."""
    from koch_vla.demo.drive import drive

    return [Step("drive", "Two emulated arms: the follower follows the leader", drive)]


def main(argv: list[str]) -> int:
    """Run the verb."""
    parser = argparse.ArgumentParser(
        prog="koch demo",
        description="The whole loop without hardware: record, convert, train, run, report.",
    )
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo"), metavar="DIR")
    arguments = parser.parse_args(argv)
    from koch_vla.paths import default_rig

    settings = DemoSettings(folder=arguments.folder.resolve(), rig=default_rig(sim=True))
    run_steps(steps(), DemoContext(settings, say))
    return 0
