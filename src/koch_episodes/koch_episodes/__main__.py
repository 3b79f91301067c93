# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch-episodes COMMAND`: bags and datasets without the rest of the suite, and without ROS."""

from __future__ import annotations

import importlib
import sys

from koch_core.options import did_you_mean
from koch_core.terminal import complain, say

_COMMANDS = {
    "convert": "koch_episodes.convert.cli",
    "dataset": "koch_episodes.dataset.edit.cli",
    "inspect": "koch_episodes.inspect_cli",
}


def main(argv: list[str]) -> int:
    """Run a command as `koch` does; 2: there is none of that name."""
    name, *words = argv or ["--help"]
    if name in ("-h", "--help"):
        say(f"usage: koch-episodes {{{','.join(_COMMANDS)}}} ...\n\n{__doc__}")
        return 0
    if name not in _COMMANDS:
        known = ", ".join(_COMMANDS)
        complain(
            f"koch-episodes: got {name!r}, expected one of {known}. "
            f"{did_you_mean(name, _COMMANDS)}".rstrip()
        )
        return 2
    return int(importlib.import_module(_COMMANDS[name]).main(words))


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
