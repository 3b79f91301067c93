# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch inspect`: what it prints, draws and answers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.inspect_bag import Verdict, inspect_bag
from koch_episodes.inspect_cli import main
from koch_episodes.inspect_plot import Curve, Following, _draw_gaps, by_unit

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


def test_the_folder_of_the_image_is_made_or_refused_before_the_reading(
    write_bag: WriteBag, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bag = write_bag(seconds=1.0)
    assert main([str(bag), "-o", str(tmp_path / "new" / "out.png")]) == 0
    assert (tmp_path / "new" / "out.png").is_file()
    capsys.readouterr()
    (tmp_path / "file").touch()
    assert main([str(bag), "-o", str(tmp_path / "file" / "out.png")]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "File exists. Name another file." in said.err


@pytest.mark.parametrize("gaps_ms", [(8.0, 12.0), (2.0, 90.0), (1.0, 5000.0)])
def test_labels_of_gaps_do_not_lie_on_each_other(gaps_ms: tuple[float, float]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 2.0))
    canvas = FigureCanvasAgg(figure)
    few, many = gaps_ms
    stamps = np.cumsum(np.array([0.0, few, many, few]) * 1e6).astype(np.int64)
    _draw_gaps(figure, {"/a": stamps})
    canvas.draw()  # type: ignore[no-untyped-call]
    axis = figure.axes[0].yaxis
    low, high = figure.axes[0].get_ylim()
    ticks = [*axis.get_major_ticks(), *axis.get_minor_ticks()]
    shown = [t for t in ticks if low <= t.get_loc() <= high and t.label1.get_text()]
    boxes = sorted((t.label1.get_window_extent() for t in shown), key=lambda box: box.y0)
    assert boxes
    assert all(below.y1 <= above.y0 for below, above in itertools.pairwise(boxes))


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
    assert len(facts.topics["/cameras/above/image_raw/compressed"].images) == 4


def test_a_policys_energy_may_come_when_it_suits(
    write_bag: WriteBag, named_vector: Callable[..., Any]
) -> None:
    def add(messages: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        first = messages[0][3]
        told = [
            named_vector("/policy/energy", first + at_ns, ["energy"], [value])
            for at_ns, value in ((200_000_000, 0.25), (1_900_000_000, 4.0))
        ]
        return sorted([*messages, *told], key=lambda message: message[2])

    facts = inspect_bag(write_bag(seconds=2.0, change=add))
    assert facts.verdict is Verdict.GOOD, facts.reasons
    assert facts.topics["/policy/energy"].names == ("energy",)
    assert facts.topics["/policy/energy"].values[:, 0].tolist() == [0.25, 4.0]


def test_images_that_nobody_can_show_are_bad_with_the_reason(
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


@pytest.mark.parametrize(("state_hz", "command_hz", "lead_s"), [(10, 4, 0.0), (30, 100, -0.2)])
def test_the_error_is_to_the_command_in_force(
    state_hz: float, command_hz: float, lead_s: float
) -> None:
    """At another rate, and not yet there at the beginning."""
    times, sent = np.arange(60) / state_hz, np.arange(300) / command_hz - lead_s
    names = ("elbow_flex", "gripper")
    state = Curve("state", times, np.zeros((60, 2)), names, "rad")
    command = Curve("command", sent, np.column_stack([sent, -sent]), names, "rad")
    held = Following(state, command).held()
    for time, row in zip(times, held, strict=True):
        before = sent[sent <= time]
        expected = [before[-1], -before[-1]] if len(before) else [np.nan, np.nan]
        np.testing.assert_allclose(row, expected)


def test_units_do_not_share_axes_and_folded_angles_are_not_joined() -> None:
    yaw = np.array([1.4, 1.5, -1.5, -1.4])
    values = np.column_stack([np.full(4, 0.1), yaw, np.full(4, 7.0)])
    curve = Curve("world", np.arange(4.0), values, ("block_x", "block_yaw", "count"))
    metres, angles, other = by_unit(curve)
    assert (metres.unit, angles.unit, other.unit) == ("m", "rad", "value")
    assert (metres.names, angles.names) == (["block_x"], ["block_yaw"])
    np.testing.assert_array_equal(np.isnan(angles.values[:, 0]), [False, False, True, False])


def test_images_know_their_times(write_bag: WriteBag) -> None:
    facts = inspect_bag(write_bag(seconds=2.0))
    for topic in facts.topics.values():
        assert len(topic.image_stamps_ns) == len(topic.images)
        if topic.images:
            assert topic.image_stamps_ns == sorted(set(topic.image_stamps_ns))
            assert set(topic.image_stamps_ns) <= set(topic.stamps_ns.tolist())
            assert topic.image_stamps_ns[0] == topic.stamps_ns[0]
