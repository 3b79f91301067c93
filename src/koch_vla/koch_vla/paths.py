# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files of the suite stand: in a checkout, or in share/koch_vla of an installation."""

from __future__ import annotations

import os
from pathlib import Path

from koch_vla.errors import RigFileNotFoundError


def checkout() -> Path | None:
    """Return the top of the repository that this module runs from, None when installed."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "src" / "koch_vla" / "package.xml").is_file():
            return folder
    return None


def package_prefix(package: str) -> Path | None:
    """Look a package up in the ament index, whose folders AMENT_PREFIX_PATH lists.

    Source: REP-122 and the ament resource index specification,
    https://github.com/ament/ament_cmake/blob/master/ament_cmake_core/doc/resource_index.md
    """
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        marker = Path(prefix) / "share" / "ament_index" / "resource_index" / "packages" / package
        if prefix and marker.exists():
            return Path(prefix)
    return None


def share_folders() -> list[Path]:
    """List the folders that may hold `launch config urdf`, the best one first.

    The working directory's repository comes first, so that an edited rig file is used without
    another build; then the checkout of this module; then the installation.
    """
    folders: list[Path] = []
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "src" / "koch_vla" / "package.xml").is_file():
            folders.append(folder)
            break
    own = checkout()
    if own is not None and own not in folders:
        folders.append(own)
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / "koch_vla"
        if prefix and share.is_dir():
            folders.append(share)
    return folders


def find_shared(relative: str) -> Path | None:
    """Find a file such as `config/rviz/koch.rviz` in the first folder that holds it."""
    for folder in share_folders():
        candidate = folder / relative
        if candidate.exists():
            return candidate
    return None


def default_rig(*, sim: bool = False) -> Path:
    """Return the rig file to use when the user names none.

    Args:
        sim: True for the simulated rig. False for KOCH_RIG or the real one.

    Raises:
        RigFileNotFoundError: There is none.
    """
    relative = "config/rig.sim.yaml" if sim else "config/rig.yaml"
    chosen = os.environ.get("KOCH_RIG")
    if chosen and not sim:
        return Path(chosen).expanduser().resolve()
    found = find_shared(relative)
    if found is None:
        raise RigFileNotFoundError([folder / relative for folder in share_folders()])
    return found.resolve()
