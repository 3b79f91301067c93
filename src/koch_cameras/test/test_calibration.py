# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Board, PDF and intrinsics from rendered views with a known camera."""

from __future__ import annotations

import re
import zlib

import numpy as np
import pytest

cv2 = pytest.importorskip("cv2")

from koch_cameras.calibration import Board, IntrinsicSession, ViewVerdict, board_pdf  # noqa: E402
from koch_cameras.errors import CalibrationDataError  # noqa: E402

SIZE = (640, 480)
K = np.array([[610.0, 0.0, 331.0], [0.0, 605.0, 228.0], [0.0, 0.0, 1.0]])
D = np.array([-0.25, 0.08, 0.001, -0.0015, 0.0])


def render(board: Board, rotation: tuple, position: tuple) -> np.ndarray:
    """Exact image of the board by a camera with K and D: each pixel is traced back."""
    per_square = 64
    texture = board.image(per_square)
    x, y = np.meshgrid(np.arange(SIZE[0]), np.arange(SIZE[1]))
    pixels = np.stack([x, y], axis=-1).reshape(-1, 1, 2).astype(np.float64)
    rays = cv2.undistortPoints(pixels, K, D).reshape(-1, 2)
    matrix, _ = cv2.Rodrigues(np.array(rotation, dtype=np.float64))
    plane = np.column_stack([matrix[:, 0], matrix[:, 1], np.array(position)])
    on_board = np.column_stack([rays, np.ones(len(rays))]) @ np.linalg.inv(plane).T
    metres = on_board[:, :2] / on_board[:, 2:]
    where = (metres / board.square_m * per_square - 0.5).astype(np.float32)
    where = where.reshape(SIZE[1], SIZE[0], 2)
    image = cv2.remap(texture, where[..., 0], where[..., 1], cv2.INTER_AREA, borderValue=200)
    return cv2.GaussianBlur(image, (3, 3), 0.7)


def poses() -> list[tuple[tuple, tuple]]:
    """Tilted views that cover the image; the board's origin is its top left corner."""
    rng = np.random.default_rng(4)
    found = []
    for across in (-0.24, -0.13, -0.02):
        for down in (-0.17, -0.08, 0.01):
            tilt = rng.uniform(-0.5, 0.5, 3) * (1.0, 1.0, 0.3)
            found.append((tuple(tilt), (across, down, rng.uniform(0.36, 0.48))))
    return found


@pytest.fixture(scope="module")
def session() -> IntrinsicSession:
    board = Board()
    item = IntrinsicSession("above", SIZE, board)
    verdicts = [item.add(render(board, *pose)) for pose in poses()]
    assert verdicts.count(ViewVerdict.TAKEN) >= 8
    return item


def test_known_camera_is_recovered(session):
    result = session.solve()
    matrix = result.intrinsics.camera_matrix
    np.testing.assert_allclose(matrix[[0, 1], [0, 1]], K[[0, 1], [0, 1]], rtol=0.01)
    np.testing.assert_allclose(matrix[:2, 2], K[:2, 2], atol=4.0)
    np.testing.assert_allclose(result.intrinsics.distortion[0], D[0], atol=0.03)
    assert result.error_px < 0.25
    assert result.intrinsics.projection[0, 0] == matrix[0, 0]


def test_coverage_and_advice(session):
    assert session.coverage().shape == (3, 4)
    assert (session.coverage() > 0).sum() >= 10
    assert session.tilt_fraction() > 0.3
    assert session.missing(50)[0] == f"{50 - session.views} more views"


def test_same_view_twice_is_not_taken():
    board = Board()
    item = IntrinsicSession("above", SIZE, board)
    view = render(board, (0.3, 0.1, 0.0), (-0.12, -0.08, 0.45))
    assert [item.add(view), item.add(view)] == [ViewVerdict.TAKEN, ViewVerdict.NOT_NEW]


def test_images_without_board_are_refused():
    item = IntrinsicSession("above", SIZE, Board())
    assert item.add(np.full((480, 640), 128, np.uint8)) is ViewVerdict.NO_BOARD
    with pytest.raises(CalibrationDataError, match="image of 320x240"):
        item.add(np.zeros((240, 320), np.uint8))
    with pytest.raises(CalibrationDataError, match="0 views; expected at least 6"):
        item.solve()


def test_frontal_views_alone_are_refused():
    board = Board()
    item = IntrinsicSession("above", SIZE, board)
    for index in range(6):
        item.add(render(board, (0.0, 0.0, 0.0), (-0.2 + 0.03 * index, -0.08, 0.45)))
    assert item.views == 6
    with pytest.raises(CalibrationDataError, match="tilt it"):
        item.solve()


@pytest.mark.parametrize("change", [{"columns": 2}, {"marker_m": 0.04}, {"rows": 99}])
def test_impossible_boards_are_refused(change):
    with pytest.raises(CalibrationDataError, match="expected"):
        Board(**change)


def test_pdf_prints_the_board_at_its_true_size():
    board = Board()
    data = board_pdf(board)
    box = re.search(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", data)
    np.testing.assert_allclose([float(box[1]), float(box[2])], [841.89, 595.28], atol=0.01)
    scale = re.search(rb"q ([\d.]+) 0 0 ([\d.]+) ([\d.]+) ([\d.]+) cm", data)
    size = [float(scale[1]) / 72 * 0.0254, float(scale[2]) / 72 * 0.0254]
    np.testing.assert_allclose(size, [8 * 0.032, 5 * 0.032], atol=1e-6)
    assert float(scale[3]) > 20
    assert float(scale[4]) > 30
    board_image = re.search(
        rb"/Width (\d+) /Height (\d+).*?/Length (\d+) >>\nstream\n", data, re.S
    )
    raw = zlib.decompress(data[board_image.end() : board_image.end() + int(board_image[3])])
    image = np.frombuffer(raw, np.uint8).reshape(int(board_image[2]), int(board_image[1]))
    assert len(board.detect(cv2.copyMakeBorder(image, *[50] * 4, 0, value=255)).ids) == 28
    start = int(re.search(rb"startxref\n(\d+)", data)[1])
    assert data[start:].startswith(b"xref\n0 7\n")
    for number, offset in enumerate(re.findall(rb"(\d{10}) 00000 n", data), start=1):
        assert data[int(offset) :].startswith(b"%d 0 obj" % number)
