# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What comes from outside stays short and writes nothing but its own letters."""

from __future__ import annotations

import math

import pytest

from koch_core.wording import fixed, listed


def test_a_few_names_stand_as_they_are() -> None:
    assert listed(["pan", "lift"]) == "pan, lift"
    assert listed([]) == ""


def test_many_names_are_counted_and_long_ones_shortened() -> None:
    text = listed([f"x{k}" for k in range(50_000)])
    assert text == "x0, x1, x2, x3, x4, x5 and 49994 more"
    assert listed(["y" * 10**6]) == "y" * 40 + "..."


def test_control_characters_do_not_reach_a_terminal() -> None:
    assert listed(["a\x1b[2J\nb"]) == "a?[2J?b"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.12345, "0.123"), (-3.0, "-3.000"), (1e308, "1e+308"), (-1e9, "-1e+09"), (math.inf, "inf")],
)
def test_numbers_have_few_digits(value: float, text: str) -> None:
    assert fixed(value) == text
