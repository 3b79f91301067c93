# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The runtime `lerobot`: a server in LeRobot's Python, and what is said where there is none."""

from __future__ import annotations

import json
import os
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.errors import PolicyUnavailableError, RuntimeChoiceError
from koch_policy.runtime import load_policy
from koch_policy.server.client import (
    ServedPolicy,
    ServedPolicyError,
    foreign_config,
    server_environment,
)

SIDE = Path(__file__).with_name("lerobot_runtime_side.py")


def _found(lerobot: Any, folder: Path) -> Any:
    packages = folder / "packages"
    packages.mkdir()
    path = server_environment(packages, None)["PYTHONPATH"]
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


@pytest.mark.parametrize(
    ("given", "named"), [({"precision": "bf16"}, "precision"), ({"compiles": True}, "compiles")]
)
def test_what_lerobot_would_not_hear_of_is_refused(given: dict[str, Any], named: str) -> None:
    with pytest.raises(RuntimeChoiceError, match=f"takes no {named}"):
        load_policy("lerobot/smolvla_base", "lerobot", **given)


@pytest.mark.skipif(find_spec("lerobot") is not None, reason="lerobot is installed here")
def test_without_lerobot_it_says_what_to_install(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KOCH_LEROBOT_PYTHON", raising=False)
    monkeypatch.setenv("KOCH_ROOT", str(tmp_path))
    path = make.checkpoint("act", tmp_path)
    with pytest.raises(RuntimeChoiceError, match=r"not installed.*setup --with lerobot"):
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


def look(camera: str, task: str, seed: int) -> dict[str, Any]:
    """What an arm and its camera see."""
    draw = np.random.default_rng(seed)
    return {
        "observation.state": draw.uniform(-20, 20, 6).astype(np.float32),
        "observation.environment_state": draw.uniform(-1, 1, 4).astype(np.float32),
        camera: draw.integers(0, 256, (48, 64, 3), dtype=np.uint8),
        "task": task,
    }


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_our_checkpoint_acts_alike_behind_the_server(
    lerobot: Any, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ACT: the same chunk as here, image and all; then the server is killed, and comes back."""
    if lerobot.version < (0, 4):
        pytest.skip("0.3 has no processors")
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", lerobot.python)
    path = make.checkpoint("act", tmp_path, images=True)
    policy = load_policy(path, "lerobot", device="cpu", threads=1)
    assert isinstance(policy, ServedPolicy)
    seen = look(make.camera, "reach left", 1)
    ours = load_policy(path, "torch", device="cpu").predict(seen)
    assert np.ptp(ours) > 1e-3
    np.testing.assert_allclose(policy.predict(seen), ours, atol=1e-3)
    assert policy.runtime == "lerobot-cpu"
    assert policy.extras == load_policy(path, "torch", device="cpu").extras
    with pytest.raises(ServedPolicyError, match=r"observation.state'?: got nothing"):
        policy.predict({"task": ""})
    os.kill(policy.pid, signal.SIGKILL)
    with pytest.raises(PolicyUnavailableError, match="SIGKILL"):
        policy.predict(seen)
    policy.reset()
    np.testing.assert_allclose(policy.predict(seen), ours, atol=1e-3)
    policy.close()
