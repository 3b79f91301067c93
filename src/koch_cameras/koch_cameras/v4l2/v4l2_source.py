# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Camera source over the V4L2 streaming interface with mapped buffers.

PyAV's v4l2 demuxer hides what this package lives from: the driver's frame counter (lost frames are
counted, not guessed), the damaged-frame flag and the kind of the buffer's clock; and it waits for
a stalled device without limit. So the dozen ioctls are called here.
"""

from __future__ import annotations

import contextlib
import errno

import numpy as np
import numpy.typing as npt

from koch_cameras.errors import (
    CameraError,
    CorruptFrameError,
    DepthFormatError,
    FrameSizeError,
    ModeNotOfferedError,
    NotACameraError,
    SourceLostError,
    SourceStalledError,
)
from koch_cameras.frame import CameraFrame, Encoding, TimeBase, read_only
from koch_cameras.image import jpeg_size
from koch_cameras.source import Mode, SourceConfig
from koch_cameras.v4l2 import layout
from koch_cameras.v4l2.device import Device, DeviceMode, translate
from koch_cameras.v4l2.kernel import Kernel, LinuxKernel, Mapping

_ENCODINGS = {
    # In the order of preference where the rig names no fourcc.
    "MJPG": Encoding.JPEG,
    "JPEG": Encoding.JPEG,
    "YUYV": Encoding.YUYV,
    "UYVY": Encoding.UYVY,
    "NV12": Encoding.NV12,
    "RGB3": Encoding.RGB8,
    "BGR3": Encoding.BGR8,
    "GREY": Encoding.MONO8,
}
_DEPTH_FOURCCS = ("Z16 ", "Y16 ", "Y16 -BE", "INVZ", "INZI", "CNF4")
_BYTES_PER_PIXEL = {
    Encoding.YUYV: 2,
    Encoding.UYVY: 2,
    Encoding.RGB8: 3,
    Encoding.BGR8: 3,
    Encoding.MONO8: 1,
    Encoding.NV12: 1,
}
_BUFFERS = 4
_RATE_TOLERANCE = 0.01
"""29.97 passes for 30, 25 does not."""


class V4l2Source:
    """An open USB camera."""

    def __init__(self, config: SourceConfig, kernel: Kernel | None = None) -> None:
        """Open the device, set the mode and start the stream.

        Raises:
            DeviceNotFoundError: No such node.
            DeviceAccessError: Permission denied.
            DeviceBusyError: Another process streams.
            NotACameraError: The node does not capture.
            DepthFormatError: The device only has 16-bit depth formats.
            ModeNotOfferedError: The mode is not offered, or the device chose another.
            UsbBandwidthError: The USB controller is saturated.
        """
        self._path = device_path(config.index_or_path)
        self._timeout_s = config.timeout_s
        self._maps: list[Mapping] = []
        self._streaming = False
        self._device = Device(self._path, kernel or LinuxKernel())
        try:
            self._check_capture()
            self._configure(config)
            self._start()
        except BaseException:
            self.close()
            raise

    @property
    def mode(self) -> Mode:
        """See FrameSource."""
        return self._mode

    def read(self) -> CameraFrame:
        """See FrameSource."""
        if not self._device.kernel.wait(self._device.fd, self._timeout_s):
            raise SourceStalledError(self._path, self._timeout_s)
        buffer = layout.Buffer(type=layout.CAPTURE, memory=layout.MMAP)
        self._device.call(layout.DQBUF, buffer)
        arrival_ns = self._device.kernel.monotonic_ns()
        if buffer.index >= len(self._maps):
            raise SourceLostError(self._path, f"driver returned buffer {buffer.index}")
        data = self._maps[buffer.index][0 : buffer.bytesused]
        sequence, flags = int(buffer.sequence), int(buffer.flags)
        stamp = buffer.timestamp
        time_ns = int(stamp.seconds) * 1_000_000_000 + int(stamp.microseconds) * 1000
        self._device.call(layout.QBUF, buffer)
        if flags & layout.BUF_FLAG_TIMESTAMP_MASK != layout.BUF_FLAG_TIMESTAMP_MONOTONIC:
            time_ns = arrival_ns
        if flags & layout.BUF_FLAG_ERROR:
            raise CorruptFrameError(self._path, "the driver marked the buffer as damaged")
        return self._frame(sequence, time_ns, data)

    def close(self) -> None:
        """See FrameSource."""
        with contextlib.suppress(CameraError):  # an unplugged device cannot be stopped any more
            if self._streaming:
                self._streaming = False
                self._device.call(layout.STREAMOFF, layout.BufferType(layout.CAPTURE))
        for mapping in self._maps:
            mapping.close()
        self._maps = []
        self._device.close()

    def _check_capture(self) -> None:
        identity = self._device.identity()
        if not identity.captures:
            raise NotACameraError(self._path, f"{identity.card} does not capture video here")
        if not identity.streams:
            raise NotACameraError(self._path, f"{identity.card} has no streaming interface")

    def _configure(self, config: SourceConfig) -> None:
        offered = self._device.modes(config.capture_size)
        names = [str(mode) for mode in offered]
        fourccs = list(dict.fromkeys(mode.fourcc for mode in offered))
        if fourccs and all(name in _DEPTH_FOURCCS for name in fourccs):
            raise DepthFormatError(f"camera {self._path}", fourccs[0].strip())
        if config.fourcc in _DEPTH_FOURCCS:
            raise DepthFormatError(f"camera {self._path}", config.fourcc.strip())
        choice = choose_mode(offered, config)
        if choice is None:
            raise ModeNotOfferedError(self._path, config.wanted(), "nothing that fits", names)
        pix = self._set_format(choice)
        fps = self._set_rate(config.fps)
        real = Mode(pix.width, pix.height, fps, layout.fourcc_text(pix.pixelformat))
        if (real.width, real.height, real.fourcc) != (choice.width, choice.height, choice.fourcc):
            raise ModeNotOfferedError(self._path, config.wanted(), str(real), names)
        if config.fps and fps and abs(fps - config.fps) > _RATE_TOLERANCE * config.fps:
            raise ModeNotOfferedError(self._path, config.wanted(), str(real), names)
        self._mode = real
        self._encoding = _ENCODINGS[real.fourcc]
        self._stride = int(pix.bytesperline)
        self._full_range = pix.quantization == layout.QUANTIZATION_FULL_RANGE

    def _set_format(self, choice: DeviceMode) -> layout.PixelFormat:
        request = layout.Format(type=layout.CAPTURE)
        request.fmt.pix.width = choice.width
        request.fmt.pix.height = choice.height
        request.fmt.pix.pixelformat = layout.fourcc_number(choice.fourcc)
        request.fmt.pix.field = layout.FIELD_NONE
        pix: layout.PixelFormat = self._device.call(layout.S_FMT, request).fmt.pix
        return pix

    def _set_rate(self, fps: float | None) -> float | None:
        """Ask for a rate; returns what the device set, or None where it cannot tell."""
        parm = layout.StreamParm(type=layout.CAPTURE)
        try:
            self._device.kernel.ioctl(self._device.fd, layout.G_PARM, parm)
            if fps is not None and parm.parm.capture.capability & layout.CAP_TIMEPERFRAME:
                parm.parm.capture.numerator = 1000
                parm.parm.capture.denominator = round(fps * 1000)
                self._device.kernel.ioctl(self._device.fd, layout.S_PARM, parm)
        except OSError as exc:
            if exc.errno in (errno.ENOTTY, errno.EINVAL):
                return None  # the driver has no rate control; the watch measures the rate
            raise translate(self._path, exc) from exc
        capture = parm.parm.capture
        if not capture.numerator:
            return None
        return round(float(capture.denominator / capture.numerator), 3)

    def _start(self) -> None:
        request = layout.RequestBuffers(count=_BUFFERS, type=layout.CAPTURE, memory=layout.MMAP)
        self._device.call(layout.REQBUFS, request)
        for index in range(request.count):
            buffer = layout.Buffer(index=index, type=layout.CAPTURE, memory=layout.MMAP)
            self._device.call(layout.QUERYBUF, buffer)
            try:
                mapping = self._device.kernel.mmap(self._device.fd, buffer.length, buffer.m.offset)
            except OSError as exc:
                raise translate(self._path, exc) from exc
            self._maps.append(mapping)
            self._device.call(layout.QBUF, buffer)
        self._device.call(layout.STREAMON, layout.BufferType(layout.CAPTURE))
        self._streaming = True

    def _frame(self, sequence: int, time_ns: int, data: bytes) -> CameraFrame:
        mode = self._mode
        content: bytes | npt.NDArray[np.uint8]
        if self._encoding is Encoding.JPEG:
            size = jpeg_size(self._path, data)
            if size != (mode.width, mode.height):
                raise FrameSizeError(self._path, (mode.width, mode.height), size)
            content = data
        else:
            content = self._unpack(data)
        return CameraFrame(
            sequence,
            time_ns,
            TimeBase.MONOTONIC,
            self._encoding,
            mode.width,
            mode.height,
            content,
            self._full_range,
        )

    def _unpack(self, data: bytes) -> npt.NDArray[np.uint8]:
        """Drop the padding of the rows; a packed buffer is viewed, not copied."""
        rows = self._mode.height * 3 // 2 if self._encoding is Encoding.NV12 else self._mode.height
        depth = _BYTES_PER_PIXEL[self._encoding]
        row = self._mode.width * depth
        stride = max(self._stride, row)
        if len(data) < stride * (rows - 1) + row:
            raise CorruptFrameError(
                self._path, f"{len(data)} bytes, expected {rows} rows of {stride}"
            )
        shape = (rows, self._mode.width) if depth == 1 else (rows, self._mode.width, depth)
        strides = (stride, 1) if depth == 1 else (stride, depth, 1)
        view: npt.NDArray[np.uint8] = np.ndarray(shape, np.uint8, data, strides=strides)
        return read_only(view)


def device_path(index_or_path: int | str) -> str:
    """OpenCV-style index or a path to the device path."""
    return f"/dev/video{index_or_path}" if isinstance(index_or_path, int) else index_or_path


def choose_mode(offered: list[DeviceMode], config: SourceConfig) -> DeviceMode | None:
    """Pick the mode that gives what is asked, MJPG before raw formats; None if none fits.

    A mode without a list of rates fits any rate: what it really does is read back later.
    """
    size = config.capture_size
    wanted = [config.fourcc] if config.fourcc else list(_ENCODINGS)
    best: DeviceMode | None = None
    for fourcc in wanted:
        fits = [
            mode
            for mode in offered
            if mode.fourcc == fourcc
            and fourcc in _ENCODINGS
            and (size is None or (mode.width, mode.height) == size)
            and _has_rate(mode, config.fps)
        ]
        if fits:
            best = max(fits, key=lambda mode: mode.width * mode.height)
            break
    return best


def _has_rate(mode: DeviceMode, fps: float | None) -> bool:
    if fps is None or not mode.rates_hz:
        return True
    return any(abs(rate - fps) <= _RATE_TOLERANCE * fps for rate in mode.rates_hz)
