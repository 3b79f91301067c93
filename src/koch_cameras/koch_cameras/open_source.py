# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The kinds of camera sources, by the scheme of what the rig names, and how one is opened.

A kind of your own is one function or class in a package of your own:

    @register_camera("folder")
    class FolderSource:  # a FrameSource
        def __init__(self, config: SourceConfig) -> None: ...

and in that package's metadata the entry point that lets every node find it:

    [project.entry-points."koch_vla.cameras"]
    folder = "my_package.folder_source"

The rig then says `source: folder:///home/me/images`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from koch_cameras.errors import UnsupportedSourceError
from koch_cameras.mjpeg_http import MjpegHttpSource, NotMultipartError
from koch_cameras.source import FrameSource, SourceConfig
from koch_cameras.v4l2.v4l2_source import V4l2Source
from koch_core.registry import Registry

OpenSource = Callable[[SourceConfig], FrameSource]

#: What opens sources, by scheme: classes or functions of a SourceConfig.
CAMERAS: Registry[OpenSource] = Registry("camera scheme", "koch_vla.cameras")
register_camera = CAMERAS.register


def open_source(config: SourceConfig) -> FrameSource:
    """Open a device, a file, a URL, or a source of a registered kind.

    Args:
        config: ``index_or_path`` is an index (0), a path below /dev, a video file, or a URL.

    Raises:
        CameraError: The leaf says what is wrong.
    """
    place = config.index_or_path
    if isinstance(place, int):
        return V4l2Source(config)
    opener = CAMERAS.find(urlsplit(place).scheme)
    if opener is None or not place:
        raise UnsupportedSourceError(place, sorted({*CAMERAS.names()} - {"", "file"}))
    return opener(config)


@register_camera("rtsp", "rtsps", "rtmp", "udp", "tcp", "srt")
def _open_stream(config: SourceConfig) -> FrameSource:
    from koch_cameras.av_source import AvSource  # here, because the other kinds need no FFmpeg

    return AvSource(config)


@register_camera("http", "https")
def _open_http(config: SourceConfig) -> FrameSource:
    """MJPEG; replies that are not multipart (H.264 in MPEG-TS, bare JPEGs) go to FFmpeg."""
    try:
        return MjpegHttpSource(config)
    except NotMultipartError:
        return _open_stream(config)


@register_camera("", "file")
def _open_path(config: SourceConfig) -> FrameSource:
    path = Path(str(config.index_or_path).removeprefix("file://"))
    if str(path).startswith("/dev/") or _is_device(path):
        return V4l2Source(config)
    from koch_cameras.av_source import FileSource

    return FileSource(config)


def _is_device(path: Path) -> bool:
    try:
        return stat.S_ISCHR(path.stat().st_mode)
    except OSError:
        return False  # the reader reports a missing file better
