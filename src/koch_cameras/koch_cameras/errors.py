# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a camera; every class builds its own message."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from koch_core.busy import busy_words
from koch_core.errors import KochError


class CameraError(KochError):
    """Root of this package's errors.

    ``retry`` tells the capture loop whether waiting can help: a missing device may be plugged in,
    a mode that the device does not offer will not appear by itself.
    """

    retry: ClassVar[bool] = True


class DeviceNotFoundError(CameraError):
    """No such video device."""

    def __init__(self, path: str, available: Sequence[str]) -> None:
        found = ", ".join(available) if available else "none"
        super().__init__(
            f"camera {path}: no such device. Video devices present: {found}. "
            "Plug the camera in, or run 'koch cameras list' and put its by-id path into the rig."
        )


class DeviceBusyError(CameraError):
    """Another process streams from the device."""

    def __init__(self, path: str, holders: Sequence[str]) -> None:
        who = ", ".join(holders) if holders else "another process (of another user?)"
        super().__init__(f"camera {path}: device is busy, held by {who}. Close it and try again.")


class DeviceAccessError(CameraError):
    """The user may not open the device."""

    retry = False

    def __init__(self, path: str) -> None:
        super().__init__(
            f"camera {path}: permission denied. Add your user to the device's group "
            "(usually: sudo usermod -aG video $USER, then log in again)."
        )


class NotACameraError(CameraError):
    """The device node does not capture video (for example a UVC metadata node)."""

    retry = False

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(
            f"camera {path}: {detail}. A camera often has two nodes and only the first gives "
            "images; 'koch cameras list' shows which."
        )


class ModeNotOfferedError(CameraError):
    """The source does not give the size, rate or pixel format asked for."""

    retry = False

    def __init__(self, source: str, wanted: str, got: str, offered: Sequence[str]) -> None:
        lines = "".join(f"\n  {mode}" for mode in offered) or "\n  (the source lists none)"
        super().__init__(
            f"camera {source}: wanted {wanted}, got {got}. Put one of its modes into the rig "
            f"file:{lines}"
        )


class DepthFormatError(CameraError):
    """A 16-bit depth image came where a colour image is expected."""

    retry = False

    def __init__(self, source: str, encoding: str) -> None:
        super().__init__(
            f"{source}: gives {encoding}, a 16-bit depth or infrared image; expected an 8-bit "
            "colour or grey image. Name the colour sensor's device or topic instead."
        )


class UsbBandwidthError(CameraError):
    """The USB controller has no bandwidth left for this stream."""

    def __init__(self, path: str, controller: str, sharers: Sequence[str]) -> None:
        others = ", ".join(sharers) if sharers else "no other camera"
        super().__init__(
            f"camera {path}: USB controller {controller} has no bandwidth left; it also carries "
            f"{others}. Use fourcc MJPG, a smaller mode, or a port of another controller "
            "('koch cameras list' shows them)."
        )


class SourceLostError(CameraError):
    """The device was unplugged, or the connection broke."""

    def __init__(self, source: str, detail: str) -> None:
        where = "server" if "://" in source else "plug"
        super().__init__(f"camera {source}: lost: {detail}. Check the {where}.")


class SourceStalledError(CameraError):
    """The source is open but gives no image."""

    def __init__(self, source: str, silence_s: float) -> None:
        advice = "Check the cable: USB cameras stall on poor ones."
        if "://" in source:  # a server, perhaps the simulation's
            advice = busy_words() or "Does the server still run?"
        super().__init__(
            f"camera {source}: no image for {silence_s:.1f} s; expected a steady stream. {advice}"
        )


class StreamEndedError(CameraError):
    """A file without loop came to its end."""

    retry = False

    def __init__(self, source: str) -> None:
        super().__init__(f"camera {source}: end of the file. Set loop to play it again.")


class StreamFormatError(CameraError):
    """The server speaks, but not a stream we know."""

    def __init__(self, source: str, detail: str) -> None:
        super().__init__(
            f"camera {source}: {detail}. Expected multipart/x-mixed-replace with JPEG parts, or a "
            "stream that FFmpeg can open."
        )


class UnsupportedSourceError(CameraError):
    """The rig names a source of an unknown kind."""

    retry = False

    def __init__(self, source: str, schemes: Sequence[str]) -> None:
        super().__init__(
            f"camera source {source!r}: unknown kind. Give a device index (0), a device path "
            f"(/dev/v4l/by-id/...), a video file, or a URL ({', '.join(schemes)})."
        )


class SourceConfigError(CameraError):
    """A source setting is out of range."""

    retry = False

    def __init__(self, source: str, key: str, got: object, expected: str) -> None:
        super().__init__(f"camera {source}: {key} is {got!r}; expected {expected}.")


class CorruptFrameError(CameraError):
    """One image is damaged; the stream goes on."""

    def __init__(self, source: str, detail: str) -> None:
        super().__init__(f"camera {source}: damaged image dropped: {detail}.")


class FrameSizeError(CameraError):
    """The stream changed its image size."""

    def __init__(self, source: str, expected: tuple[int, int], got: tuple[int, int]) -> None:
        super().__init__(
            f"camera {source}: image size is {got[0]}x{got[1]}, expected "
            f"{expected[0]}x{expected[1]}. Nothing is published until it is back; change the "
            "camera's settings or the rig file."
        )


class IntrinsicsError(CameraError):
    """An intrinsics file cannot be used."""

    retry = False

    def __init__(self, where: Path | str, detail: str) -> None:
        super().__init__(
            f"intrinsics {where}: {detail}. Run 'koch calibrate camera NAME' to write a new file."
        )


class CalibrationDataError(CameraError):
    """The views collected do not allow a calibration."""

    retry = False

    def __init__(self, detail: str) -> None:
        super().__init__(f"camera calibration: {detail}")


class CropError(CameraError):
    """A box that is no part of an image."""

    retry = False

    def __init__(self, box_px: Sequence[int], width: int, height: int) -> None:
        super().__init__(
            f"--box {' '.join(map(str, box_px))}: expected LEFT TOP WIDTH HEIGHT in pixels, "
            f"inside an image of {width}x{height}. Without --box the image gets rulers."
        )
