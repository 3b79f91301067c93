# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ChArUco board: its geometry, its image, and finding it in an image."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from koch_cameras.errors import CalibrationDataError


@dataclass(frozen=True, eq=False)
class Detection:
    """Board corners seen in one image.

    Attributes:
        ids: Corner numbers, int64 (N,).
        image_px: Where they are in the image, float64 (N, 2), [px].
        board_m: Where they are on the board, float64 (N, 2), [m].
    """

    ids: npt.NDArray[np.int64]
    image_px: npt.NDArray[np.float64]
    board_m: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Board:
    """A ChArUco board, by default one that fits on A4 and US Letter.

    Attributes:
        columns: Squares along x.
        rows: Squares along y.
        square_m: Side of a square [m], measured on the print.
        marker_m: Side of a marker [m].
    """

    columns: int = 8
    rows: int = 5
    square_m: float = 0.032
    marker_m: float = 0.024

    def __post_init__(self) -> None:
        if self.columns < 3 or self.rows < 3 or self.columns * self.rows > 200:
            raise CalibrationDataError(
                f"board of {self.columns}x{self.rows} squares; expected 3x3 to 200 squares"
            )
        if not 0.0 < self.marker_m < self.square_m:
            raise CalibrationDataError(
                f"marker {self.marker_m} m, square {self.square_m} m; expected 0 < marker < square"
            )

    @property
    def corners(self) -> int:
        """Number of inner corners."""
        return (self.columns - 1) * (self.rows - 1)

    def image(self, pixels_per_square: int) -> npt.NDArray[np.uint8]:
        """Image of the board without margin, uint8, (rows * n, columns * n)."""
        size = (self.columns * pixels_per_square, self.rows * pixels_per_square)
        return np.asarray(self._charuco.generateImage(size, marginSize=0), dtype=np.uint8)

    def detect(self, grey: npt.NDArray[np.uint8]) -> Detection | None:
        """Find the board's corners; None if fewer than four show."""
        corners, ids, _, _ = self._detector.detectBoard(grey)
        if ids is None or len(ids) < 4:
            return None
        numbers = np.asarray(ids, dtype=np.int64).ravel()
        points = np.asarray(self._charuco.getChessboardCorners(), dtype=np.float64)
        return Detection(
            numbers,
            np.asarray(corners, dtype=np.float64).reshape(-1, 2),
            points[numbers, :2],
        )

    @cached_property
    def _charuco(self) -> Any:
        if not hasattr(cv2.aruco, "CharucoDetector"):
            raise CalibrationDataError(
                f"OpenCV {cv2.__version__} has no CharucoDetector; expected 4.8 or newer. Ubuntu "
                "24.04 ships 4.6: install opencv-python-headless in a virtual environment"
            )
        dictionary = cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_5X5_100)
        size = (self.columns, self.rows)
        return cv2.aruco.CharucoBoard(size, self.square_m, self.marker_m, dictionary)

    @cached_property
    def _detector(self) -> Any:
        return cv2.aruco.CharucoDetector(self._charuco)
