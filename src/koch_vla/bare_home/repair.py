# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Repairs the CMake files of the ROS wheels, which name folders of the machine that built them."""

import re
from pathlib import Path

# The wheels are built in an image whose interpreters lie under /opt/python/<tag>/; the exported
# targets keep that interpreter's include folder and its numpy's.
_PYTHON_INCLUDE = re.compile(r"/opt/python/[\w.-]+/include/python3\.\d+t?")
_NUMPY_INCLUDE = re.compile(
    r"/opt/python/[\w.-]+/lib/python3\.\d+t?/site-packages/numpy/(?:_core|core)/include"
)


def repair_text(text: str, python_include: str, numpy_include: str) -> str:
    """Return a CMake file's text with the builder's include folders replaced by ours.

    Args:
        text: The file as the wheel brought it, or as repaired before.
        python_include: Folder that holds Python.h.
        numpy_include: Folder that holds numpy/arrayobject.h.
    """
    text = _NUMPY_INCLUDE.sub(lambda _: numpy_include, text)
    return _PYTHON_INCLUDE.sub(lambda _: python_include, text)


def repair_wheels(prefix: Path, python_include: str, numpy_include: str) -> list[Path]:
    """Rewrite the exported CMake targets below a virtual environment.

    Args:
        prefix: Root of the virtual environment.
        python_include: Folder that holds Python.h.
        numpy_include: Folder that holds numpy/arrayobject.h.

    Returns:
        The files that changed; empty when everything was repaired before.
    """
    changed = []
    for path in sorted((prefix / "share").glob("*/cmake/*.cmake")):
        before = path.read_text(encoding="utf-8")
        after = repair_text(before, python_include, numpy_include)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed.append(path)
    return changed
