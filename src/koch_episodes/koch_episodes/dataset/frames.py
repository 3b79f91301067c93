# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Random access to images: video decoders with a key frame index, and a cache of what they gave.

Both are safe with several processes: decoders are opened again after a fork, and the cache is one
memory-mapped file per camera to which everyone writes the same bytes.
"""

from __future__ import annotations

import fcntl
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from koch_core.yuv import rgb_of_frame
from koch_episodes.errors import VideoError

Rgb = npt.NDArray[np.uint8]
_OPEN_FILES = 8


class _OpenVideo:
    """One mp4 with its decoder and the presentation times of its key frames."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._container = av.open(str(path))
            self._stream = self._container.streams.video[0]
        except (av.FFmpegError, OSError, IndexError, ValueError) as exc:
            raise VideoError(path, f"cannot be opened: {exc}") from exc
        if self._stream.codec_context is None:
            raise VideoError(path, "holds no codec that can be decoded here")
        self._stream.thread_type = "SLICE"  # frame threads would delay every image
        self._stream.codec_context.thread_count = 1
        self._base = self._stream.time_base or 0
        self._keys = [e.timestamp for e in self._stream.index_entries if e.is_keyframe]
        self._frames: Iterator[av.VideoFrame] | None = None
        self._shown = -1

    def frame_at(self, time_s: float, tolerance_s: float) -> av.VideoFrame:
        """Return the frame nearest to a presentation time.

        Raises:
            VideoError: No frame within the tolerance.
        """
        target = round(time_s / float(self._base))
        slack = tolerance_s / float(self._base)
        try:
            if self._frames is None or self._must_seek(target, slack):
                self._container.seek(max(0, target), stream=self._stream, backward=True)
                self._frames = self._container.decode(self._stream)
            for frame in self._frames:
                self._shown = -1 if frame.pts is None else frame.pts
                if self._shown >= target - slack:
                    if self._shown > target + slack:
                        break
                    return frame
        except (av.FFmpegError, ValueError) as exc:
            self._frames = None
            raise VideoError(self._path, f"broken near {time_s:.3f} s: {exc}") from exc
        self._frames = None
        raise VideoError(self._path, f"no frame at {time_s:.4f} s")

    def _must_seek(self, target: int, slack: float) -> bool:
        if target - slack <= self._shown:
            return True
        key = bisect_right(self._keys, target)
        return key > 0 and self._keys[key - 1] > self._shown + slack

    def close(self) -> None:
        self._frames = None
        self._container.close()


class VideoFrames:
    """Decoders of the most recently used files; per process."""

    def __init__(self, limit: int = _OPEN_FILES) -> None:
        self._limit = limit
        self._open: OrderedDict[Path, _OpenVideo] = OrderedDict()
        self._process = os.getpid()

    def rgb(self, path: Path, time_s: float, tolerance_s: float) -> Rgb:
        """Decode the image at a time: uint8, shape (H, W, 3)."""
        if self._process != os.getpid():  # decoders do not survive a fork
            self._open, self._process = OrderedDict(), os.getpid()
        video = self._open.pop(path, None) or _OpenVideo(path)
        self._open[path] = video
        if len(self._open) > self._limit:
            self._open.popitem(last=False)[1].close()
        return rgb_of_frame(video.frame_at(time_s, tolerance_s))

    def close(self) -> None:
        """Close all files."""
        while self._open:
            self._open.popitem()[1].close()

    def __getstate__(self) -> dict[str, Any]:
        """Leave decoders behind when sent to another process."""
        return {"_limit": self._limit, "_open": OrderedDict(), "_process": -1}


class FrameCache:
    """Decoded images of one camera in a memory-mapped file; rows appear as they are needed.

    The files are sparse: an image takes room once it was stored. A row's flag is set after its
    pixels, so a reader in another process sees either nothing or the whole image.

    Args:
        folder: Where the two files lie; shared by all processes.
        name: Camera key.
        count: Frames in the dataset.
        height: Image height in [px].
        width: Image width in [px].
    """

    def __init__(self, folder: Path, name: str, count: int, height: int, width: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._shape = (count, height, width, 3)
        self._paths = (
            folder / f"{name}.{height}x{width}.rgb",
            folder / f"{name}.{height}x{width}.known",
        )
        for path, size in zip(self._paths, (count * height * width * 3, count), strict=True):
            with path.open("ab") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if os.fstat(file.fileno()).st_size < size:
                    file.truncate(size)
        self._map()

    def _map(self) -> None:
        self._pixels = np.memmap(self._paths[0], np.uint8, "r+", shape=self._shape)
        self._known = np.memmap(self._paths[1], np.uint8, "r+", shape=self._shape[:1])

    def get(self, index: int) -> Rgb | None:
        """Return a copy of a stored image, None if it was never stored."""
        if not self._known[index]:
            return None
        return np.array(self._pixels[index])

    def put(self, index: int, image: Rgb) -> None:
        """Store an image: uint8, shape (H, W, 3)."""
        self._pixels[index] = image
        self._known[index] = 1

    @property
    def known(self) -> int:
        """Count of stored images."""
        return int(np.count_nonzero(self._known))

    def __getstate__(self) -> dict[str, Any]:
        """Send paths, not pixels, to another process."""
        return {"_shape": self._shape, "_paths": self._paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Map the files again."""
        self.__dict__.update(state)
        self._map()
