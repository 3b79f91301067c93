# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Raw images through cv_bridge, here its documented interface over OpenCV."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from koch_core import image
from koch_core.errors import DecodeError

MODULE = "koch_ros.cv_images"


@pytest.fixture
def cv_bridge(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An installation that has cv_bridge."""
    monkeypatch.syspath_prepend(Path(__file__).resolve().parent / "stand_ins")
    monkeypatch.setattr(image.RAW_IMAGES, "_kinds", {})
    image._other_decoder.cache_clear()
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    importlib.import_module(MODULE)
    yield
    image._other_decoder.cache_clear()
    sys.modules.pop(MODULE, None)
    sys.modules.pop("cv_bridge", None)


def test_a_bayer_image_becomes_rgb(cv_bridge: None) -> None:
    mosaic = np.zeros((8, 10), np.uint8)
    mosaic[::2, ::2] = 200  # red
    mosaic[1::2, 1::2] = 40  # blue
    mosaic[::2, 1::2] = mosaic[1::2, ::2] = 90  # green
    padded = np.zeros((8, 16), np.uint8)
    padded[:, :10] = mosaic
    rgb = image.raw_image("bayer_rggb8", 8, 10, 16, padded.tobytes())
    assert rgb.shape == (8, 10, 3)
    assert rgb[4, 4].tolist() == [200, 90, 40]


def test_sixteen_bits_of_grey_become_eight(cv_bridge: None) -> None:
    grey = np.array([[0, 65535], [257, 514]], "<u2")
    rgb = image.raw_image("mono16", 2, 2, 4, grey.tobytes())
    assert rgb[..., 1].tolist() == [[0, 255], [1, 2]]


def test_what_cv_bridge_refuses_is_an_image_that_cannot_be_decoded(cv_bridge: None) -> None:
    with pytest.raises(DecodeError, match=r"'32FC1': cv_bridge says: .*not a color format"):
        image.raw_image("32FC1", 2, 2, 8, bytes(16))


@pytest.mark.skipif(
    importlib.util.find_spec("cv_bridge") is not None, reason="this ROS has cv_bridge"
)
def test_without_cv_bridge_the_error_names_it() -> None:
    image._other_decoder.cache_clear()
    with pytest.raises(DecodeError, match=r"'bayer_rggb8', expected one of rgb8.*cv_bridge"):
        image.raw_image("bayer_rggb8", 8, 10, 10, bytes(80))
