# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of cameras: intrinsics from a ChArUco board. Only this folder imports OpenCV."""

from koch_cameras.calibration.board import Board, Detection
from koch_cameras.calibration.intrinsic_session import IntrinsicSession, Result, ViewVerdict
from koch_cameras.calibration.pdf import board_pdf

__all__ = ["Board", "Detection", "IntrinsicSession", "Result", "ViewVerdict", "board_pdf"]
