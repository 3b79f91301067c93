# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the set-up. They cannot derive from KochError, which is not installed yet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class SetupError(Exception):
    """The set-up cannot go on; the message says what to do."""


class MissingSystemPackagesError(SetupError):
    """System packages are missing and this process may not install them."""

    def __init__(self, packages: Sequence[str], *, debian: bool) -> None:
        """Build the message with the one command to run."""
        names = " ".join(packages)
        if debian:
            command = f"sudo apt-get install -y --no-install-recommends {names}"
            text = f"system packages are missing; run this, then set up again:\n  {command}"
        else:
            text = (
                f"system packages are missing (Debian's names): {names}\n"
                "  install what your distribution calls them, then set up again"
            )
        super().__init__(text)


class CommandFailedError(SetupError):
    """A command of the set-up failed."""

    def __init__(self, what: str, code: int, log: Path, tail: str) -> None:
        """Show the end of the command's log."""
        super().__init__(
            f"{what} failed with exit code {code}; the last lines of {log}:\n{tail}\n"
            "  repair the cause and run ./koch setup again; it continues where it stopped"
        )


class UnsupportedPythonError(SetupError):
    """This Python cannot be used for the home that was asked for."""

    def __init__(self, got: str, expected: str) -> None:
        """Name the version found and the versions that work."""
        super().__init__(
            f"Python {got} does not fit; expected {expected}\n"
            "  name another with KOCH_PYTHON=/path/to/python3.11 ./koch setup"
        )


class UnknownPartError(SetupError):
    """A part to leave out or to add is not one of ours."""

    def __init__(self, got: str, choices: Sequence[str], flag: str = "--without") -> None:
        """List the parts there are."""
        super().__init__(f"{flag} {got}: expected some of {', '.join(choices)}, or none")


class NoCudaError(SetupError):
    """There is no torch for a GPU."""

    def __init__(self, why: str) -> None:
        """Say why not."""
        super().__init__(f"--gpu: {why}")
