# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where the files of the suite stand: in a checkout, or in share/koch_vla of an installation."""

from __future__ import annotations

import os
from pathlib import Path


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


def default_rig(named: Path | None = None, *, sim: bool = False) -> Path:
    """See koch_rig.model.default_rig; it needs YAML, which koch doctor does without."""
    from koch_rig.model import default_rig as find

    found: Path = find(named, sim=sim)
    return found
