# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Node parameters from a dataclass, on a real rclpy node."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from koch_ros.parameters import (
    ParameterError,
    ParameterRefusedError,
    UnknownParameterError,
    declare,
    live_parameters,
    parameter,
)

pytestmark = pytest.mark.ros
Make = Callable[..., Any]


@dataclass(frozen=True)
class Settings:
    """One parameter of each kind."""

    rig: str = parameter("", "path of the rig file", required=True)
    mode: str = parameter("slow", "how", choices=("slow", "fast"))
    speed: float = parameter(0.5, "how fast [rad/s]", low=0.0, high=2.0, live=True)
    count: int = parameter(3, "how many", low=1, high=9)
    pose: tuple[float, ...] = parameter((0.0, 1.0), "where [rad]")
    topics: tuple[str, ...] = parameter((), "which")


@pytest.fixture
def make_node() -> Iterator[Make]:
    """Return a function that makes a node with parameter overrides."""
    import rclpy
    from rclpy.parameter import Parameter

    context = rclpy.Context()
    rclpy.init(args=[], context=context)
    nodes = []

    def make(**overrides: Any) -> Any:
        values = [Parameter(name, value=value) for name, value in overrides.items()]
        nodes.append(rclpy.create_node("settings", context=context, parameter_overrides=values))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


def read(node: Any) -> Settings:
    return declare(node, Settings)


def test_defaults_and_overrides(make_node: Make) -> None:
    assert read(make_node(rig="r.yaml")) == Settings(rig="r.yaml")
    given = {"mode": "fast", "speed": 2.0, "count": 9, "pose": [3.0, 4.0], "topics": ["/a"]}
    assert read(make_node(rig="r.yaml", **given)) == Settings(
        "r.yaml", "fast", 2.0, 9, (3.0, 4.0), ("/a",)
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "parameter rig: got '', expected path of the rig file"),
        ({"rig": "r", "mode": "quick"}, "parameter mode: got 'quick', expected one of slow, fast"),
    ],
)
def test_missing_and_unknown_texts_are_refused(
    make_node: Make, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        read(make_node(**given))


@pytest.mark.parametrize(
    "given", [{"speed": 2.1}, {"speed": float("nan")}, {"speed": 2}, {"count": 0}, {"mode": 7}]
)
def test_wrong_types_and_values_out_of_range_are_refused(
    make_node: Make, given: dict[str, Any]
) -> None:
    with pytest.raises(ParameterRefusedError, match=rf"parameter {next(iter(given))} \("):
        read(make_node(rig="r", **given))


def test_only_live_parameters_change_while_the_node_runs(make_node: Make) -> None:
    from rclpy.parameter import Parameter

    node = make_node(rig="r.yaml")
    read(node)
    assert live_parameters(Settings) == ("speed",)
    changed = [node.set_parameters([Parameter(name, value=value)])[0].successful
               for name, value in (("speed", 1.5), ("count", 4), ("speed", 7.0))]  # fmt: skip
    assert changed == [True, False, False]


def test_descriptions_reach_ros2_param_describe(make_node: Make) -> None:
    node = make_node(rig="r.yaml")
    read(node)
    descriptor = node.describe_parameter("speed")
    assert descriptor.description == "how fast [rad/s]"
    assert not descriptor.read_only
    assert node.describe_parameter("count").integer_range[0].to_value == 9


@pytest.fixture
def from_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str, str], Settings]]:
    """Return a function that reads the settings of a node whose only parameter file it is told."""
    import rclpy

    context = rclpy.Context()
    nodes = []

    def read_from(text: str, more: str = "") -> Settings:
        file = tmp_path / "mine.yaml"
        file.write_text(text)
        words = ["node", "--ros-args", "-p", "rig:=r", "--params-file", str(file), *more.split()]
        monkeypatch.setattr("sys.argv", words)
        rclpy.init(args=words, context=context)
        nodes.append(rclpy.create_node("settings", context=context))
        return read(nodes[-1])

    yield read_from
    for node in nodes:
        node.destroy_node()
    context.try_shutdown()


@pytest.mark.parametrize("key", ["/**", "/*"])
def test_a_wildcard_section_may_hold_parameters_of_other_nodes(
    from_file: Callable[..., Settings], key: str
) -> None:
    text = f"{key}: {{ros__parameters: {{count: 5, jpeg_quality: 70, on_exit: rest}}}}\n"
    assert from_file(text).count == 5


@pytest.mark.parametrize(
    ("text", "more", "name"),
    [
        ("/**: {ros__parameters: {jpeg_qualiti: 70}}", "", "jpeg_qualiti"),  # no node has it
        ("settings: {ros__parameters: {jpeg_quality: 70}}", "", "jpeg_quality"),  # by name
        ("/**/settings: {ros__parameters: {jpeg_quality: 70}}", "", "jpeg_quality"),
        ("/settings: {ros__parameters: {jpeg_quality: 70}}", "", "jpeg_quality"),
        ("/**: {ros__parameters: {jpeg_quality: 70}}", "-p jpeg_quality:=70", "jpeg_quality"),
    ],
)
def test_a_parameter_of_no_node_or_of_another_than_was_named_is_refused(
    from_file: Callable[..., Settings], text: str, more: str, name: str
) -> None:
    with pytest.raises(UnknownParameterError, match=f"parameter {name}: this node has none"):
        from_file(text, more)
