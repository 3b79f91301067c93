# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An open V4L2 device: what it is, which modes it has, and setting one."""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

from koch_cameras.errors import (
    CameraError,
    DeviceAccessError,
    DeviceBusyError,
    DeviceNotFoundError,
    NotACameraError,
    SourceLostError,
    UsbBandwidthError,
)
from koch_cameras.v4l2 import layout
from koch_cameras.v4l2.kernel import Kernel, holders
from koch_cameras.v4l2.listing import controller_of, device_paths, sharing_controller

_Structure = TypeVar("_Structure", bound=ctypes.Structure)

_ENUMERATION_LIMIT = 512
"""A broken driver may never answer EINVAL; no real camera has so many entries."""

_COMMON_SIZES = ((320, 240), (640, 360), (640, 480), (800, 600), (1280, 720), (1920, 1080))


@dataclass(frozen=True)
class DeviceMode:
    """One pixel format and size of a device with its rates in [Hz], fastest first."""

    fourcc: str
    width: int
    height: int
    rates_hz: tuple[float, ...]

    def __str__(self) -> str:
        rates = ", ".join(f"{rate:g}" for rate in self.rates_hz) or "rate not listed"
        return f"{self.fourcc} {self.width}x{self.height} at {rates} fps"


@dataclass(frozen=True)
class Identity:
    """Who the device says it is."""

    driver: str
    card: str
    bus: str
    captures: bool
    streams: bool


class Device:
    """A V4L2 device node, open until ``close``."""

    def __init__(self, path: str, kernel: Kernel) -> None:
        self.path = path
        self.kernel = kernel
        self._fd: int | None = None
        try:
            self._fd = kernel.open(path)
        except OSError as exc:
            raise translate(path, exc) from exc

    @property
    def fd(self) -> int:
        """The file descriptor.

        Raises:
            SourceLostError: The device is closed.
        """
        if self._fd is None:
            raise SourceLostError(self.path, "device is closed")
        return self._fd

    def call(self, request: int, argument: _Structure) -> _Structure:
        """Do an ioctl, with errors translated.

        Raises:
            CameraError: The leaf that fits errno.
        """
        try:
            self.kernel.ioctl(self.fd, request, argument)
        except OSError as exc:
            raise translate(self.path, exc) from exc
        return argument

    def identity(self) -> Identity:
        """Ask the device who it is.

        Raises:
            NotACameraError: The node is no V4L2 device at all.
        """
        answer = layout.Capability()
        try:
            self.kernel.ioctl(self.fd, layout.QUERYCAP, answer)
        except OSError as exc:
            if exc.errno in (errno.ENOTTY, errno.EINVAL):
                raise NotACameraError(self.path, "not a V4L2 device") from exc
            raise translate(self.path, exc) from exc
        flags = answer.capabilities
        if flags & layout.CAP_DEVICE_CAPS:
            flags = answer.device_caps
        return Identity(
            driver=_text(answer.driver),
            card=_text(answer.card),
            bus=_text(answer.bus_info),
            captures=bool(flags & layout.CAP_VIDEO_CAPTURE),
            streams=bool(flags & layout.CAP_STREAMING),
        )

    def modes(self, wanted: tuple[int, int] | None = None) -> list[DeviceMode]:
        """Enumerate formats, sizes and rates.

        Args:
            wanted: For devices that scale freely: a size to list beside the common ones.
        """
        found = []
        for fourcc in self._formats():
            for width, height in self._sizes(fourcc, wanted):
                rates = tuple(sorted(self._rates(fourcc, width, height), reverse=True))
                found.append(DeviceMode(layout.fourcc_text(fourcc), width, height, rates))
        return found

    def close(self) -> None:
        """Close the node; harmless when called twice."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            self.kernel.close(fd)

    def _enumerate(self, request: int, argument: _Structure) -> Iterator[_Structure]:
        for index in range(_ENUMERATION_LIMIT):
            argument.index = index
            try:
                self.kernel.ioctl(self.fd, request, argument)
            except OSError as exc:
                if exc.errno in (errno.EINVAL, errno.ENOTTY):
                    return
                raise translate(self.path, exc) from exc
            yield argument

    def _formats(self) -> list[int]:
        query = layout.FormatDescription(type=layout.CAPTURE)
        return [int(item.pixelformat) for item in self._enumerate(layout.ENUM_FMT, query)]

    def _sizes(self, fourcc: int, wanted: tuple[int, int] | None) -> list[tuple[int, int]]:
        query = layout.FrameSizeEnum(pixel_format=fourcc)
        sizes: list[tuple[int, int]] = []
        for item in self._enumerate(layout.ENUM_FRAMESIZES, query):
            if item.type == layout.DISCRETE:
                sizes.append((item.values[0], item.values[1]))
                continue
            candidates = {*_COMMON_SIZES, *([wanted] if wanted else [])}
            return sorted(size for size in candidates if _fits(size, item.values))
        return sizes

    def _rates(self, fourcc: int, width: int, height: int) -> Iterator[float]:
        query = layout.FrameIntervalEnum(pixel_format=fourcc, width=width, height=height)
        for item in self._enumerate(layout.ENUM_FRAMEINTERVALS, query):
            if item.values[0]:
                yield round(item.values[1] / item.values[0], 3)
            if item.type != layout.DISCRETE:
                if item.values[2]:
                    yield round(item.values[3] / item.values[2], 3)
                return


def translate(path: str, error: OSError) -> CameraError:
    """Turn the kernel's errno into the error that tells the person what to do."""
    code = error.errno
    if code == errno.ENOENT:
        return DeviceNotFoundError(path, device_paths())
    if code in (errno.EACCES, errno.EPERM):
        return DeviceAccessError(path)
    if code == errno.EBUSY:
        return DeviceBusyError(path, holders(path))
    if code == errno.ENOSPC:
        return UsbBandwidthError(path, controller_of(path), sharing_controller(path))
    if code in (errno.ENODEV, errno.ENXIO, errno.EIO, errno.EPROTO, errno.EPIPE):
        return SourceLostError(path, f"{error.strerror or error} (unplugged?)")
    return SourceLostError(path, f"the driver answered {error.strerror or error}")


def _fits(size: tuple[int, int], values: ctypes.Array[ctypes.c_uint32]) -> bool:
    min_w, max_w, step_w, min_h, max_h, step_h = (int(value) for value in values)
    return all(
        low <= value <= high and (value - low) % max(1, step) == 0
        for value, low, high, step in (
            (size[0], min_w, max_w, step_w),
            (size[1], min_h, max_h, step_h),
        )
    )


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")
