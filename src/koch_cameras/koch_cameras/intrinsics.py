# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Pinhole intrinsics: ROS's camera calibration YAML, scaling, and camera_info."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from koch_cameras.errors import IntrinsicsError

_ASPECT_TOLERANCE = 0.01
_MODELS = {"plumb_bob": (5,), "rational_polynomial": (8,), "equidistant": (4,)}


@dataclass(frozen=True, eq=False)
class Intrinsics:
    """Calibration of one camera at one image size, after rotation.

    Attributes:
        name: Camera name.
        width: Columns in [px].
        height: Rows in [px].
        camera_matrix: K, float64 (3, 3), [px]; pixel centres have whole coordinates (OpenCV).
        distortion_model: plumb_bob, rational_polynomial or equidistant.
        distortion: D, float64, (5,), (8,) or (4,) by the model.
        rectification: R, float64 (3, 3); identity for a single camera.
        projection: P, float64 (3, 4), [px].
    """

    name: str
    width: int
    height: int
    camera_matrix: npt.NDArray[np.float64]
    distortion_model: str
    distortion: npt.NDArray[np.float64]
    rectification: npt.NDArray[np.float64]
    projection: npt.NDArray[np.float64]

    def __post_init__(self) -> None:
        for key, shape in (
            ("camera_matrix", (3, 3)),
            ("rectification", (3, 3)),
            ("projection", (3, 4)),
            ("distortion", None),
        ):
            values = np.array(getattr(self, key), dtype=np.float64)
            if shape is not None and values.shape != shape:
                raise IntrinsicsError(self.name, f"{key} has shape {values.shape}, not {shape}")
            if not np.isfinite(values).all():
                raise IntrinsicsError(self.name, f"{key} is not finite")
            values.setflags(write=False)
            object.__setattr__(self, key, values)
        lengths = _MODELS.get(self.distortion_model)
        if lengths is None:
            known = ", ".join(_MODELS)
            raise IntrinsicsError(
                self.name, f"distortion_model {self.distortion_model!r}; expected one of {known}"
            )
        if self.distortion.shape not in [(length,) for length in lengths]:
            raise IntrinsicsError(
                self.name,
                f"{self.distortion.size} distortion coefficients; {self.distortion_model} has "
                f"{lengths[0]}",
            )
        if self.width <= 0 or self.height <= 0 or self.camera_matrix[0, 0] <= 0:
            raise IntrinsicsError(self.name, "size and focal length must be above 0")

    @staticmethod
    def pinhole(
        name: str,
        size: tuple[int, int],
        camera_matrix: npt.ArrayLike,
        distortion: npt.ArrayLike = (0.0, 0.0, 0.0, 0.0, 0.0),
    ) -> Intrinsics:
        """Single camera with plumb_bob distortion: R is identity, P holds K."""
        matrix = np.array(camera_matrix, dtype=np.float64)
        projection = np.hstack([matrix, np.zeros((3, 1))])
        flat = np.ravel(np.array(distortion, dtype=np.float64))
        return Intrinsics(name, *size, matrix, "plumb_bob", flat, np.eye(3), projection)

    @staticmethod
    def from_fovy(name: str, size: tuple[int, int], fovy_deg: float) -> Intrinsics:
        """Ideal camera of a renderer: square pixels, centred, no distortion.

        Args:
            name: Camera name.
            size: (width, height) in [px].
            fovy_deg: Vertical field of view in [deg], 0 < fovy < 180.
        """
        if not 0.0 < fovy_deg < 180.0:
            raise IntrinsicsError(name, f"fovy_deg is {fovy_deg}; expected 0 < fovy < 180")
        focal = size[1] / 2.0 / math.tan(math.radians(fovy_deg) / 2.0)
        centre = ((size[0] - 1) / 2.0, (size[1] - 1) / 2.0)
        return Intrinsics.pinhole(
            name, size, [[focal, 0.0, centre[0]], [0.0, focal, centre[1]], [0.0, 0.0, 1.0]]
        )

    def scaled_to(self, width: int, height: int) -> Intrinsics:
        """The same camera with its image scaled to another size.

        The principal point moves by (c + 1/2) * s - 1/2, since pixel *edges* scale.

        Raises:
            IntrinsicsError: Another aspect ratio: the camera crops, and no one knows where.
        """
        if (width, height) == (self.width, self.height):
            return self
        scale_x, scale_y = width / self.width, height / self.height
        if abs(scale_x / scale_y - 1.0) > _ASPECT_TOLERANCE:
            raise IntrinsicsError(
                self.name,
                f"made at {self.width}x{self.height}, the image is {width}x{height}: another "
                "aspect ratio means an unknown crop",
            )
        scaling = np.array(
            [
                [scale_x, 0.0, 0.5 * scale_x - 0.5],
                [0.0, scale_y, 0.5 * scale_y - 0.5],
                [0.0, 0.0, 1.0],
            ]
        )
        return Intrinsics(
            self.name,
            width,
            height,
            scaling @ self.camera_matrix,
            self.distortion_model,
            self.distortion,
            self.rectification,
            scaling @ self.projection,
        )

    def fill_camera_info(self, message: Any) -> None:
        """Put the values into a sensor_msgs/msg/CameraInfo; its header is left alone."""
        message.width, message.height = self.width, self.height
        message.distortion_model = self.distortion_model
        message.d = self.distortion.tolist()
        message.k = self.camera_matrix.ravel()
        message.r = self.rectification.ravel()
        message.p = self.projection.ravel()


def load_intrinsics(path: Path) -> Intrinsics:
    """Read a YAML file in the format of ROS's camera_calibration.

    Raises:
        IntrinsicsError: The file is missing, not YAML, or a key is missing or malformed.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise IntrinsicsError(path, f"cannot be read ({exc.strerror})") from exc
    except (yaml.YAMLError, UnicodeDecodeError) as exc:
        raise IntrinsicsError(path, f"is not YAML ({exc})") from exc
    if not isinstance(content, dict):
        raise IntrinsicsError(path, "holds no mapping")
    try:
        return Intrinsics(
            str(content.get("camera_name", path.stem)),
            int(content["image_width"]),
            int(content["image_height"]),
            _matrix(content, "camera_matrix"),
            str(content.get("distortion_model", "plumb_bob")),
            _matrix(content, "distortion_coefficients").ravel(),
            _matrix(content, "rectification_matrix"),
            _matrix(content, "projection_matrix"),
        )
    except KeyError as exc:
        raise IntrinsicsError(path, f"key {exc.args[0]!r} is missing") from exc
    except (TypeError, ValueError) as exc:
        raise IntrinsicsError(path, f"malformed value ({exc})") from exc


def save_intrinsics(intrinsics: Intrinsics, path: Path) -> None:
    """Write the YAML of ROS's camera_calibration; the file appears whole or not at all."""
    content = {
        "image_width": intrinsics.width,
        "image_height": intrinsics.height,
        "camera_name": intrinsics.name,
        "camera_matrix": _entry(intrinsics.camera_matrix),
        "distortion_model": intrinsics.distortion_model,
        "distortion_coefficients": _entry(intrinsics.distortion[None, :]),
        "rectification_matrix": _entry(intrinsics.rectification),
        "projection_matrix": _entry(intrinsics.projection),
    }
    partial = path.with_name(path.name + ".partial")
    partial.write_text(yaml.safe_dump(content, sort_keys=False, default_flow_style=None))
    partial.replace(path)


def _matrix(content: dict[str, Any], key: str) -> npt.NDArray[np.float64]:
    entry = content[key]
    values = np.array(entry["data"], dtype=np.float64)
    return values.reshape(int(entry["rows"]), int(entry["cols"]))


def _entry(matrix: npt.NDArray[np.float64]) -> dict[str, Any]:
    rows, cols = matrix.shape
    return {"rows": rows, "cols": cols, "data": [float(value) for value in matrix.ravel()]}
