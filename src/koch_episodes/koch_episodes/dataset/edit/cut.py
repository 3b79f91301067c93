# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Cutting a stretch out of a video: packets are copied wherever the codec allows it.

A decoder can begin at key frames only. A stretch that begins at one is copied as it is. Of one
that begins between two, the frames up to the next key frame are encoded again, and the rest is
copied behind them; where the file's stream header is not one that our encoder writes, the two
cannot be in one file, and the whole stretch is encoded again. So is a stretch whose frames are
not evenly spaced, and one of a stream that shows frames in another order than it stores them and
that ends between two key frames.
"""

from __future__ import annotations

import enum
import functools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from koch_episodes.dataset.format import VideoPlace
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.video import VideoSettings, VideoWriter
from koch_episodes.dataset.video_files import VideoFacts, can_join, join, probe
from koch_episodes.errors import VideoError

_CODECS = {"h264": Codec.H264, "av1": Codec.AV1, "mjpeg": Codec.COPY}
_LOOKED_AT = 64  # packets that show whether a stream reorders its frames


class Way(enum.Enum):
    """What a cut does to the images."""

    COPY = "copied"
    HEAD = "copied behind a few frames that are encoded again"
    ENCODE = "encoded again"


@dataclass(frozen=True)
class Cut:
    """A stretch of one video file.

    Attributes:
        path: mp4 file.
        numbers: Numbers of its frames in the file, in the order they are shown.
        way: What becomes of the images.
        settings: How to encode where that is needed.
        head: Count of frames in front that are encoded again.
    """

    path: Path
    numbers: range | tuple[int, ...]
    way: Way
    settings: VideoSettings = field(default_factory=VideoSettings)
    head: int = 0

    @property
    def encoded(self) -> int:
        """Count of frames that are encoded again."""
        return {Way.COPY: 0, Way.HEAD: self.head, Way.ENCODE: len(self.numbers)}[self.way]


def plan_cut(
    place: VideoPlace, start: int, stop: int, fps: int, info: Mapping[str, Any] | None = None
) -> Cut:
    """Decide how to cut frames out of an episode's video.

    Args:
        place: Where the episode is.
        start: First frame, counted from the begin of the episode.
        stop: Behind the last frame.
        fps: Frames per second of the dataset.
        info: The feature's video facts; they tell how it was encoded.

    Raises:
        VideoError: The file cannot be read, or lacks a frame.
    """
    facts = _facts(place.path)
    wanted = place.from_s + np.arange(start, stop) / fps
    numbers = _nearest(facts.times_s, wanted)
    off = np.abs(facts.times_s[numbers] - wanted)
    if (off > 0.5 / fps).any():
        missing = start + int(np.argmax(off > 0.5 / fps))
        raise VideoError(place.path, f"has no image for frame {missing} of the episode")
    first, last = int(numbers[0]), int(numbers[-1])
    if not np.array_equal(numbers, np.arange(first, last + 1)) or _is_uneven(facts, numbers, fps):
        uneven = tuple(numbers.tolist())
        return Cut(place.path, uneven, Way.ENCODE, settings_of(facts, info))
    run = range(first, last + 1)
    reorders = _reorders(place.path)
    ends = last + 1 == facts.frames or bool(facts.keys[last + 1])
    if facts.keys[first] and (ends or not reorders):
        return Cut(place.path, run, Way.COPY)
    settings = settings_of(facts, info)
    head = int(np.argmax(np.append(facts.keys[first : last + 1], True)))
    if reorders or head == len(run) or not _is_ours(place.path, settings, fps):
        return Cut(place.path, run, Way.ENCODE, settings)
    return Cut(place.path, run, Way.HEAD, settings, head)


def frames_from(place: VideoPlace, length: int, fps: int) -> npt.NDArray[np.bool_]:
    """Tell for each frame of an episode whether its video has the image.

    Raises:
        VideoError: The file cannot be read, or has no image at all.
    """
    times = _sound_times(place.path)
    if not len(times):
        raise VideoError(place.path, "has no images")
    wanted = place.from_s + np.arange(length) / fps
    return np.abs(times[_nearest(times, wanted)] - wanted) <= 0.5 / fps


def settings_of(facts: VideoFacts, info: Mapping[str, Any] | None) -> VideoSettings:
    """Return the settings that encode more of a video, as far as they are known.

    Raises:
        VideoError: It is of a codec that cannot be written here.
    """
    codec = _CODECS.get(facts.codec)
    if codec is None:
        known = ", ".join(_CODECS)
        raise VideoError(facts.codec, f"cannot be encoded here, only {known} can")
    usual = VideoSettings.for_codec(codec)
    told = {key: (info or {}).get(f"video.{key}") for key in ("crf", "g", "preset")}
    return VideoSettings(
        codec,
        crf=told["crf"] if isinstance(told["crf"], int) else usual.crf,
        gop=told["g"] if isinstance(told["g"], int) and told["g"] > 0 else usual.gop,
        preset=usual.preset if told["preset"] is None else str(told["preset"]),
    )


def make_cut(cut: Cut, fps: int, out: Path) -> None:
    """Write the stretch as a video of its own, evenly spaced from 0.

    Raises:
        VideoError: Reading or writing failed, or another number of frames came out.
    """
    if cut.way is Way.COPY:
        _copy(cut.path, cut.numbers, fps, out)
    elif cut.way is Way.ENCODE:
        encode(cut.path, cut.numbers, cut.settings, fps, out)
    else:
        head, rest = out.with_suffix(".head.mp4"), out.with_suffix(".rest.mp4")
        encode(cut.path, cut.numbers[: cut.head], cut.settings, fps, head)
        _copy(cut.path, cut.numbers[cut.head :], fps, rest)
        join([head, rest], [cut.head, len(cut.numbers) - cut.head], out)
        head.unlink()
        rest.unlink()
    made = probe(out).frames
    if made != len(cut.numbers):
        raise VideoError(cut.path, f"gave {made} frames where {len(cut.numbers)} were cut")


def encode(
    path: Path, numbers: range | tuple[int, ...], settings: VideoSettings, fps: int, out: Path
) -> None:
    """Decode frames of a file, given by their numbers in order, and encode them again."""
    facts = _facts(path)
    if settings.codec is Codec.COPY:
        raise VideoError(path, "has JPEG images that are not evenly spaced, and none is encoded")
    with VideoWriter(out, settings, fps, facts.height, facts.width) as video:
        for frame, count in frames_of(path, numbers):
            frame.pict_type = 0  # a key frame there is none here
            video.write(frame, count)


def frames_of(path: Path, numbers: range | tuple[int, ...]) -> Iterator[tuple[av.VideoFrame, int]]:
    """Decode frames of a file by their numbers in order; each with how often it is wanted."""
    return _numbered(path, numbers, lambda container, stream: container.decode(stream))


def packets_of(path: Path, numbers: range | tuple[int, ...]) -> Iterator[tuple[bytes, int]]:
    """Read images of an MJPEG file as they are stored; else as `frames_of`."""
    packets = _numbered(path, numbers, lambda container, stream: container.demux(stream))
    return ((bytes(packet), count) for packet, count in packets)


def _numbered(
    path: Path, numbers: range | tuple[int, ...], read: Callable[[Any, Any], Iterator[Any]]
) -> Iterator[tuple[Any, int]]:
    times = _facts(path).times_s
    counts = dict(zip(*np.unique(np.asarray(numbers), return_counts=True), strict=True))
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "SLICE"
            base = float(stream.time_base or 1)
            container.seek(max(0, round(times[numbers[0]] / base)), stream=stream, backward=True)
            for item in read(container, stream):
                if item.pts is None:
                    continue
                number = int(_nearest(times, np.array([item.pts * base]))[0])
                if number in counts:
                    yield item, int(counts.pop(number))
                if not counts:
                    return
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise VideoError(path, f"cannot be decoded: {exc}") from exc
    raise VideoError(path, f"ends before frame {min(counts)}")


def _copy(path: Path, numbers: range | tuple[int, ...], fps: int, out: Path) -> None:
    """Copy the packets of consecutive frames that begin with a key frame."""
    times = _facts(path).times_s
    low, high = (times[number] for number in (numbers[0], numbers[-1]))
    slack = 0.5 / fps
    options = {"movflags": "+faststart"}
    try:
        with av.open(str(path)) as source, av.open(str(out), "w", "mp4", options) as target:
            origin = source.streams.video[0]
            base = float(origin.time_base or 1)
            stream = target.add_stream_from_template(origin, opaque=True)
            stream.time_base = origin.time_base
            source.seek(max(0, round((low + slack / 2) / base)), stream=origin, backward=True)
            first, step = round(low / base), round(1 / fps / base)
            copied = 0
            reorders = _reorders(path)
            for packet in source.demux(origin):
                if packet.pts is None or not packet.size or packet.pts * base < low - slack:
                    continue
                if packet.pts * base > high + slack:
                    if reorders and copied < len(numbers):
                        continue
                    break
                packet.pts -= first
                packet.dts = packet.dts - first if reorders else packet.pts
                packet.duration = step
                packet.stream = stream
                target.mux(packet)
                copied += 1
    except (av.FFmpegError, OSError, ValueError) as exc:
        raise VideoError(path, f"cannot be cut: {exc}") from exc


def _nearest(
    times_s: npt.NDArray[np.float64], wanted: npt.NDArray[np.float64]
) -> npt.NDArray[np.int64]:
    behind = np.clip(np.searchsorted(times_s, wanted), 1, max(1, len(times_s) - 1))
    if len(times_s) < 2:
        return np.zeros(len(wanted), np.int64)
    before = behind - 1
    nearer = wanted - times_s[before] <= times_s[behind] - wanted
    return np.where(nearer, before, behind).astype(np.int64)


def _is_uneven(facts: VideoFacts, numbers: npt.NDArray[np.int64], fps: int) -> bool:
    shown = facts.times_s[numbers]
    even = shown[0] + np.arange(len(shown)) / fps
    return bool(np.abs(shown - even).max() > 0.25 / fps)


def _facts(path: Path) -> VideoFacts:
    try:
        stat = path.stat()
    except OSError as exc:
        raise VideoError(path, f"cannot be read: {exc.strerror}") from exc
    return _known_facts(path, stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=32)  # a file holds many episodes
def _known_facts(path: Path, size: int, changed_ns: int) -> VideoFacts:
    return probe(path)


@functools.lru_cache(maxsize=8)
def _sound_times(path: Path) -> npt.NDArray[np.float64]:
    """Return the times of the images that the file holds whole, [s], in order."""
    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            found = [
                packet.pts * float(stream.time_base or 1)
                for packet in container.demux(stream)
                if packet.pts is not None and packet.size and not packet.is_corrupt
            ]
    except (av.FFmpegError, OSError, ValueError, IndexError) as exc:
        raise VideoError(path, f"cannot be read: {exc}") from exc
    return np.array(sorted(found))


@functools.lru_cache(maxsize=256)
def _reorders(path: Path) -> bool:
    """Tell whether a stream stores frames in another order than it shows them."""
    shown: list[int] = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.pts is None or len(shown) >= _LOOKED_AT:
                break
            shown.append(packet.pts)
    return shown != sorted(shown)


@functools.lru_cache(maxsize=256)
def _is_ours(path: Path, settings: VideoSettings, fps: int) -> bool:
    """Tell whether what we encode can stand in one file with a file's packets."""
    facts = _facts(path)
    if settings.codec is Codec.COPY:
        return False  # each JPEG is a key frame
    with tempfile.TemporaryDirectory(prefix="koch_cut_") as folder:
        trial = Path(folder) / "trial.mp4"
        image = np.zeros((facts.height, facts.width, 3), np.uint8)
        with VideoWriter(trial, settings, fps, facts.height, facts.width) as video:
            for _ in range(2):
                video.write_rgb(image)
        return can_join(path, trial)
