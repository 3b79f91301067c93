# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of all camera sources, and their settings under LeRobot's names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, Protocol

from koch_cameras.errors import SourceConfigError
from koch_cameras.frame import CameraFrame
from koch_rig.rig import ColorMode

if TYPE_CHECKING:
    from koch_rig.rig import Camera


class Rotation(IntEnum):
    """Clockwise rotation in [deg] from the sensor's image to the published one."""

    NONE = 0
    CLOCKWISE = 90
    HALF = 180
    COUNTERCLOCKWISE = -90


@dataclass(frozen=True)
class Mode:
    """What a source really gives; ``fourcc`` is empty where the notion does not exist."""

    width: int
    height: int
    fps: float | None
    fourcc: str

    def __str__(self) -> str:
        rate = "rate unknown" if self.fps is None else f"{self.fps:g} fps"
        return f"{self.fourcc or 'stream'} {self.width}x{self.height} {rate}"


@dataclass(frozen=True)
class SourceConfig:
    """Settings of one camera source.

    Attributes:
        index_or_path: OpenCV-style index, device path, file, or URL.
        width: Columns in [px] *after* rotation, as in LeRobot; None takes what comes.
        height: Rows in [px] *after* rotation; None takes what comes.
        fps: Images per second; None takes what comes.
        color_mode: Channel order of decoded images.
        rotation: Clockwise rotation in [deg]: 0, 90, 180, -90.
        fourcc: Pixel format to ask a device for, such as "MJPG"; None prefers MJPG, then YUYV.
        loop: Files start again at their end.
        timeout_s: A source that is silent for so long has stalled.
    """

    index_or_path: int | str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    color_mode: ColorMode = ColorMode.RGB
    rotation: Rotation = Rotation.NONE
    fourcc: str | None = None
    loop: bool = False
    timeout_s: float = 2.0

    def __post_init__(self) -> None:
        name = str(self.index_or_path)
        if (self.width is None) != (self.height is None):
            raise SourceConfigError(
                name, "width, height", (self.width, self.height), "both or neither"
            )
        for key in ("width", "height", "fps", "timeout_s"):
            value = getattr(self, key)
            if value is not None and not value > 0:
                raise SourceConfigError(name, key, value, "a number above 0")
        if self.fourcc is not None and len(self.fourcc) != 4:
            raise SourceConfigError(name, "fourcc", self.fourcc, "four letters such as MJPG")
        object.__setattr__(self, "rotation", _rotation(name, self.rotation))
        object.__setattr__(self, "color_mode", _color_mode(name, self.color_mode))

    @property
    def capture_size(self) -> tuple[int, int] | None:
        """(width, height) in [px] to ask the source for, that is before rotation."""
        if self.width is None or self.height is None:
            return None
        if self.rotation in (Rotation.CLOCKWISE, Rotation.COUNTERCLOCKWISE):
            return self.height, self.width
        return self.width, self.height

    def wanted(self) -> str:
        """The mode asked for, for messages."""
        size = self.capture_size
        shape = "any size" if size is None else f"{size[0]}x{size[1]}"
        rate = "any rate" if self.fps is None else f"{self.fps:g} fps"
        return f"{self.fourcc or 'any format'} {shape} {rate}"

    @staticmethod
    def from_rig(camera: Camera, **changes: object) -> SourceConfig:
        """Settings of a rig's camera; ``changes`` replace single fields."""
        config = SourceConfig(
            index_or_path=_index_or_path(camera.source),
            width=camera.width,
            height=camera.height,
            fps=camera.fps,
            color_mode=_color_mode(camera.name, camera.color_mode),
            rotation=_rotation(camera.name, camera.rotation),
            fourcc=camera.fourcc,
        )
        return replace(config, **changes)  # type: ignore[arg-type]  # names are checked by replace


def _index_or_path(source: int | str) -> int | str:
    """An environment variable can only give text: "0" means index 0."""
    return int(source) if isinstance(source, str) and source.isdigit() else source


def _rotation(name: str, value: int) -> Rotation:
    try:
        return Rotation(value)
    except ValueError as exc:
        raise SourceConfigError(name, "rotation", value, "0, 90, 180 or -90") from exc


def _color_mode(name: str, value: object) -> ColorMode:
    try:
        return ColorMode(value.value if isinstance(value, Enum) else value)
    except ValueError as exc:
        raise SourceConfigError(name, "color_mode", value, "rgb or bgr") from exc


class FrameSource(Protocol):
    """An open camera, file or stream. One thread owns it."""

    @property
    def mode(self) -> Mode:
        """What the source really gives."""
        ...

    def read(self) -> CameraFrame:
        """Wait for the next image.

        Raises:
            CorruptFrameError: This image is damaged; call again.
            SourceStalledError: Nothing came within the configured time.
            SourceLostError: Unplugged or disconnected.
            StreamEndedError: A file is at its end.
            FrameSizeError: The image size changed.
        """
        ...

    def close(self) -> None:
        """Release the device; harmless when called twice."""
        ...
