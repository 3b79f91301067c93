# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Sources that PyAV demuxes: video files (paced by their own rate) and RTSP or HTTP streams."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import av
import av.error
import numpy as np

from koch_cameras.errors import (
    CameraError,
    CorruptFrameError,
    DepthFormatError,
    DeviceAccessError,
    DeviceNotFoundError,
    FrameSizeError,
    ModeNotOfferedError,
    SourceLostError,
    SourceStalledError,
    StreamEndedError,
    StreamFormatError,
)
from koch_cameras.frame import CameraFrame, Encoding, TimeBase, read_only
from koch_cameras.image import jpeg_size
from koch_cameras.mjpeg_http import public_url
from koch_cameras.source import Mode, SourceConfig

_RATE_TOLERANCE = 0.01
_DEPTH_FORMATS = ("gray16", "gray12", "gray10", "gray14", "grayf")


class AvSource:
    """A stream opened by PyAV. MJPEG packets pass untouched, other codecs are decoded to RGB."""

    def __init__(self, config: SourceConfig, options: dict[str, str] | None = None) -> None:
        """Open a network stream.

        Args:
            config: Settings.
            options: FFmpeg options; RTSP goes over TCP unless they say otherwise.

        Raises:
            SourceLostError: It cannot be opened.
            StreamFormatError: No video in it.
            ModeNotOfferedError: It has another size than asked for.
            DepthFormatError: 16-bit grey images.
        """
        self._name = public_url(str(config.index_or_path))
        self._config = config
        self._sequence = 0
        self._container = self._open(options)
        try:
            self._stream = self._pick_stream()
            self._mode = self._check(self._read_mode())
        except BaseException:
            self.close()
            raise
        self._frames = self._decode()

    @property
    def mode(self) -> Mode:
        """See FrameSource."""
        return self._mode

    def read(self) -> CameraFrame:
        """See FrameSource."""
        try:
            return next(self._frames)
        except StopIteration:
            return self._at_end()
        except CameraError:
            self._frames = self._decode()  # a generator that raised is spent
            raise
        except av.error.FFmpegError as exc:
            self._frames = self._decode()
            raise self._translate(exc) from exc

    def close(self) -> None:
        """See FrameSource."""
        self._container.close()

    def _open(self, options: dict[str, str] | None) -> Any:
        # nobuffer: the packets that FFmpeg reads to find out about the stream are dropped. Handed
        # out later in one burst they would be old images with fresh stamps.
        settings = {
            "rtsp_transport": "tcp",
            "fflags": "nobuffer",
            "analyzeduration": "500000",
            **(options or {}),
        }
        timeout_s = self._config.timeout_s
        try:
            return av.open(
                str(self._config.index_or_path), options=settings, timeout=(timeout_s, timeout_s)
            )
        except (av.error.FFmpegError, OSError) as exc:
            raise self._translate(exc) from exc

    def _pick_stream(self) -> Any:
        if not self._container.streams.video:
            raise StreamFormatError(self._name, "there is no video in it")
        stream = self._container.streams.video[0]
        stream.thread_type = "SLICE"  # frame threads would hold images back
        pixels = stream.codec_context.pix_fmt or ""
        if pixels.startswith(_DEPTH_FORMATS):
            raise DepthFormatError(f"camera {self._name}", pixels)
        return stream

    def _read_mode(self) -> Mode:
        rate = self._stream.average_rate
        return Mode(
            self._stream.codec_context.width,
            self._stream.codec_context.height,
            float(rate) if rate else None,
            "MJPG" if self._is_jpeg() else self._stream.codec_context.name.upper(),
        )

    def _is_jpeg(self) -> bool:
        return bool(self._stream.codec_context.name == "mjpeg")

    def _check(self, mode: Mode) -> Mode:
        wanted = self._config.capture_size
        if wanted is not None and wanted != (mode.width, mode.height):
            raise ModeNotOfferedError(self._name, self._config.wanted(), str(mode), [str(mode)])
        return mode

    def _decode(self) -> Iterator[CameraFrame]:
        for packet in self._container.demux(self._stream):
            arrival_ns = time.monotonic_ns()
            if self._is_jpeg():
                if packet.size:
                    yield self._jpeg_frame(packet, arrival_ns)
                continue
            for image in packet.decode():
                yield self._image_frame(image, arrival_ns)

    def _jpeg_frame(self, packet: Any, arrival_ns: int) -> CameraFrame:
        time_ns = self._stamp(packet.pts, arrival_ns)
        sequence = self._count()
        data = bytes(packet)
        size = jpeg_size(self._name, data)
        self._check_size(size)
        return CameraFrame(sequence, time_ns, TimeBase.MONOTONIC, Encoding.JPEG, *size, data)

    def _image_frame(self, image: Any, arrival_ns: int) -> CameraFrame:
        time_ns = self._stamp(image.pts, arrival_ns)
        sequence = self._count()
        if image.is_corrupt:
            raise CorruptFrameError(self._name, "the decoder marked it")
        size = (image.width, image.height)
        self._check_size(size)
        pixels = np.ascontiguousarray(image.to_ndarray(format="rgb24"))
        data = read_only(pixels)
        return CameraFrame(sequence, time_ns, TimeBase.MONOTONIC, Encoding.RGB8, *size, data)

    def _check_size(self, size: tuple[int, int]) -> None:
        if size != (self._mode.width, self._mode.height):
            raise FrameSizeError(self._name, (self._mode.width, self._mode.height), size)

    def _count(self) -> int:
        sequence, self._sequence = self._sequence, self._sequence + 1
        return sequence

    def _stamp(self, pts: int | None, arrival_ns: int) -> int:
        """FFmpeg does not hand out RTCP sender times, so the arrival is what we know."""
        del pts
        return arrival_ns

    def _at_end(self) -> CameraFrame:
        raise SourceLostError(self._name, "the server ended the stream")

    def _translate(self, error: Exception) -> CameraError:
        if isinstance(error, av.error.ExitError):
            return SourceStalledError(self._name, self._config.timeout_s)
        if isinstance(error, av.error.FileNotFoundError):
            return DeviceNotFoundError(self._name, [])
        if isinstance(error, av.error.InvalidDataError):
            return CorruptFrameError(self._name, str(error))
        return SourceLostError(self._name, str(error))


class FileSource(AvSource):
    """A video file played at its own rate; its images are stamped when they were due."""

    def __init__(
        self,
        config: SourceConfig,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Open the file; the first image is due at once.

        Raises:
            DeviceNotFoundError: No such file.
            StreamFormatError: Not a video.
            ModeNotOfferedError: Size or rate differ from what is asked for.
            DepthFormatError: 16-bit grey images.
        """
        self._now_ns = monotonic_ns
        self._sleep = sleep
        super().__init__(config)
        self._interval_ns = round(1e9 / (self._mode.fps or config.fps or 30.0))
        self._start_ns = monotonic_ns()

    def _open(self, options: dict[str, str] | None) -> Any:
        path = str(self._config.index_or_path)
        settings = dict(options or {})
        if path.endswith((".mjpeg", ".mjpg")) and self._config.fps:
            settings["framerate"] = f"{self._config.fps:g}"  # a bare packet file has no rate
        try:
            return av.open(path, options=settings)
        except av.error.FileNotFoundError as exc:
            raise DeviceNotFoundError(path, []) from exc
        except av.error.PermissionError as exc:
            raise DeviceAccessError(path) from exc
        except (av.error.FFmpegError, OSError) as exc:
            raise StreamFormatError(path, f"not a video file ({exc})") from exc

    def _check(self, mode: Mode) -> Mode:
        fps = self._config.fps
        if fps and mode.fps and abs(mode.fps - fps) > _RATE_TOLERANCE * fps:
            raise ModeNotOfferedError(self._name, self._config.wanted(), str(mode), [str(mode)])
        return super()._check(mode)

    def _stamp(self, pts: int | None, arrival_ns: int) -> int:
        """Wait until image number n is due, at start + n / rate."""
        del pts, arrival_ns
        due_ns = self._start_ns + self._sequence * self._interval_ns
        wait_ns = due_ns - self._now_ns()
        if wait_ns > 0:
            self._sleep(wait_ns / 1e9)
        return due_ns

    def _at_end(self) -> CameraFrame:
        if not self._config.loop:
            raise StreamEndedError(self._name)
        self._container.close()
        self._container = self._open(None)
        self._stream = self._pick_stream()
        self._frames = self._decode()
        try:
            return next(self._frames)
        except StopIteration as exc:
            raise StreamEndedError(self._name) from exc
