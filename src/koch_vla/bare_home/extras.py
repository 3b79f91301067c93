# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Environments beside .venv: LeRobot's own, whose pins the workspace cannot share."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

from .errors import UnknownPartError, UnsupportedPythonError
from .run import quiet_output, run, say

# What --with adds, and the folder of its environment; `koch_policy.server.client` looks there.
EXTRAS = {"lerobot": ".venv-lerobot"}
# The newest LeRobot wants 3.12; 3.11 and 3.10 take the last one that supports them.
_PYTHONS = ("python3.12", "python3.13", "python3.11", "python3.10")


def parse_with(text: str) -> tuple[str, ...]:
    """Read "lerobot" or "none".

    Raises:
        UnknownPartError: An extra has another name.
    """
    names = sorted({name.strip() for name in text.split(",") if name.strip() not in ("", "none")})
    for name in names:
        if name not in EXTRAS:
            raise UnknownPartError(name, sorted(EXTRAS), "--with")
    return tuple(names)


def provide(root: Path, name: str, *, force: bool) -> None:
    """Make an extra's environment, or keep one that its requirements have made.

    Args:
        root: Of the repository.
        name: Of the extra.
        force: Make it again.

    Raises:
        UnsupportedPythonError: There is no Python that it could use.
        CommandFailedError: The environment cannot be made, or its packages not be installed.
    """
    wanted = root / "requirements" / f"{name}.txt"
    folder = root / EXTRAS[name]
    record, python = folder / "koch_setup", folder / "bin" / "python"
    digest = hashlib.sha256(wanted.read_bytes()).hexdigest()
    if not force and record.is_file() and record.read_text(encoding="utf-8") == digest:
        say(f"koch setup: {name} is there ({folder.name})")
        return
    base = _python()
    say(f"koch setup: making {folder.name} with {base}")
    shutil.rmtree(folder, ignore_errors=True)
    logs = root / "log" / "setup"
    run("python -m venv", [base, "-m", "venv", str(folder)], log=logs / f"venv_{name}.log")
    say(f"      installing {name}: some gigabytes, as it brings a torch of its own")
    pip = [str(python), "-m", "pip", "install", "--progress-bar", "off", "--no-input"]
    run("pip install", [*pip, "-r", str(wanted)], log=logs / f"pip_{name}.log")
    imports = [str(python), "-c", f"import {name}"]
    run(f"import {name}", imports, log=logs / f"import_{name}.log")
    record.write_text(digest, encoding="utf-8")
    say(f"      {name} is there: koch run --runtime {name} finds it")


def _python() -> str:
    """Return the interpreter that gets the newest LeRobot."""
    for candidate in (*_PYTHONS, sys.executable):
        found = shutil.which(candidate)
        # A shim may stand for a version that is not installed.
        if found and quiet_output([found, "-c", "import ensurepip"]) is not None:
            return found
    raise UnsupportedPythonError("none with ensurepip", f"one of {', '.join(_PYTHONS)}")
