# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the rig says about a camera, in this package's terms."""

from __future__ import annotations

from typing import Protocol

from koch_cameras.intrinsics import Intrinsics, load_intrinsics
from koch_cameras.v4l2.listing import controller_of, sharing_controller
from koch_cameras.v4l2.v4l2_source import device_path
from koch_cameras.watch import Expectation
from koch_core.errors import KochError
from koch_rig.rig import Camera, Rig
from koch_rig.stream import camera_stream

_DEFAULT_MAX_AGE_S = 0.5


class UnknownCameraError(KochError):
    """The rig has no camera of this name."""

    def __init__(self, rig: Rig, name: str) -> None:
        names = ", ".join(rig.cameras) or "none"
        super().__init__(f"{rig.path}: no camera {name!r}. Cameras of this rig: {names}.")


class WatchSettings(Protocol):
    """The node parameters that the watch needs."""

    @property
    def frozen_after_s(self) -> float:
        """See CameraParameters."""
        ...

    @property
    def max_latency_s(self) -> float:
        """See CameraParameters."""
        ...


def find_camera(rig: Rig, name: str) -> Camera:
    """The camera of this name.

    Raises:
        UnknownCameraError: There is none.
    """
    camera = rig.cameras.get(name)
    if camera is None:
        raise UnknownCameraError(rig, name)
    return camera


def intrinsics_of(camera: Camera) -> Intrinsics | None:
    """Intrinsics at the camera's image size: from the file, from a simulated lens, or None.

    Raises:
        IntrinsicsError: The file named in the rig cannot be used.
    """
    if camera.intrinsics_path is not None:
        return load_intrinsics(camera.intrinsics_path).scaled_to(camera.width, camera.height)
    if camera.fovy_deg is not None:
        size = (camera.width, camera.height)
        return Intrinsics.from_fovy(camera.name, size, camera.fovy_deg)
    return None


def expectation_of(rig: Rig, camera: Camera, settings: WatchSettings) -> Expectation:
    """What a healthy stream of this camera looks like."""
    stream = rig.streams.get(camera_stream(camera.name))
    return Expectation(
        fps=camera.fps,
        max_age_s=_DEFAULT_MAX_AGE_S if stream is None else stream.max_age_s,
        # A renderer has no sensor noise: a still scene gives identical images.
        frozen_after_s=0.0 if rig.simulation is not None else settings.frozen_after_s,
        max_latency_s=settings.max_latency_s,
    )


def usb_neighbours(index_or_path: int | str) -> str:
    """Name controller and neighbours of a device that shares its controller, else ""."""
    path = device_path(index_or_path)
    if not path.startswith("/dev/"):
        return ""
    others = sharing_controller(path)
    return f"USB controller {controller_of(path)} with {', '.join(others)}" if others else ""
