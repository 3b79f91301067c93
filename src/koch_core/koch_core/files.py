# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Files that appear whole or not at all, files with two places, and one writer at a time."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from koch_core.errors import KochError


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


@contextlib.contextmanager
def locked(path: Path, *, wait: bool) -> Iterator[None]:
    """Hold a lock file, so that one program at a time does something.

    The kernel holds the lock and frees it when the process ends, whatever ends it: a file that was
    left behind locks nothing. Other computers see it where the file system carries locks, as NFS
    does. docs/decisions.md says why this is no library.

    Args:
        path: Made and removed here; nothing else may be in it.
        wait: For whoever holds it.

    Raises:
        BlockingIOError: Another holder has it, and `wait` is false.
        OSError: It cannot be made, or the file system has no locks.
    """
    with contextlib.ExitStack() as stack:
        while True:
            # For writing, since NFS gives no exclusive lock to a reader (flock(2)).
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            stack.callback(os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            if _is_at(handle, path):
                break
            # Who held it has removed the file meanwhile: the next one would get a new file.
            stack.close()
        stack.callback(path.unlink, missing_ok=True)  # before it is closed, so that it is ours
        yield


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


class OutputBusyError(KochError):
    """Another program writes to the same place."""

    def __init__(self, out: Path) -> None:
        super().__init__(f"{out}: another program is writing there. Wait for it.")


@contextlib.contextmanager
def sole_writer(out: Path) -> Iterator[None]:
    """Keep a second conversion or edit from writing to the same place; parents are made.

    Raises:
        OutputBusyError: One is writing there.
        OSError: The place cannot be written.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(out.with_name(f".{out.name}.lock"), wait=False))
        except BlockingIOError as exc:
            raise OutputBusyError(out) from exc
        yield
