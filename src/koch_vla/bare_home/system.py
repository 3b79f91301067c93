# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""System packages: finds what is missing, installs it when allowed to."""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import shutil
import sysconfig
from collections.abc import Callable
from pathlib import Path

from .errors import MissingSystemPackagesError
from .options import Options
from .run import quiet_output, run, say

# Where a need can be seen directly, no package manager is asked: a compiler from elsewhere, or a
# Python with its own headers, is as good.
_PROBES: dict[str, Callable[[], bool]] = {
    "cmake": lambda: shutil.which("cmake") is not None,
    "g++": lambda: shutil.which("g++") is not None or shutil.which("clang++") is not None,
    "git": lambda: shutil.which("git") is not None,
    "libegl1": lambda: ctypes.util.find_library("EGL") is not None,
    "make": lambda: shutil.which("make") is not None,
    "python3-dev": lambda: (Path(sysconfig.get_paths()["include"]) / "Python.h").is_file(),
    "python3-venv": lambda: importlib.util.find_spec("ensurepip") is not None,
}


def wanted(root: Path, options: Options) -> list[str]:
    """Read the package names of requirements/apt*.txt for these options."""
    names = ["apt.txt"] + ([] if "sim" in options.without else ["apt-sim.txt"])
    lines = []
    for name in names:
        lines += (root / "requirements" / name).read_text(encoding="utf-8").splitlines()
    return [line.split("#")[0].strip() for line in lines if line.split("#")[0].strip()]


def missing(root: Path, options: Options) -> list[str]:
    """Return the system packages that are not there."""
    return [name for name in wanted(root, options) if not _present(name)]


def provide(root: Path, options: Options) -> None:
    """Install the missing system packages as root; otherwise say how.

    Raises:
        MissingSystemPackagesError: Something is missing and this is not root on a Debian system.
        CommandFailedError: apt-get failed.
    """
    names = missing(root, options)
    if not names:
        say("      all there")
        return
    debian = shutil.which("apt-get") is not None
    if not debian or os.geteuid() != 0:
        raise MissingSystemPackagesError(names, debian=debian)
    say(f"      installing {' '.join(names)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    log = root / "log" / "setup" / "apt.log"
    run("apt-get update", ["apt-get", "update"], log=log, environment=environment)
    command = ["apt-get", "install", "-y", "--no-install-recommends", *names]
    run("apt-get install", command, log=log, environment=environment)


def _present(name: str) -> bool:
    probe = _PROBES.get(name)
    if probe is not None:
        return probe()
    if shutil.which("dpkg-query") is None:
        return True  # another distribution: what cannot be probed is left to the person
    status = quiet_output(["dpkg-query", "-W", "-f=${Status}", name])
    return status is not None and status.endswith("ok installed")
