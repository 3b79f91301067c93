# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a `with` block opens and closes."""

from __future__ import annotations

import pytest

from koch_core.closing import Closing, Opening


class Door(Opening):
    def __init__(self) -> None:
        self.log: list[str] = []

    def open(self) -> None:
        self.log.append("open")

    def close(self) -> None:
        self.log.append("close")


def test_it_is_open_inside_and_closed_behind_also_after_an_error() -> None:
    door = Door()
    with door as same:
        assert same is door
        assert door.log == ["open"]
    assert door.log == ["open", "close"]
    with pytest.raises(KeyError), door:
        raise KeyError
    assert door.log == ["open", "close"] * 2


def test_what_cannot_be_closed_cannot_be_made() -> None:
    class Wall(Closing): ...

    with pytest.raises(TypeError, match="close"):
        Wall()  # type: ignore[abstract]
