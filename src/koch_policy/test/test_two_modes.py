# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Two equally good ways: regression takes their mean, diffusion and flow keep both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.models.registry import policy_model
from koch_policy.train.data import Demonstrations
from koch_policy.train.setup import make_trainer

STEPS = {"act": 60, "diffusion": 200, "diffusion_transformer": 200, "flow": 300}

# x_0 prediction learns this toy in fewer steps than noise prediction
_QUICK = {"prediction_type": "sample", "num_inference_steps": 20, "drop_n_last_frames": 0}


def _two_ways() -> Demonstrations:
    """The same observations; half of the episodes pass on the left (-1), half right (+1)."""
    draw = np.random.default_rng(0)
    count, length = 40, 8
    side = np.repeat(np.where(np.arange(count) % 2 == 0, -1.0, 1.0), length)
    # each observation occurs once with either side, so that it says nothing about the side
    noise = np.repeat(draw.normal(size=(count // 2, 1, length, 5)), 2, axis=1).reshape(-1, 5)
    state = noise[:, :2]
    environment = noise[:, 2:4]
    action = np.stack((side, noise[:, 4] * 0.05), axis=1)
    return Demonstrations(
        name="two ways",
        fps=30.0,
        lengths=(length,) * count,
        vectors={
            "observation.state": state.astype(np.float32),
            "observation.environment_state": environment.astype(np.float32),
            "action": action.astype(np.float32),
        },
        task_index=np.zeros(count * length, np.int64),
        tasks=("pass",),
    )


@pytest.mark.parametrize("policy", list(STEPS))
def test_modes(policy: str, make: Any, tmp_path: Path) -> None:
    recipe = make.recipe(
        policy, steps=STEPS[policy], batch_size=48, learning_rate=4e-3, validation_fraction=0.0,
        log_every=1000, save_every=1000, ema_decay=0.98,
    )  # fmt: skip
    recipe = recipe.with_overrides({"policy": {"use_vae": False} if policy == "act" else {}}, "t")
    if policy.startswith("diffusion"):
        recipe = recipe.with_overrides({"policy": _QUICK}, "t")
    trainer = make_trainer(_two_ways(), recipe, tmp_path, show_progress=False)
    trainer.run()
    assert trainer.average is not None
    trainer.model.load_state_dict(trainer.average.values)
    trainer.model.eval()
    torch.manual_seed(0)
    batch = trainer._augmented(trainer.training.batch(trainer.training.rows()[::3]))
    with torch.no_grad():
        side = trainer.normalizer.restore("action", policy_model(trainer.model)(batch))[:, 2, 0]
    kept = float(((side.abs() - 1).abs() < 0.35).float().mean())
    right = float((side > 0).float().mean())
    has_both = kept > 0.8 and 0.25 < right < 0.75
    assert has_both == (policy != "act"), f"{kept:.0%} at a mode, {right:.0%} of all right"
