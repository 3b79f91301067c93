# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Launch arguments follow from models of options."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path

import pytest

from koch_core.options import OptionError, OptionModel, option
from koch_vla.launch_nodes import LaunchArgument, from_launch, launch_arguments


class Pace(enum.Enum):
    """How fast."""

    SLOW = "slow"
    FAST = "fast"


@dataclass(frozen=True, kw_only=True)
class Wave(OptionModel):
    """One option of each kind."""

    inputs: tuple[Path, ...] = option(..., "what", flags=("inputs",), metavar="IN")
    out: Path = option(..., "where to", metavar="DIR")
    times: int = option(3, "how often", low=1, high=9)
    pace: Pace = option(Pace.SLOW, "how fast", flags=("--speed-kind",))
    engine: str = option("auto", "what computes", choices=("auto", "gpu"))
    loud: bool = option(False, "say so")
    split: bool = option(True, "cut")
    sim: bool | None = option(None, "simulated or not")
    labels: tuple[str, ...] = option((), "keep", flags=("--label",))


def test_launch_arguments_make_the_model() -> None:
    found = {argument.name: argument for argument in launch_arguments(Wave)}
    assert found["speed_kind"].choices == ("slow", "fast")
    assert found["times"] == LaunchArgument("times", "3", "how often")
    assert found["loud"] == LaunchArgument("loud", "false", "say so", ("true", "false"))
    assert found["split"].default == "true"
    assert found["engine"].choices == ("auto", "gpu")
    texts = {name: argument.default for name, argument in found.items()}
    texts |= {"inputs": "a; b", "out": "o", "times": "4", "label": "x", "sim": "true"}
    given = {"inputs": (Path("a"), Path("b")), "out": Path("o")}
    assert from_launch(Wave, texts) == Wave(**given, times=4, labels=("x",), sim=True)
    assert from_launch(Wave, {**texts, "sim": "false", "split": "false"}) == Wave(
        **given, times=4, labels=("x",), sim=None, split=False
    )
    with pytest.raises(OptionError, match="times:: got 'x', expected a number such as 3"):
        from_launch(Wave, {**texts, "times": "x"})
