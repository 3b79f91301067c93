# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where a camera is mounted, from views of a board while the arm moves.

One of camera and board is carried by a link of the arm, the other stands in the world. With the
frames as T_to_from, each view says

    T_camera_board = T_mount_camera^-1 . T_mount_board_frame(joints) . T_board_frame_board

where the camera is mounted on one frame and the board on the other. The two constant poses are
unknown. A closed form gives a first answer; then all corners of all views are fitted together, in
pixels, which weighs near and far views as the camera sees them.

Source: M. Shah, "Solving the robot-world/hand-eye calibration problem using the Kronecker
product", J. Mechanisms and Robotics 5, 2013. OpenCV has it as
calibrateRobotWorldHandEye, but not in the Python packages of 5.0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from koch_cameras.calibration.board import Detection
from koch_cameras.errors import CalibrationDataError
from koch_cameras.intrinsics import Intrinsics

Floats = npt.NDArray[np.float64]
LEAST_VIEWS = 6
# Turns between views (rms) about a second axis: with less, a part of the pose is a guess.
LEAST_TURN_RAD = 0.1
_STEPS = 100
_CONVERGED = 1e-10
_HUBER_PX = 1.0
_NUDGE = 1e-6


@dataclass(frozen=True, eq=False)
class PoseView:
    """One view of the board.

    Attributes:
        detection: Its corners in the image.
        mount_from_board_frame: Pose of the frame that holds the board in the frame that holds the
            camera, from the joints, float64 (4, 4), [m].
    """

    detection: Detection
    mount_from_board_frame: Floats


@dataclass(frozen=True, eq=False)
class CameraPose:
    """A camera's mount.

    Attributes:
        mount_from_camera: Pose of the optical frame (z forward, x right, y down) in the frame that
            holds the camera, float64 (4, 4), [m].
        board_frame_from_board: Where the board turned out to be, float64 (4, 4), [m].
        projected_px: Where all views' corners should be in the image, float64 (N, 2), [px].
        errors_px: How far from there they were seen, float64 (N,), [px].
        view_errors_m: How far each view alone would put the camera elsewhere, float64 (V,), [m].
        view_errors_rad: The same as an angle, float64 (V,), [rad].
    """

    mount_from_camera: Floats
    board_frame_from_board: Floats
    projected_px: Floats
    errors_px: Floats
    view_errors_m: Floats
    view_errors_rad: Floats

    @property
    def rms_px(self) -> float:
        """Root mean square of the reprojection error [px]."""
        return float(np.sqrt(np.mean(self.errors_px**2)))


def solve_pose(views: Sequence[PoseView], intrinsics: Intrinsics) -> CameraPose:
    """Find the mount of a camera.

    Raises:
        CalibrationDataError: Too few views, or the arm turned about less than two axes.
    """
    if len(views) < LEAST_VIEWS:
        raise CalibrationDataError(
            f"the board is seen in {len(views)} views; expected at least {LEAST_VIEWS}"
        )
    _check_turns([view.mount_from_board_frame for view in views])
    seen = [_board_in_camera(view.detection, intrinsics) for view in views]
    parameters = _fitted(_closed_form(seen, views), views, intrinsics)
    camera, board = _pose(parameters[:6]), _pose(parameters[6:])
    residuals = _residuals(parameters, views, intrinsics).reshape(-1, 2)
    alone = [
        np.linalg.inv(camera) @ view.mount_from_board_frame @ board @ np.linalg.inv(pose)
        for view, pose in zip(views, seen, strict=True)
    ]
    return CameraPose(
        camera,
        board,
        residuals + np.vstack([view.detection.image_px for view in views]),
        np.linalg.norm(residuals, axis=1),
        np.array([np.linalg.norm(pose[:3, 3]) for pose in alone]),
        np.array([np.linalg.norm(cv2.Rodrigues(pose[:3, :3])[0]) for pose in alone]),
    )


def corners_image(grey: npt.NDArray[np.uint8], seen_px: Floats, projected_px: Floats) -> bytes:
    """A view as PNG: corners as seen (green circles), and where they should be (red crosses)."""
    image = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    for seen, wanted in zip(seen_px, projected_px, strict=True):
        cv2.circle(image, np.rint(seen).astype(int).tolist(), 4, (0, 160, 0), 1)
        cv2.drawMarker(image, np.rint(wanted).astype(int).tolist(), (0, 0, 220))
    return cv2.imencode(".png", image)[1].tobytes()


def _check_turns(poses: Sequence[Floats]) -> None:
    """Two turns about one axis leave open where along it the camera is."""
    turns = np.array(
        [cv2.Rodrigues(poses[0][:3, :3].T @ pose[:3, :3])[0].ravel() for pose in poses]
    )
    spread = np.linalg.svd(turns - turns.mean(axis=0), compute_uv=False) / np.sqrt(len(poses))
    if spread[1] < LEAST_TURN_RAD:
        raise CalibrationDataError(
            f"the arm turned about one axis only ({np.degrees(spread[0]):.0f} degrees, and "
            f"{np.degrees(spread[1]):.0f} about a second one); expected at least "
            f"{np.degrees(LEAST_TURN_RAD):.0f} about a second: pan, bend and roll the wrist while "
            "the board stays in view"
        )


def _board_in_camera(detection: Detection, intrinsics: Intrinsics) -> Floats:
    """Pose of the board in the camera's frame, from one view."""
    corners = np.column_stack([detection.board_m, np.zeros(len(detection.ids))])
    found, turn, place = cv2.solvePnP(
        corners, detection.image_px, intrinsics.camera_matrix, intrinsics.distortion
    )
    if not found:
        raise CalibrationDataError("a view of the board fits no pose; is the board flat?")
    return _pose(np.concatenate([turn.ravel(), place.ravel()]))


def _closed_form(seen: Sequence[Floats], views: Sequence[PoseView]) -> Floats:
    """First answer: the two poses as rotation vectors and places, float64 (12,).

    With X the camera's and Y the board's pose, each view says X C = A Y. Its rotations are linear
    in the entries of both; their common null vector is brought back to two rotations. Then the
    places are linear as well.
    """
    arm = [view.mount_from_board_frame for view in views]
    system = np.vstack(
        [
            np.hstack([np.kron(c[:3, :3].T, np.eye(3)), -np.kron(np.eye(3), a[:3, :3])])
            for c, a in zip(seen, arm, strict=True)
        ]
    )
    null = np.linalg.svd(system)[2][-1]
    camera, board = (_nearest_rotation(part.reshape(3, 3).T) for part in (null[:9], null[9:]))
    places = np.vstack([np.hstack([np.eye(3), -a[:3, :3]]) for a in arm])
    known = [a[:3, 3] - camera @ c[:3, 3] for c, a in zip(seen, arm, strict=True)]
    found = np.linalg.lstsq(places, np.concatenate(known))[0]
    poses = (_joined(camera, found[:3]), _joined(board, found[3:]))
    return np.concatenate([_vector(pose) for pose in poses])


def _nearest_rotation(matrix: Floats) -> Floats:
    """The rotation nearest to a matrix, whose scale and sign do not matter."""
    left, _, right = np.linalg.svd(matrix * np.sign(np.linalg.det(matrix)))
    rotation: Floats = left @ right
    return rotation


def _fitted(parameters: Floats, views: Sequence[PoseView], intrinsics: Intrinsics) -> Floats:
    """Levenberg-Marquardt over all corners; corners far off count less (Huber)."""
    damping, cost = 1e-3, np.inf
    for _ in range(_STEPS):
        residuals = _residuals(parameters, views, intrinsics)
        weights = _weights(residuals)
        jacobian = np.column_stack(
            [
                (_residuals(parameters + nudge, views, intrinsics) - residuals) / _NUDGE
                for nudge in _NUDGE * np.eye(len(parameters))
            ]
        )
        normal = jacobian.T @ (weights[:, None] * jacobian)
        gradient = jacobian.T @ (weights * residuals)
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal)), -gradient)
        tried = _residuals(parameters + step, views, intrinsics)
        cost, before = float(weights @ tried**2), float(weights @ residuals**2)
        if cost > before:
            damping *= 10.0
            continue
        parameters, damping = parameters + step, damping / 10.0
        if before - cost <= _CONVERGED * before:
            break
    return parameters


def _weights(residuals: Floats) -> Floats:
    lengths = np.repeat(np.linalg.norm(residuals.reshape(-1, 2), axis=1), 2)
    weights: Floats = np.minimum(1.0, _HUBER_PX / np.maximum(lengths, _HUBER_PX))
    return weights


def _residuals(parameters: Floats, views: Sequence[PoseView], intrinsics: Intrinsics) -> Floats:
    """Projected minus seen corners of all views, float64 (2 N,), [px]."""
    camera_from_mount, board = np.linalg.inv(_pose(parameters[:6])), _pose(parameters[6:])
    found = []
    for view in views:
        pose = camera_from_mount @ view.mount_from_board_frame @ board
        corners = np.column_stack([view.detection.board_m, np.zeros(len(view.detection.ids))])
        projected, _ = cv2.projectPoints(
            corners, pose[:3, :3], pose[:3, 3], intrinsics.camera_matrix, intrinsics.distortion
        )
        found.append((projected.reshape(-1, 2) - view.detection.image_px).ravel())
    return np.concatenate(found)


def _pose(vector: Floats) -> Floats:
    """Rotation vector and place as a homogeneous matrix."""
    return _joined(cv2.Rodrigues(vector[:3])[0], vector[3:])


def _joined(rotation: npt.ArrayLike, place: Floats) -> Floats:
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, np.ravel(place)
    return pose


def _vector(pose: Floats) -> Floats:
    return np.concatenate([cv2.Rodrigues(pose[:3, :3])[0].ravel(), pose[:3, 3]])
