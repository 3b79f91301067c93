# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Names that are imported on first use."""

import json

import pytest

from koch_core.lazy import lazy_name


def test_a_name_comes_from_the_module_that_has_it() -> None:
    modules = {"encoder": ("JSONEncoder",), "decoder": ("JSONDecoder",)}
    assert lazy_name("json", "JSONDecoder", modules) is json.JSONDecoder
    with pytest.raises(AttributeError, match="module 'json' has no attribute 'loads'"):
        lazy_name("json", "loads", modules)  # it is there, but not among the public names
