# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The second pass over a bag: chosen images become video and statistics, vectors columns."""

from __future__ import annotations

import errno
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.image import PacketDecoder, decode_image
from koch_core.yuv import sampled_rgb
from koch_episodes.bag import Bag, RawMessage
from koch_episodes.convert.plan import Segment, part_key
from koch_episodes.convert.topics import RawImage, TopicReader
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.stats import ImageStats, Stats, pixel_stride, sampled_frames
from koch_episodes.dataset.video import VideoSettings, VideoWriter
from koch_episodes.errors import EpisodeError, VideoError

Image = bytes | RawImage
Broken = dict[tuple[str, int], str]
"""Topic of an image and its number in the topic, to what is wrong with it."""
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)


class BrokenImagesError(Exception):
    """Some chosen images turned out to be broken; plan again without them."""

    def __init__(self, broken: Broken) -> None:
        super().__init__(f"{len(broken)} broken image(s)")
        self.broken = broken


class CameraEncoder:
    """Writes one camera's chosen images of all segments, in the order of the frames.

    Args:
        key: Camera feature.
        reader: Reader of its topic.
        segments: Segments in order of time.
        folders: One folder per segment; the video is ``<key>.mp4``.
        settings: Encoder settings.
        fps: Frames per second.
        size: (height, width) in [px].
        broken: Where to note broken images; shared by all cameras.
    """

    def __init__(
        self,
        key: str,
        reader: TopicReader,
        segments: Sequence[Segment],
        folders: Sequence[Path],
        settings: VideoSettings,
        fps: int,
        size: tuple[int, int],
        broken: Broken,
    ) -> None:
        self.key = key
        self.stats: list[Stats] = []
        self.broken = broken
        self.reader = reader
        self._settings = settings
        self._copies = settings.codec is Codec.COPY
        self._fps = fps
        self._size = size
        self._jobs = self._plan(segments, folders)
        self._next = next(self._jobs, None)
        self._waiting: dict[int, Image] = {}
        numbers = np.concatenate([part.numbers[part_key(key, 0)] for part in segments])
        self._wanted = frozenset(numbers.tolist())
        self._decoder = PacketDecoder()
        self._video: VideoWriter | None = None
        self._counted = ImageStats()

    def _plan(
        self, segments: Sequence[Segment], folders: Sequence[Path]
    ) -> Iterator[tuple[int, int, Path, frozenset[int], bool]]:
        """Yield (number, repeats, file, sampled frames, last of its segment) in order."""
        for segment, folder in zip(segments, folders, strict=True):
            sampled = frozenset(sampled_frames(segment.length))
            numbers = segment.numbers[part_key(self.key, 0)]
            begins = np.flatnonzero(np.diff(numbers, prepend=-1))
            counts = np.diff(np.append(begins, len(numbers)))
            for begin, repeats in zip(begins.tolist(), counts.tolist(), strict=True):
                last = begin == begins[-1]
                number = int(numbers[begin])
                yield number, repeats, folder / f"{self.key}.mp4", sampled, last

    def wants(self, number: int) -> bool:
        """Tell whether a frame shows this image of the topic."""
        return number in self._wanted

    def take(self, number: int, image: Image) -> None:
        """Take an image that is wanted."""
        self._waiting[number] = image
        while self._next is not None and self._next[0] in self._waiting:
            number, repeats, path, sampled, last = self._next
            self._next = next(self._jobs, None)
            again = self._next is not None and self._next[0] == number
            chosen = self._waiting[number] if again else self._waiting.pop(number)
            try:
                self._write(chosen, repeats, path, sampled)
            except DecodeError as exc:
                # What is wrong with a JPEG's bytes differs from image to image: one reason.
                why = exc.why if isinstance(chosen, RawImage) else "image cannot be decoded"
                self.broken[self.reader.topic.name, number] = why
            if last:
                self._finish_video()

    def _write(self, image: Image, repeats: int, path: Path, sampled: frozenset[int]) -> None:
        if self._video is None:
            self._video = VideoWriter(path, self._settings, self._fps, *self._size)
        first = self._video.frames
        shown = sampled.intersection(range(first, first + repeats))
        if self.broken:  # this pass is lost; only look for more broken images
            self._decode(image)
            return
        frame = None if self._copies else self._decode(image)
        pixels = self._sampled_pixels(image, frame) if shown else None
        if frame is not None:
            self._video.write(frame, repeats)
        else:
            assert isinstance(image, bytes)
            self._video.write_packet(image, repeats)
        if pixels is not None:
            for _ in shown:
                self._counted.add_pixels(pixels)

    def _sampled_pixels(self, image: Image, frame: av.VideoFrame | None) -> npt.NDArray[np.uint8]:
        step = pixel_stride(*self._size)
        if frame is not None:
            return sampled_rgb(frame, step)
        # No one wants the planes of an image that is copied: straight to RGB is half the work.
        assert isinstance(image, bytes)
        return decode_image(image)[::step, ::step]

    def _decode(self, image: Image) -> av.VideoFrame:
        if isinstance(image, RawImage):
            return av.VideoFrame.from_ndarray(image.rgb(), format="rgb24")
        return self._decoder.decode(image)

    def _finish_video(self) -> None:
        if self._video is not None:
            self._video.close()
            self._video = None
        if not self.broken:
            self.stats.append(self._counted.result())
        self._counted = ImageStats()

    @property
    def done(self) -> bool:
        """Whether every chosen image was written."""
        return self._next is None

    def close(self) -> None:
        """Close a file that is still open."""
        if self._video is not None:
            self._video.close()
            self._video = None


def render(
    bag: Bag,
    readers: Mapping[str, TopicReader],
    segments: Sequence[Segment],
    folders: Sequence[Path],
    settings: VideoSettings,
    fps: int,
    sizes: Mapping[str, tuple[int, int]],
    vectors: Sequence[VectorGatherer],
) -> list[dict[str, Stats]]:
    """Write all cameras' videos, and read the vectors.

    Args:
        bag: The bag.
        readers: Camera feature to topic reader.
        segments: What to write.
        folders: Where, one per segment.
        settings: Encoder settings.
        fps: Frames per second.
        sizes: Camera feature to (height, width), [px].
        vectors: The vector sources.

    Returns:
        Image statistics by camera, for each segment.

    Raises:
        BrokenImagesError: Images that cannot be decoded, all of them.
        EpisodeError: A chosen image was not found again, or cannot be copied.
    """
    broken: Broken = {}
    cameras = [
        CameraEncoder(key, reader, segments, folders, settings, fps, sizes[key], broken)
        for key, reader in readers.items()
    ]
    # An AV1 encoder holds 80 MB, and two that take turns lose 6 % of their speed; reading the bag
    # once more costs 0.1 %.
    apart = settings.codec is Codec.AV1 and len(cameras) > 1
    try:
        if not apart:
            read(bag, cameras, vectors)
        else:
            read(bag, [], vectors)
            for camera in cameras:
                read(bag, [camera], ())
    except av.FFmpegError as exc:
        if exc.errno in _DISK_ERRORS:
            raise OSError(exc.errno, os.strerror(exc.errno)) from exc
        raise VideoError(bag.path, f"cannot be encoded: {exc}") from exc
    finally:
        for camera in cameras:
            camera.close()
    if broken:
        raise BrokenImagesError(broken)
    for camera in cameras:
        if not camera.done:
            raise EpisodeError(bag.name, f"{camera.key}: an image could not be read again")
    for gatherer in vectors:
        if not gatherer.done:
            topic = gatherer.reader.topic.name
            raise EpisodeError(bag.name, f"{topic}: a message could not be read again")
    return [
        {camera.key: camera.stats[place] for camera in cameras} for place in range(len(segments))
    ]


class VectorGatherer:
    """Reads the chosen messages of one vector source.

    Args:
        reader: Reader of its topic.
        numbers: Which messages of the topic, ascending, int64.
    """

    def __init__(self, reader: TopicReader, numbers: npt.NDArray[np.int64]) -> None:
        self.reader = reader
        self._numbers = numbers
        self._wanted = frozenset(numbers.tolist())
        self._values = array("d")

    def wants(self, number: int) -> bool:
        """Tell whether a frame has this message of the topic."""
        return number in self._wanted

    def take(self, message: RawMessage) -> None:
        """Take a message that is wanted; they come in the order of the topic."""
        self._values.frombytes(self.reader.vector(message).tobytes())

    @property
    def done(self) -> bool:
        """Whether every chosen message was read."""
        return len(self._values) == len(self._numbers) * len(self.reader.source.names)

    def values(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """The vectors of some of the chosen messages, float64, shape (n, N)."""
        table = np.frombuffer(self._values).reshape(len(self._numbers), -1)
        return np.asarray(table[np.searchsorted(self._numbers, numbers)])


def read(bag: Bag, cameras: Sequence[CameraEncoder], vectors: Sequence[VectorGatherer]) -> None:
    takers: dict[str, list[CameraEncoder | VectorGatherer]] = {}
    every: list[CameraEncoder | VectorGatherer] = [*cameras, *vectors]
    for taker in every:
        takers.setdefault(taker.reader.topic.name, []).append(taker)
    numbers = dict.fromkeys(takers, 0)
    for message in bag.messages(takers) if takers else ():
        number = numbers[message.topic]
        numbers[message.topic] = number + 1
        for taker in takers[message.topic]:
            if not taker.wants(number):
                continue
            if isinstance(taker, VectorGatherer):
                taker.take(message)
            else:
                taker.take(number, taker.reader.image(message))
