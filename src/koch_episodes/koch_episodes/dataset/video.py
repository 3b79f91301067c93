# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Encoding of camera images to mp4: H.264, AV1, or the camera's own MJPEG packets.

A JPEG is decoded to its own YUV planes and goes to the encoder as yuv420p; there is no RGB on the
way. JPEG uses the full range 0..255, video the limited range 16..235: the planes are scaled and
the stream is tagged, so that every player shows the same brightness.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from koch_core.closing import Closing
from koch_core.yuv import is_full_range, limited_yuv420p
from koch_episodes.dataset.layout import Codec
from koch_episodes.errors import VideoError

# mp4 ticks per frame; 512 gives the 1/15360 s of LeRobot's own files at 30 frames/s.
TICKS_PER_FRAME = 512
_NO_IMAGE_TYPE = 0


@dataclass(frozen=True)
class VideoSettings:
    """How to encode.

    Attributes:
        codec: Target.
        crf: Constant rate factor; smaller is better and bigger.
        gop: Frames from one key frame to the next; 2 as in LeRobot keeps random access quick.
        preset: The encoder's speed preset.
        threads: Encoder threads, 0 for the encoder's own choice.
    """

    codec: Codec = Codec.H264
    crf: int = 23
    gop: int = 2
    preset: str = "ultrafast"
    threads: int = 1

    @classmethod
    def for_codec(cls, codec: Codec, threads: int = 1) -> VideoSettings:
        """Return the defaults of a codec (AV1: LeRobot's)."""
        if codec is Codec.AV1:
            return cls(codec, crf=30, gop=2, preset="12", threads=threads)
        return cls(codec, threads=threads)


def give_back_priority() -> None:
    """Let the threads of this process run as ordinary ones again.

    SVT-AV1, run by root, gives its threads and their caller real-time priority 99: a conversion
    would then go before the driver that holds an arm.
    """
    if not hasattr(os, "sched_setscheduler"):
        return  # not Linux, where SVT-AV1 does not do it either
    for thread in Path("/proc/self/task").iterdir():
        # A thread that has ended since the listing needs nothing any more.
        with contextlib.suppress(ProcessLookupError):
            if os.sched_getscheduler(int(thread.name)) == os.SCHED_FIFO:
                os.sched_setscheduler(int(thread.name), os.SCHED_OTHER, os.sched_param(0))


class VideoWriter(Closing):
    """Writes one mp4 of evenly spaced frames, first at 0.

    Args:
        path: File to create.
        settings: Codec and its parameters.
        fps: Frames per second.
        height: Image height in [px].
        width: Image width in [px].

    Raises:
        VideoError: The encoder cannot be opened: odd sizes do not fit yuv420p, or it knows no
            such preset.
    """

    def __init__(
        self, path: Path, settings: VideoSettings, fps: int, height: int, width: int
    ) -> None:
        self.path = path
        self.settings = settings
        self.frames = 0
        self._size = (height, width)
        self._reformat = VideoReformatter()
        if settings.codec is not Codec.COPY and (height % 2 or width % 2):
            raise VideoError(path, f"size {width}x{height} is odd; yuv420p needs even sides")
        # The index in front lets players stream over a network; it costs writing the file twice,
        # which for copied packets is most of the work.
        options = {} if settings.codec is Codec.COPY else {"movflags": "+faststart"}
        self._container: Any = av.open(str(path), "w", format="mp4", options=options)
        try:
            self._stream = self._open_stream(fps)
        except (av.FFmpegError, ValueError) as exc:
            self._container.close()
            asked = f"crf {settings.crf} and preset {settings.preset!r}"
            raise VideoError(path, f"no encoder opens with {asked}: {exc}") from exc

    def _open_stream(self, fps: int) -> Any:
        settings = self.settings
        if settings.codec is Codec.COPY:
            stream: Any = self._container.add_stream("mjpeg", rate=fps)
            stream.pix_fmt = "yuvj422p"
        else:
            name = "libx264" if settings.codec is Codec.H264 else "libsvtav1"
            # SVT-AV1 writes 25 lines for each video past FFmpeg's log; 1 leaves its errors.
            os.environ.setdefault("SVT_LOG", "1")
            stream = self._container.add_stream(name, rate=fps, options=self._options())
            stream.pix_fmt = "yuv420p"
            context = stream.codec_context
            context.gop_size = settings.gop
            context.thread_count = settings.threads
            context.color_range = ColorRange.MPEG
            context.colorspace = Colorspace.ITU601
        stream.height, stream.width = self._size
        stream.time_base = Fraction(1, fps * TICKS_PER_FRAME)
        stream.codec_context.time_base = Fraction(1, fps)
        if settings.codec is not Codec.COPY:
            stream.codec_context.open()  # here, not at the first image: what it refuses is known
        return stream

    def _options(self) -> dict[str, str]:
        settings = self.settings
        options = {"crf": str(settings.crf), "preset": settings.preset}
        if settings.codec is Codec.AV1:
            # Looking ahead changes nothing at constant quality, but holds 20 MB of images.
            options["svtav1-params"] = f"lp={max(1, settings.threads)}:lookahead=0"
        else:
            # The table holds one row per frame: no B-frames, so that the first pts is 0.
            options["bf"] = "0"
        return options

    def write(self, frame: av.VideoFrame, repeat: int = 1) -> None:
        """Encode a frame `repeat` times."""
        if (frame.height, frame.width) != self._size:
            raise VideoError(self.path, f"frame of {frame.width}x{frame.height} px among others")
        planes = self._to_yuv420p(frame)
        for _ in range(repeat):
            planes.pts = self.frames
            planes.time_base = self._stream.codec_context.time_base
            self._mux(self._stream.encode(planes))
            self.frames += 1
            if self.frames == 1 and self.settings.codec is Codec.AV1:
                give_back_priority()

    def write_rgb(self, image: npt.NDArray[np.uint8]) -> None:
        """Encode one RGB image: uint8, shape (H, W, 3)."""
        self.write(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24"))

    def write_packet(self, data: bytes, repeat: int = 1) -> None:
        """Store a JPEG as it is, `repeat` times (codec ``copy`` only)."""
        for _ in range(repeat):
            packet = av.Packet(data)
            packet.stream = self._stream
            packet.pts = packet.dts = self.frames
            packet.duration = 1
            packet.time_base = self._stream.codec_context.time_base
            packet.is_keyframe = True
            self._container.mux(packet)
            self.frames += 1

    def _to_yuv420p(self, frame: av.VideoFrame) -> av.VideoFrame:
        planes = limited_yuv420p(frame)
        if planes is not None:
            return planes
        full = is_full_range(frame) or frame.format.is_rgb
        planes = self._reformat.reformat(
            frame,
            format="yuv420p",
            src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
            dst_color_range=ColorRange.MPEG,
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            threads=1,
        )
        # A decoded JPEG says "I"; the encoder would obey and make every frame a key frame.
        planes.pict_type = _NO_IMAGE_TYPE
        return planes

    def _mux(self, packets: Iterable[Any]) -> None:
        for packet in packets:
            packet.duration = packet.duration or 1
            self._container.mux(packet)

    def close(self) -> None:
        """Flush the encoder and finish the file; again: nothing."""
        if self._container is None:
            return
        container, self._container = self._container, None
        try:
            if self.settings.codec is not Codec.COPY and self.frames:
                for packet in self._stream.encode(None):
                    packet.duration = packet.duration or 1
                    container.mux(packet)
        finally:
            container.close()


def video_info(facts: Mapping[str, Any], settings: VideoSettings, fps: int) -> dict[str, Any]:
    """Return the `info` block of a camera feature in LeRobot's order."""
    info: dict[str, Any] = {
        "is_depth_map": False,
        "video.height": facts["height"],
        "video.width": facts["width"],
        "video.codec": facts["codec"],
        "video.pix_fmt": facts["pix_fmt"],
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    if settings.codec is not Codec.COPY:
        preset = int(settings.preset) if settings.preset.isdigit() else settings.preset
        info.update(
            {
                "video.g": settings.gop,
                "video.crf": settings.crf,
                "video.preset": preset,
                "video.fast_decode": 0,
                "video.video_backend": "pyav",
                "video.extra_options": {},
            }
        )
    return info
