# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Leases: which of several workers, here or on other computers, is at a bag.

A lease saves work that would be done twice, and no more: a worker's result appears complete or not
at all, and every worker makes the same one. So a worker that was paused until its lease ran out
does no harm. A lease is a file that must not exist before: every file system can refuse that.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

#: A lease that shows no sign of life for so long is free, [s].
EXPIRY_S = 30.0
_BEAT_S = EXPIRY_S / 6
_POLL_S = 0.5


def _machine() -> str:
    """Name what process numbers count in: this start of the kernel, and the container."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


@contextlib.contextmanager
def leased(path: Path) -> Iterator[bool]:
    """Take a lease, if nobody has it, and keep it alive; yields whether it was to be had.

    Raises:
        OSError: The folder cannot be written.
    """
    holder = f"{os.getpid()} {_machine()} {time.time_ns()}"
    try:
        with path.open("x", encoding="ascii") as file:
            file.write(holder)
    except FileExistsError:
        yield False
        return
    ended = threading.Event()
    beat = threading.Thread(target=_beat, args=(path, holder, ended), daemon=True)
    beat.start()
    try:
        yield True
    finally:
        ended.set()
        beat.join()
        if _read(path) == holder:
            path.unlink(missing_ok=True)


def _beat(path: Path, holder: str, ended: threading.Event) -> None:
    while not ended.wait(_BEAT_S):
        if _read(path) != holder:  # it ran out, and another worker has it
            return
        with contextlib.suppress(OSError):
            os.utime(path)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        return ""


class Watch:
    """Tells leases that are held from those whose holder is gone, and removes the latter.

    Clocks of several computers are not compared: a lease has run out when this process has seen
    no change of it for `EXPIRY_S`. That of a process of this machine is free once it has ended.
    """

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[object, float]] = {}

    def is_free(self, path: Path) -> bool:
        """Tell whether the lease may be taken."""
        try:
            stamp = (path.stat().st_mtime_ns, path.read_text(encoding="ascii"))
        except FileNotFoundError:
            return True
        before, since = self._seen.get(path, (None, 0.0))
        is_still = before == stamp and time.monotonic() - since > EXPIRY_S
        if is_still or _has_ended(stamp[1]):
            path.unlink(missing_ok=True)
            return True
        if before != stamp:
            self._seen[path] = stamp, time.monotonic()
        return False

    def is_held(self, path: Path) -> bool:
        """Wait until it is free, or its holder has given a sign of life; tell whether it has."""
        while not self.is_free(path):
            time.sleep(_POLL_S)
            first = self._seen.get(path)
            if first is not None and not self.is_free(path) and self._seen.get(path) != first:
                return True
        return False


def pause() -> None:
    """Let other workers go on for a moment."""
    time.sleep(_POLL_S)


def _has_ended(holder: str) -> bool:
    """Tell whether the holder was a process of this machine that is no more."""
    number, _, rest = holder.partition(" ")
    if not rest.startswith(_machine()):
        return False
    with contextlib.suppress(PermissionError):  # of another user, and alive
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return True
    return False
