# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The five system calls that V4L2 needs, as the seam where tests put a fake kernel."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol


class Mapping(Protocol):
    """A mapped driver buffer."""

    def __getitem__(self, index: slice) -> bytes:
        """Copy bytes out."""
        ...

    def close(self) -> None:
        """Unmap."""
        ...


class Kernel(Protocol):
    """System calls on a video device. All failures are OSError with errno, as the real ones."""

    def open(self, path: str) -> int:
        """Open for reading and writing, non-blocking; returns a file descriptor."""
        ...

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure) -> None:
        """Call; the structure is changed in place."""
        ...

    def mmap(self, fd: int, length: int, offset: int) -> Mapping:
        """Map a driver buffer for reading."""
        ...

    def wait(self, fd: int, timeout_s: float) -> bool:
        """Wait until a buffer is ready or the device reports an error; False on timeout."""
        ...

    def close(self, fd: int) -> None:
        """Close the descriptor."""
        ...

    def monotonic_ns(self) -> int:
        """CLOCK_MONOTONIC in [ns]."""
        ...


class LinuxKernel:
    """The real system calls."""

    def open(self, path: str) -> int:
        """See Kernel."""
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def ioctl(self, fd: int, request: int, argument: ctypes.Structure) -> None:
        """See Kernel."""
        fcntl.ioctl(fd, request, argument)

    def mmap(self, fd: int, length: int, offset: int) -> Mapping:
        """See Kernel."""
        # PROT_WRITE as well: some drivers refuse a read-only map of a capture buffer.
        return mmap.mmap(
            fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset
        )

    def wait(self, fd: int, timeout_s: float) -> bool:
        """See Kernel."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(timeout_s * 1000.0))

    def close(self, fd: int) -> None:
        """See Kernel."""
        os.close(fd)

    def monotonic_ns(self) -> int:
        """See Kernel."""
        return time.monotonic_ns()


def holders(path: str, proc: Path = Path("/proc")) -> Sequence[str]:
    """Name the processes that have a device open, as far as this user may see them."""
    target = os.path.realpath(path)
    found = []
    for folder in sorted(proc.glob("[0-9]*"), key=lambda item: int(item.name)):
        try:
            links = [os.readlink(link) for link in (folder / "fd").iterdir()]
            if target in links and int(folder.name) != os.getpid():
                name = (folder / "comm").read_text().strip()
                found.append(f"{name} (pid {folder.name})")
        except OSError:
            continue  # another user's process, or one that just ended: nothing to tell about it
    return found
