# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated rig, as it stands in config/."""

from dataclasses import replace
from pathlib import Path

import pytest

from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_sim.world import World

CONFIG = Path(__file__).parents[3] / "config"


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """config/rig.sim.yaml with its own run folder."""
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path / "run"))
    rig = load_rig(CONFIG / "rig.sim.yaml")
    assert rig.simulation is not None
    # All of the reachable area, not only the part that the rig's demonstrations use.
    return replace(rig, simulation=replace(rig.simulation, spread_fraction=1.0))


@pytest.fixture
def world(rig: Rig) -> World:
    """A world at seed 0."""
    return World(rig, seed=0)
