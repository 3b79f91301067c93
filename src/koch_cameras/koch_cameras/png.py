# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a picture as PNG."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt


def encode_png(picture: npt.NDArray[np.uint8]) -> bytes:
    """Encode losslessly, without filters; for single pictures, not for streams.

    Args:
        picture: uint8, RGB (H, W, 3) or grey (H, W).

    Source: PNG specification, W3C REC-PNG-3, sections 5.3, 11.2.1 and 9.2.
    """
    height, width = picture.shape[:2]
    colour_type = 0 if picture.ndim == 2 else 2
    rows = np.ascontiguousarray(picture).reshape(height, -1)
    filtered = np.hstack([np.zeros((height, 1), np.uint8), rows])
    header = struct.pack(">IIBBBBB", width, height, 8, colour_type, 0, 0, 0)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            _chunk(b"IHDR", header),
            _chunk(b"IDAT", zlib.compress(filtered.tobytes(), 6)),
            _chunk(b"IEND", b""),
        ]
    )


def _chunk(kind: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)
