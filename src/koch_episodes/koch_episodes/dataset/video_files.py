# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joining mp4 files without re-encoding, and looking at what is in them."""

from __future__ import annotations

import errno
import functools
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt

from koch_episodes.errors import DatasetFormatError, VideoError

if TYPE_CHECKING:
    from koch_episodes.dataset.format import Episode

DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_SAMPLES = 16  # parts of a file that are looked at to recognise it
_SAMPLE_BYTES = 1 << 16
_CANONICAL = {"libdav1d": "av1", "libsvtav1": "av1", "libx264": "h264", "libx265": "hevc"}


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What demuxing (not decoding) tells about a video file.

    Attributes:
        codec: Canonical name: ``h264``, ``av1``, ``mjpeg``.
        pix_fmt: Pixel format.
        height: In [px].
        width: In [px].
        times_s: Presentation time of every frame in [s], sorted, float64.
        keys: Whether the frame (in the order of times_s) is a key frame.
        average_fps: As the container states it (torchcodec relies on it), 0 if unknown.
        has_audio: Whether there is a sound track.
    """

    codec: str
    pix_fmt: str
    height: int
    width: int
    times_s: npt.NDArray[np.float64]
    keys: npt.NDArray[np.bool_]
    average_fps: float
    has_audio: bool

    @property
    def frames(self) -> int:
        """Count of frames."""
        return len(self.times_s)


def probe(path: Path) -> VideoFacts:
    """Read the facts of a video file.

    Raises:
        VideoError: The file is missing, broken or has no video stream.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(path, "has no video stream")
            if container.streams.video[0].codec_context is None:
                raise VideoError(path, "holds no codec that can be decoded here")
            stream = container.streams.video[0]
            base = stream.time_base or Fraction(0)
            pairs = _indexed(path, container, stream) or _demuxed(container, stream)
            context = stream.codec_context
            return VideoFacts(
                _CANONICAL.get(context.name, context.name),
                context.pix_fmt or "",
                context.height,
                context.width,
                # int64 over int: exact, and 20 times quicker than fractions.
                np.array([pts for pts, _ in pairs], np.int64) * base.numerator / base.denominator,
                np.array([key for _, key in pairs], dtype=bool),
                float(stream.average_rate or 0),
                bool(container.streams.audio),
            )
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise VideoError(path, f"cannot be read: {exc}") from exc


def _indexed(path: Path, container: Any, stream: Any) -> list[tuple[int, bool]]:
    """Take times and key frames from the container's index, without reading the images.

    The index holds decoding times. Where the first packets show that these are not presentation
    times (B-frames), or the file ends before its last image, nothing is returned.
    """
    entries = list(stream.index_entries)
    if len(entries) < 2 or entries[-1].pos + entries[-1].size > path.stat().st_size:
        return []
    for entry, packet in zip(entries[:4], container.demux(stream), strict=False):
        if packet.pts != packet.dts or packet.pts != entry.timestamp:
            container.seek(0, stream=stream)
            return []
    return [(entry.timestamp, entry.is_keyframe) for entry in entries]


def _demuxed(container: Any, stream: Any) -> list[tuple[int, bool]]:
    return sorted(
        (packet.pts, packet.is_keyframe)
        for packet in container.demux(stream)
        if packet.pts is not None and packet.size
    )


def check_places(key: str, episodes: Sequence[Episode], fps: float) -> None:
    """Refuse episodes that lie where a camera's files have no images, or those of another.

    A table that was edited, or written by a program that counts otherwise, would show one
    episode's numbers beside the images of another.

    Args:
        key: Camera feature.
        episodes: Each with its file and its time there.
        fps: Frames per second.

    Raises:
        DatasetFormatError: Naming episode and file.
        VideoError: A file cannot be read.
    """
    by_file: dict[Path, list[Episode]] = {}
    for episode in episodes:
        by_file.setdefault(episode.videos[key].path, []).append(episode)
    half_s = 0.5 / fps
    for path, shown in by_file.items():
        end_s = probe(path).frames / fps
        shown.sort(key=lambda episode: episode.videos[key].from_s)
        free_s = 0.0
        for place, episode in enumerate(shown):
            from_s = episode.videos[key].from_s
            to_s = from_s + episode.length / fps
            where = f"episode {episode.index} at {from_s:.3f} to {to_s:.3f} s"
            if from_s < free_s - half_s:
                before = f"that of episode {shown[place - 1].index}" if place else "the file"
                ends = "ends" if place else "begins"
                raise DatasetFormatError(
                    path, where, f"a begin after {before} {ends}, {free_s:.3f} s"
                )
            if to_s > end_s + half_s:
                raise DatasetFormatError(
                    path, where, f"an end in the file, which has {end_s:.3f} s"
                )
            free_s = to_s


def files_digest(files: Iterable[Path]) -> str:
    """Return a hash of some files' sizes and of 1 MB of each, spread over it.

    Raises:
        OSError: One cannot be read.
    """
    return _files_digest(
        tuple((path, path.stat().st_size, path.stat().st_mtime_ns) for path in files)
    )


@functools.lru_cache(maxsize=64)  # each checkpoint of a run tells it
def _files_digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, size, _ in files:
        digest.update(f"{size}\n".encode())
        with path.open("rb") as file:
            for place in sorted({size * part // _SAMPLES for part in range(_SAMPLES)}):
                file.seek(place)
                digest.update(file.read(_SAMPLE_BYTES))
            file.seek(max(0, size - _SAMPLE_BYTES))
            digest.update(file.read())
    return digest.hexdigest()


def can_join(first: Path, second: Path) -> bool:
    """Tell whether the second file can continue the first one's stream."""

    def key(path: Path) -> tuple[Any, ...]:
        with av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            return (
                context.name,
                context.width,
                context.height,
                context.pix_fmt,
                context.extradata,
            )

    return key(first) == key(second)


def join(parts: Sequence[Path], frames: Sequence[int], out: Path) -> None:
    """Write one mp4 that shows the parts in turn, by stream copy.

    Args:
        parts: Files of one codec and size, each evenly spaced from 0.
        frames: Count of frames of each part.
        out: File to create; with one part, the part is moved there.

    Raises:
        OSError: The disk is full.
        VideoError: Reading or writing failed otherwise.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if len(parts) == 1:
        os.replace(parts[0], out)
        return
    try:
        with av.open(str(out), "w", format="mp4", options={"movflags": "+faststart"}) as target:
            stream: Any = None
            shown = 0
            for part, count in zip(parts, frames, strict=True):
                with av.open(str(part)) as source:
                    origin = source.streams.video[0]
                    if stream is None:
                        stream = target.add_stream_from_template(origin, opaque=True)
                        stream.time_base = origin.time_base
                    _append(target, stream, source, shown, count)
                shown += count
    except (av.FFmpegError, OSError, ValueError) as exc:
        code = getattr(exc, "errno", None)
        if code in DISK_ERRORS:
            raise OSError(code, os.strerror(code)) from exc
        raise VideoError(out, f"cannot be joined: {exc}") from exc


def _append(target: Any, stream: Any, source: Any, shown: int, count: int) -> None:
    origin = source.streams.video[0]
    step = round(1 / (origin.average_rate * origin.time_base))
    seen = 0
    for packet in source.demux(origin):
        if packet.pts is None or not packet.size:
            continue
        packet.pts += shown * step
        packet.dts = (packet.dts or 0) + shown * step
        packet.duration = step
        packet.stream = stream
        target.mux(packet)
        seen += 1
    if seen != count:
        raise ValueError(f"{source.name} holds {seen} frames, expected {count}")
