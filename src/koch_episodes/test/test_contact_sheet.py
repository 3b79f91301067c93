# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The sheet shows the end of each trial in the colour of its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib.image
import numpy as np
import simplejpeg

from koch_episodes.contact_sheet import write_contact_sheet

if TYPE_CHECKING:
    from pathlib import Path


def test_sheet_has_a_framed_tile_for_each_trial(tmp_path: Path) -> None:
    image = simplejpeg.encode_jpeg(np.full((48, 60, 3), 90, np.uint8))
    ends = [True, None, True, True, True, True, False]
    write_contact_sheet(tmp_path / "sheet.png", [(image, success) for success in ends])
    sheet = matplotlib.image.imread(tmp_path / "sheet.png")
    assert sheet.shape[:2] == (2 * 24, 5 * 28)
    green, grey, red = sheet[0, 0], sheet[0, 28], sheet[24, 28]
    assert green[1] > green[0]
    assert grey[0] == grey[1] == grey[2]
    assert red[0] > red[1]
    assert (sheet[24:, 2 * 28 :] == 1.0).all(), "no trial, no tile"
