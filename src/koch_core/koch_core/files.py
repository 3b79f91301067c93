# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, and files with two places."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path


def write_atomically(path: Path, text: str) -> None:
    """Write a text file under another name and then rename it; missing folders are made.

    Readers see the old content or the new one, whenever the program ends; another link to the
    old file keeps the old content.

    Raises:
        OSError: It cannot be written; the old file is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file a second place, its folders made; content and times stay as they are."""
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without hard links
        shutil.copy2(source, target)


_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def replace_folder(new: Path, target: Path, aside: Path) -> None:
    """Put a folder in the place of another one, which ends up at `new` or `aside`.

    Linux exchanges the two at once, so that there is a whole folder at `target` whenever the
    program ends. File systems that cannot (network ones) take two steps: between them the older
    folder is at `aside`.

    Raises:
        OSError: The folders cannot be renamed.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # another C library
        renameat2 = None
    places = [os.fsencode(path) for path in (new, target)]
    if renameat2 is not None and not renameat2(
        _AT_FDCWD, places[0], _AT_FDCWD, places[1], _RENAME_EXCHANGE
    ):
        return
    os.replace(target, aside)
    os.replace(new, target)
