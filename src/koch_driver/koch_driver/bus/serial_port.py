# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The serial port: exclusive open through dynamixel-sdk, then plain file-descriptor I/O."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import math
import os
import select
import stat
import termios
import time
from pathlib import Path

import serial
from dynamixel_sdk import PortHandler

from koch_driver.errors import (
    PortDenied,
    PortInUse,
    PortLost,
    PortNotFound,
    PortNotOpen,
    WrongPort,
)

DEFAULT_BAUD = 1_000_000
_READ_SIZE = 4096
_SCAN = ("/dev/serial/by-id/*", "/dev/ttyUSB*", "/dev/ttyACM*")


def list_ports() -> list[str]:
    """Serial ports of this computer, stable by-id names first, each device once."""
    seen: set[str] = set()
    ports = []
    for pattern in _SCAN:
        for path in sorted(glob.glob(pattern)):
            real = os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                ports.append(path)
    return ports


def latency_timer_s(port: str) -> float | None:
    """Latency timer of an FTDI adapter in [s]; None where the adapter has none."""
    name = os.path.basename(os.path.realpath(port))
    try:
        with open(f"/sys/class/tty/{name}/device/latency_timer", encoding="ascii") as file:
            return int(file.read()) * 1e-3
    except (OSError, ValueError):
        return None


class SerialPort:
    """A serial port held by this process alone.

    Reads never block and never spin: `receive` sleeps in poll() until bytes or the deadline come.
    Not thread safe.
    """

    def __init__(self, path: str, baud: int = DEFAULT_BAUD) -> None:
        self.path = path
        self.baud = baud
        self._handler: PortHandler | None = None
        self._lock_fd = -1
        self._fd = -1
        self._poll = select.poll()

    @property
    def is_open(self) -> bool:
        """Whether the port is open."""
        return self._fd >= 0

    def open(self) -> None:
        """Open and lock the port, raw, at the set baud rate.

        Raises:
            PortNotFound, PortDenied, PortInUse, WrongPort: As the names say.
        """
        if self.is_open:
            return
        self._lock_fd = self._lock()
        handler = PortHandler(self.path)
        handler.baudrate = self.baud
        try:
            if not handler.openPort():
                raise WrongPort(self.path, f"the adapter refuses {self.baud} baud")
        except (serial.SerialException, OSError, termios.error) as exc:
            self._unlock()
            raise WrongPort(self.path, f"it is not a usable serial port ({exc})") from exc
        except WrongPort:
            self._unlock()
            raise
        self._handler = handler
        self._fd = handler.ser.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        if not self._is_pty():
            # Keeps programs out that do not look at the lock. A pseudo-terminal would keep
            # the flag after our death, because its other side stays open.
            with contextlib.suppress(OSError):
                fcntl.ioctl(self._fd, termios.TIOCEXCL)

    def close(self) -> None:
        """Close and unlock. Idempotent."""
        handler, self._handler, self._fd = self._handler, None, -1
        if handler is not None:
            with contextlib.suppress(OSError, serial.SerialException, termios.error):
                handler.closePort()
        self._unlock()

    def set_baud(self, baud: int) -> None:
        """Change the baud rate of the open port."""
        self.baud = baud
        if self.is_open:
            self.close()
            self.open()

    def send(self, packet: bytes) -> None:
        """Write a packet.

        Raises:
            PortNotOpen: The port is closed.
            PortLost: The device vanished, or its buffer stays full.
        """
        try:
            sent = os.write(self._fd, packet)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            raise self._lost(exc) from exc
        if sent != len(packet):
            raise PortLost(self.path, "its output buffer is full, nobody takes the bytes")

    def drain(self) -> bytes:
        """Bytes that lie in the input buffer, without waiting."""
        return self._read() if self._poll.poll(0) else b""

    def receive(self, deadline: float) -> bytes:
        """Wait for bytes.

        Args:
            deadline: time.monotonic() in [s] after which nothing is waited for.

        Returns:
            What has arrived, at least one byte, or nothing at the deadline.
        """
        wait_s = deadline - time.monotonic()
        if wait_s <= 0.0:
            return self.drain()
        try:
            events = self._poll.poll(math.ceil(wait_s * 1e3))
        except OSError as exc:
            raise self._lost(exc) from exc
        return self._read() if events else b""

    def _read(self) -> bytes:
        try:
            data = os.read(self._fd, _READ_SIZE)
        except BlockingIOError:
            return b""
        except OSError as exc:
            raise self._lost(exc) from exc
        if not data and self._hung_up():
            raise self._lost(None)
        return data

    def _hung_up(self) -> bool:
        return any(e & (select.POLLHUP | select.POLLERR) for _, e in self._poll.poll(0))

    def _lost(self, exc: OSError | None) -> PortLost | PortNotOpen:
        if not self.is_open:
            return PortNotOpen(self.path)
        self.close()
        return PortLost(self.path, (exc.strerror if exc else None) or "the device hung up")

    def _is_pty(self) -> bool:
        return os.path.realpath(self.path).startswith("/dev/pts/")

    def _lock(self) -> int:
        """Lock the device before anything touches its settings; the file descriptor."""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as exc:
            raise PortNotFound(self.path, list_ports()) from exc
        except PermissionError as exc:
            raise PortDenied(self.path) from exc
        except OSError as exc:
            if exc.errno == errno.EBUSY:
                raise PortInUse(self.path, "another program") from exc
            if exc.errno in (errno.ENXIO, errno.ENODEV, errno.EIO):
                raise PortNotFound(self.path, list_ports()) from exc
            raise WrongPort(self.path, f"it cannot be opened ({exc.strerror})") from exc
        if not os.isatty(fd):
            kind = "a directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "not a serial port"
            os.close(fd)
            raise WrongPort(self.path, f"the path is {kind}")
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            holder = _holder(fd)
            os.close(fd)
            raise PortInUse(self.path, holder) from exc
        return fd

    def _unlock(self) -> None:
        fd, self._lock_fd = self._lock_fd, -1
        if fd >= 0:
            os.close(fd)


def _holder(fd: int) -> str:
    """Name of the process that holds the lock on the file behind `fd`."""
    status = os.fstat(fd)  # /proc/locks: major and minor of the file system, inode
    file = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    try:
        locks = [line.split() for line in Path("/proc/locks").read_text("ascii").splitlines()]
        for fields in locks:
            if "FLOCK" in fields and fields[5] == file:
                name = Path(f"/proc/{fields[4]}/comm").read_text("utf-8").strip()
                return f"process {fields[4]} ({name})"
    except (OSError, IndexError):
        return "another program"
    return "another program"
