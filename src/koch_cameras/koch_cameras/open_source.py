# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chooses the reader for a source by what the rig says."""

from __future__ import annotations

import stat
from pathlib import Path
from urllib.parse import urlsplit

from koch_cameras.av_source import AvSource, FileSource
from koch_cameras.errors import UnsupportedSourceError
from koch_cameras.mjpeg_http import MjpegHttpSource, NotMultipartError
from koch_cameras.source import FrameSource, SourceConfig
from koch_cameras.v4l2.v4l2_source import V4l2Source

_AV_SCHEMES = ("rtsp", "rtsps", "rtmp", "udp", "tcp", "srt")


def open_source(config: SourceConfig) -> FrameSource:
    """Open a device, file or URL.

    Args:
        config: ``index_or_path`` is an index (0), a path below /dev, a video file, or a URL. HTTP
            replies that are not multipart (H.264 in MPEG-TS, bare JPEGs) go to FFmpeg.

    Raises:
        CameraError: The leaf says what is wrong.
    """
    place = config.index_or_path
    if isinstance(place, int):
        return V4l2Source(config)
    scheme = urlsplit(place).scheme
    if scheme in ("http", "https"):
        try:
            return MjpegHttpSource(config)
        except NotMultipartError:
            return AvSource(config)
    if scheme in _AV_SCHEMES:
        return AvSource(config)
    if scheme not in ("", "file") or not place:
        raise UnsupportedSourceError(place)
    path = Path(place.removeprefix("file://"))
    if str(path).startswith("/dev/") or _is_device(path):
        return V4l2Source(config)
    return FileSource(config)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False  # the reader reports a missing file better
