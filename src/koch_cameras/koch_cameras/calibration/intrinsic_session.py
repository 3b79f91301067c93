# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Collects views of the board, tells what is missing, and solves for the intrinsics."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import cv2
import numpy as np
import numpy.typing as npt

from koch_cameras.calibration.board import Board, Detection
from koch_cameras.errors import CalibrationDataError
from koch_cameras.intrinsics import Intrinsics

_GRID = (4, 3)
"""Cells of the coverage map along x and y."""
_LEAST_CORNERS = 8
_LEAST_VIEWS = 6
_MOVED_FRACTION = 0.04
"""A view counts as new if its corners moved by this part of the image's width on average."""
_OUTLIER_FACTOR = 3.0
_TILTED = 0.2
"""Sine of the tilt from which a view counts as tilted; lens distortion alone makes 0.13."""


class ViewVerdict(Enum):
    """What became of an image."""

    NO_BOARD = "no board"
    TOO_FEW = "too few corners"
    NOT_NEW = "move the board"
    TAKEN = "taken"


@dataclass(frozen=True, eq=False)
class Result:
    """A calibration.

    Attributes:
        intrinsics: The values.
        error_px: Root mean square of the reprojection error over all corners [px].
        view_errors_px: The same for each view used, float64 (V,), [px].
        views: Views used.
        left_out: Views left out because their error stood out.
    """

    intrinsics: Intrinsics
    error_px: float
    view_errors_px: npt.NDArray[np.float64]
    views: int
    left_out: int


class IntrinsicSession:
    """One calibration run of one camera."""

    def __init__(self, name: str, size: tuple[int, int], board: Board) -> None:
        """Start without views; ``size`` is (width, height) in [px]."""
        self._name = name
        self._size = size
        self._board = board
        self._views: list[Detection] = []

    @property
    def views(self) -> int:
        """Views taken so far."""
        return len(self._views)

    def add(self, grey: npt.NDArray[np.uint8]) -> ViewVerdict:
        """Look at an image, uint8 (H, W), and take it if it adds something."""
        if grey.shape != (self._size[1], self._size[0]):
            raise CalibrationDataError(
                f"image of {grey.shape[1]}x{grey.shape[0]}; the others have "
                f"{self._size[0]}x{self._size[1]}"
            )
        found = self._board.detect(grey)
        if found is None:
            return ViewVerdict.NO_BOARD
        if len(found.ids) < _LEAST_CORNERS:
            return ViewVerdict.TOO_FEW
        if any(self._distance(found, view) < _MOVED_FRACTION for view in self._views):
            return ViewVerdict.NOT_NEW
        self._views.append(found)
        return ViewVerdict.TAKEN

    def coverage(self) -> npt.NDArray[np.int64]:
        """Corners seen in each cell of the image, int64 (3, 4), top row first."""
        counts = np.zeros((_GRID[1], _GRID[0]), np.int64)
        for view in self._views:
            cells = (view.image_px / np.array(self._size) * np.array(_GRID)).astype(int)
            cells = np.clip(cells, 0, np.array(_GRID) - 1)
            np.add.at(counts, (cells[:, 1], cells[:, 0]), 1)
        return counts

    def tilt_fraction(self) -> float:
        """Part of the views in which the board is clearly tilted (its far side looks shorter)."""
        if not self._views:
            return 0.0
        return float(np.mean([_tilt(view, self._size[0]) > _TILTED for view in self._views]))

    def missing(self, wanted_views: int) -> list[str]:
        """What a good calibration still lacks, in words; empty when ready."""
        lacks = []
        if self.views < wanted_views:
            lacks.append(f"{wanted_views - self.views} more views")
        empty = int((self.coverage() == 0).sum())
        if empty:
            lacks.append(f"views in {empty} of {_GRID[0] * _GRID[1]} image regions")
        if self.tilt_fraction() < 0.3:
            lacks.append("views with the board tilted by 20 to 40 degrees")
        return lacks

    def solve(self) -> Result:
        """Compute the intrinsics; views whose error stands out are left out once.

        Raises:
            CalibrationDataError: Too few views, or all of them frontal.
        """
        if self.views < _LEAST_VIEWS:
            raise CalibrationDataError(f"{self.views} views; expected at least {_LEAST_VIEWS}")
        if self.tilt_fraction() == 0.0:
            raise CalibrationDataError(
                "the board is parallel to the image in all views, so the focal length cannot be "
                "told from the distance; tilt it"
            )
        first = self._solve(self._views)
        limit = _OUTLIER_FACTOR * float(np.median(first.view_errors_px))
        kept = [
            view
            for view, error in zip(self._views, first.view_errors_px, strict=True)
            if error <= limit
        ]
        left_out = self.views - len(kept)
        if left_out == 0 or len(kept) < _LEAST_VIEWS:
            return first
        second = self._solve(kept)
        return Result(
            second.intrinsics, second.error_px, second.view_errors_px, len(kept), left_out
        )

    def _solve(self, views: list[Detection]) -> Result:
        flat = [np.zeros((len(view.ids), 1)) for view in views]
        board = [
            np.hstack([view.board_m, zeros]).astype(np.float32)[:, None]
            for view, zeros in zip(views, flat, strict=True)
        ]
        image = [view.image_px.astype(np.float32)[:, None] for view in views]
        # Without starting values OpenCV estimates them from the views.
        error, matrix, distortion, _, _, _, _, per_view = cv2.calibrateCameraExtended(
            board, image, self._size, np.eye(3), np.zeros(5)
        )
        intrinsics = Intrinsics.pinhole(
            self._name, self._size, matrix, np.asarray(distortion).ravel()[:5]
        )
        return Result(
            intrinsics, float(error), np.asarray(per_view, dtype=np.float64).ravel(), len(views), 0
        )

    def _distance(self, one: Detection, other: Detection) -> float:
        """Mean shift of the common corners as a part of the image's width; 1 if few common."""
        _, first, second = np.intersect1d(one.ids, other.ids, return_indices=True)
        if len(first) < _LEAST_CORNERS // 2:
            return 1.0
        shift = np.linalg.norm(one.image_px[first] - other.image_px[second], axis=1)
        return float(shift.mean() / self._size[0])


def _tilt(view: Detection, width: int) -> float:
    """Rough sine of the board's tilt: the projective part of its homography times its distance.

    The focal length is not known yet; the image's width stands for it, which is right within a
    factor of 1.5 for common cameras.
    """
    centred = view.board_m - view.board_m.mean(axis=0)
    homography, _ = cv2.findHomography(centred, view.image_px)
    if homography is None:
        return 0.0
    scaled = homography / homography[2, 2]
    in_place = scaled[:2, :2] - np.outer(scaled[:2, 2], scaled[2, :2])
    pixels_per_m = np.sqrt(abs(np.linalg.det(in_place)))
    return float(np.linalg.norm(scaled[2, :2]) * width / pixels_per_m)
