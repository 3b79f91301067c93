# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A camera that shows the JPEGs of a folder, by name, again and again.

In the rig: `source: folder:///home/me/images`.
"""

from __future__ import annotations

import time
from pathlib import Path
from urllib.parse import urlsplit

from koch_cameras import (
    CameraError,
    CameraFrame,
    Encoding,
    Mode,
    SourceConfig,
    TimeBase,
    register_camera,
)
from koch_core.image import image_size


class EmptyFolderError(CameraError):
    """The folder holds no JPEG."""

    def __init__(self, folder: Path) -> None:
        super().__init__(f"camera {folder}: got no .jpg in this folder, expected at least one.")


@register_camera("folder")
class FolderCamera:
    """Hands out one image per period of the rig's rate, stamped when it is shown."""

    def __init__(self, config: SourceConfig) -> None:
        folder = Path(urlsplit(str(config.index_or_path)).path)
        self._images = [path.read_bytes() for path in sorted(folder.glob("*.jpg"))]
        if not self._images:
            raise EmptyFolderError(folder)
        self._height, self._width = image_size(self._images[0])
        fps = config.fps or 30.0
        self.mode = Mode(width=self._width, height=self._height, fps=fps, fourcc="MJPG")
        self._period_s = 1.0 / fps
        self._due_s = time.monotonic()
        self._sequence = 0

    def read(self) -> CameraFrame:
        """Wait for the next image."""
        time.sleep(max(0.0, self._due_s - time.monotonic()))
        self._due_s = max(self._due_s, time.monotonic() - self._period_s) + self._period_s
        data = self._images[self._sequence % len(self._images)]
        self._sequence += 1
        return CameraFrame(
            self._sequence,
            time.monotonic_ns(),
            TimeBase.MONOTONIC,
            Encoding.JPEG,
            self._width,
            self._height,
            data,
        )

    def close(self) -> None:
        """Release the source."""
