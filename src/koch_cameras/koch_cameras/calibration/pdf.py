# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A PDF of the board that prints at its true size."""

from __future__ import annotations

import zlib

from koch_cameras.calibration.board import Board

_POINTS_PER_M = 72.0 / 0.0254
_A4_M = (0.297, 0.210)
_PIXELS_PER_SQUARE = 96
_RULER_M = 0.1


def board_pdf(board: Board) -> bytes:
    """One A4 page, landscape, with the board in its middle and a ruler of 100 mm below.

    Source: ISO 32000-1, sections 7.5 (file structure) and 8.9.5 (board_image dictionaries).
    """
    image = board.image(_PIXELS_PER_SQUARE)
    height, width = image.shape
    page = tuple(side * _POINTS_PER_M for side in _A4_M)
    size = (
        board.columns * board.square_m * _POINTS_PER_M,
        board.rows * board.square_m * _POINTS_PER_M,
    )
    left, bottom = (page[0] - size[0]) / 2, (page[1] - size[1]) / 2 + 8
    ruler = _RULER_M * _POINTS_PER_M
    text = (
        f"koch_vla ChArUco {board.columns}x{board.rows}, DICT_5X5_100, square "
        f"{board.square_m * 1e3:g} mm, marker {board.marker_m * 1e3:g} mm. Print at 100 %, glue "
        "it on something flat. This line is 100 mm:"
    )
    drawing = (
        f"q {size[0]:.4f} 0 0 {size[1]:.4f} {left:.4f} {bottom:.4f} cm /Board Do Q\n"
        f"BT /F1 8 Tf {left:.2f} {bottom - 14:.2f} Td ({text}) Tj ET\n"
        f"1 w {left:.4f} {bottom - 20:.2f} m {left + ruler:.4f} {bottom - 20:.2f} l S\n"
    ).encode("ascii")
    board_image = zlib.compress(image.tobytes(), 9)
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        (
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {page[0]:.4f} {page[1]:.4f}] "
            "/Resources << /XObject << /Board 5 0 R >> /Font << /F1 6 0 R >> >> "
            "/Contents 4 0 R >>"
        ).encode("ascii"),
        _stream("", drawing),
        _stream(
            f"/Type /XObject /Subtype /Image /Width {width} /Height {height} "
            "/ColorSpace /DeviceGray /BitsPerComponent 8 /Filter /FlateDecode ",
            board_image,
        ),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>",
    ]
    return _file(objects)


def _stream(keys: str, content: bytes) -> bytes:
    head = f"<< {keys}/Length {len(content)} >>\nstream\n".encode("ascii")
    return head + content + b"\nendstream"


def _file(objects: list[bytes]) -> bytes:
    """Number the objects and write the cross-reference table."""
    result = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(result))
        result += b"%d 0 obj\n" % number + content + b"\nendobj\n"
    start = len(result)
    result += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for offset in offsets:
        result += b"%010d 00000 n \n" % offset
    result += b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (
        len(objects) + 1,
        start,
    )
    return bytes(result)
