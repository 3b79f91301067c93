# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The runtime `lerobot`: in LeRobot's Python, and what it says where there is none."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from koch_policy.errors import RuntimeChoiceError
from koch_policy.runtime import load_policy
from koch_policy.runtime.lerobot_runtime import foreign_config

SOURCES = Path(__file__).parents[2]
SIDE = Path(__file__).with_name("lerobot_runtime_side.py")


def _found(lerobot: Any, folder: Path) -> Any:
    path = os.pathsep.join(str(each) for each in sorted(SOURCES.glob("koch_*")))
    lerobot.run(SIDE, folder, path=path)
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_policies_of_lerobot_act_as_in_its_own_loop(lerobot: Any, tmp_path: Path) -> None:
    """ACT (no history), Diffusion and VQ-BeT (observation queues), TD-MPC (plans by sampling)."""
    if lerobot.version < (0, 4):
        pytest.skip("0.3 has no processors")
    found = _found(lerobot, tmp_path)
    assert set(found) == {"act", "diffusion", "vqbet", "tdmpc"}
    for name, figures in found.items():
        assert figures["spread"] > 1e-3, f"{name}: all actions alike would prove nothing"
        for way in ("history kept", "history given"):
            assert figures[way] < 1e-5, (name, way)


@pytest.mark.skipif(find_spec("lerobot") is not None, reason="lerobot is installed here")
def test_without_lerobot_it_says_what_to_install(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("act", tmp_path)
    with pytest.raises(RuntimeChoiceError, match=r"not installed.*Install lerobot"):
        load_policy(path, "lerobot", device="cpu")


SMOLVLA = {
    "type": "smolvla",
    "n_obs_steps": 1,
    "chunk_size": 50,
    "n_action_steps": 20,
    "input_features": {
        "observation.state": {"type": "STATE", "shape": [6]},
        "observation.images.camera1": {"type": "VISUAL", "shape": [3, 256, 256]},
        "observation.images.empty_camera_0": {"type": "VISUAL", "shape": [3, 480, 640]},
    },
    "output_features": {"action": {"type": "ACTION", "shape": [6]}},
    "normalization_mapping": {"VISUAL": "IDENTITY", "STATE": "MEAN_STD", "ACTION": "MEAN_STD"},
}


def test_a_foreign_policy_is_described_by_its_features() -> None:
    config = foreign_config(SMOLVLA)
    assert config.horizon_steps == 50
    assert list(config.cameras) == ["observation.images.camera1"], "LeRobot fills empty cameras"
    assert config.state_dim == 6
