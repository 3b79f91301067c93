# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch inspect`: what it prints, draws and answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.inspect_bag import Verdict, inspect_bag
from koch_episodes.inspect_cli import main

WriteBag = Callable[..., Path]


def test_bag_is_measured_and_drawn(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=2.0)
    png = tmp_path / "out.png"
    assert main([str(bag), "-o", str(png)]) == 0
    text = capsys.readouterr().out
    assert "/cameras/above/image_raw/compressed     60   30.00   33.33" in text
    assert "64x48" in text
    assert "task: Pick up the block." in text
    assert "verdict: good" in text
    assert png.read_bytes()[:4] == b"\x89PNG"


def test_gap_makes_a_bad_verdict(write_bag: WriteBag, tmp_path: Path) -> None:
    bag = write_bag(
        seconds=3.0,
        change=lambda messages: [
            m for m in messages if "above" not in m[0] or not 1e9 < m[3] % 10**11 < 2e9
        ],
    )
    facts = inspect_bag(bag)
    assert facts.verdict is Verdict.BAD
    assert any("above" in reason and "gap of" in reason for reason in facts.reasons)
    assert main([str(bag), "--no-png"]) == 1
    assert len(facts.topics["/cameras/above/image_raw/compressed"].pictures) == 4


def test_pictures_that_nobody_can_show_are_bad_with_the_reason(
    write_bag: WriteBag, tmp_path: Path
) -> None:
    """Their headers are sound; only decoding finds them."""

    def broken(messages: list[Any]) -> list[Any]:
        for message in messages:
            if "above" in message[0]:
                data = bytearray(bytes(message[4].data))
                data[len(data) // 2 : -2] = b"\xff\xc4" * ((len(data) - 1 - len(data) // 2) // 2)
                message[4].data = np.frombuffer(bytes(data), np.uint8)
        return messages

    facts = inspect_bag(write_bag(seconds=1.0, change=broken))
    assert facts.verdict is Verdict.BAD
    assert any("above" in r and "unreadable message(s) (" in r for r in facts.reasons)


def test_dataset_is_described_and_drawn(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert([write_bag(seconds=1.0)], tmp_path / "data", ConvertOptions())
    png = tmp_path / "out.png"
    assert main([str(tmp_path / "data"), "--png", str(png), "--validate"]) == 0
    text = capsys.readouterr().out
    assert "1 episodes, 30 frames" in text
    assert "valid: LeRobot can load it" in text
    assert png.stat().st_size > 5000
    assert main([str(tmp_path / "data"), "--png", str(png), "--episode", "7"]) == 2


def test_something_else_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path)]) == 2
    assert "expected a rosbag2 bag" in capsys.readouterr().err
