# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The pseudo-terminal that stands for a USB serial adapter, and its stable path."""

from __future__ import annotations

import contextlib
import os
import pty
import termios
import tty
from pathlib import Path

from koch_driver.errors import EmulatorError

_SPEED_CODES = {
    termios.B9600: 0,
    termios.B57600: 1,
    termios.B115200: 2,
    termios.B1000000: 3,
    termios.B2000000: 4,
    termios.B3000000: 5,
    termios.B4000000: 6,
}


class PtyPort:
    """One pty; `link` points to its user side while it is plugged in."""

    def __init__(self, link: Path | None) -> None:
        self.link = link
        self.path = ""
        self.fd = -1
        self._user_fd = -1  # kept open: without it reads fail whenever no client is there

    @property
    def plugged(self) -> bool:
        """Whether the port exists."""
        return self.fd >= 0

    def plug(self) -> str:
        """Make the pty and the link; the path for clients.

        Raises:
            EmulatorError: The link's place is taken by something that is no link.
        """
        if self.plugged:
            return self.client_path
        if self.link is not None and self.link.exists() and not self.link.is_symlink():
            raise EmulatorError("link to the port", str(self.link), "a free path or a link")
        self.fd, self._user_fd = pty.openpty()
        tty.setraw(self._user_fd)
        os.set_blocking(self.fd, False)
        self.path = os.ttyname(self._user_fd)
        if self.link is not None:
            self.link.parent.mkdir(parents=True, exist_ok=True)
            temporary = self.link.with_name(f".{self.link.name}.{os.getpid()}")
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
            temporary.symlink_to(self.path)
            os.replace(temporary, self.link)
        return self.client_path

    @property
    def client_path(self) -> str:
        """Path for clients: the link where there is one."""
        return str(self.link) if self.link is not None else self.path

    def unplug(self) -> None:
        """Take link and pty away; clients see the device hang up. Idempotent."""
        if not self.plugged:
            return
        if (
            self.link is not None
            and self.link.is_symlink()
            and os.readlink(self.link) == self.path
        ):
            self.link.unlink()
        for fd in (self.fd, self._user_fd):
            os.close(fd)
        self.fd = self._user_fd = -1

    def baud_code(self) -> int | None:
        """Baud_Rate code of the client's line setting; -1 for a rate no servo has."""
        return _SPEED_CODES.get(termios.tcgetattr(self.fd)[5], -1)

    def read(self) -> bytes:
        """Bytes from the client, without waiting."""
        try:
            return os.read(self.fd, 4096)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: the last client closed a broken line; nothing was sent
            return b""

    def write(self, data: bytes) -> None:
        """Bytes to the client; dropped when no one takes them, like on a wire."""
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self.fd, data)
