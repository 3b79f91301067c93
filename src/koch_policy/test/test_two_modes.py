# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Two equally good ways: regression takes their mean, diffusion and flow keep both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.models.registry import policy_model
from koch_policy.train.data import Demonstrations
from koch_policy.train.setup import make_trainer

STEPS = {"act": 60, "diffusion": 200, "diffusion_transformer": 300, "flow": 300}

# x_0 prediction learns this toy in fewer steps than noise prediction
_QUICK = {"prediction_type": "sample", "num_inference_steps": 20, "drop_n_last_frames": 0}
CHANGES: dict[str, dict[str, Any]] = {
    "act": {"use_vae": False},
    "diffusion": _QUICK,
    "diffusion_transformer": _QUICK,
    "flow": {"num_inference_steps": 10},
}
SOLVERS = ("euler", "midpoint", "heun", "rk4")


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


def _trained(policy: str, make: Any, out: Path) -> Any:
    """Train, and let the averaged weights act."""
    recipe = make.recipe(
        policy, steps=STEPS[policy], batch_size=64, learning_rate=4e-3, validation_fraction=0.0,
        log_every=1000, save_every=1000, ema_decay=0.98,
    )  # fmt: skip
    trainer = make_trainer(
        _two_ways(), recipe.with_overrides({"policy": CHANGES[policy]}, "t"), out,
        show_progress=False,
    )  # fmt: skip
    trainer.run()
    assert trainer.average is not None
    trainer.model.load_state_dict(trainer.average.values)
    trainer.model.eval()
    return trainer


def _sides(trainer: Any) -> torch.Tensor:
    """Where 400 chunks for one and the same observation pass, (400, T); -1 left, 1 right."""
    row = trainer.training.rows()[3:4].repeat(400)
    batch = trainer._augmented(trainer.training.batch(row))
    torch.manual_seed(0)
    with torch.no_grad():
        chunk = policy_model(trainer.model)(batch)
    sides: torch.Tensor = trainer.normalizer.restore("action", chunk)[..., 0]
    return sides


def test_regression_takes_the_middle(make: Any, tmp_path: Path) -> None:
    """ACT without its latent has one answer for one observation: the mean, which nobody showed."""
    sides = _sides(_trained("act", make, tmp_path))
    assert float(sides.abs().max()) < 0.3
    assert float(sides.std(0).max()) < 1e-5


@pytest.mark.parametrize("policy", ["diffusion", "diffusion_transformer", "flow"])
def test_both_ways_are_kept(policy: str, make: Any, tmp_path: Path) -> None:
    trainer = _trained(policy, make, tmp_path)
    for solver in SOLVERS if policy == "flow" else [None]:
        if solver is not None:
            trainer.model.config = replace(trainer.model.config, solver=solver)
        sides = _sides(trainer)
        passed = sides[:, 2]
        at_a_mode = float(((passed.abs() - 1).abs() < 0.35).float().mean())
        right = float((passed > 0).float().mean())
        assert 0.3 < right < 0.7, f"{solver}: {right:.0%} pass on the right"
        assert at_a_mode > 0.9, f"{solver}: {at_a_mode:.0%} pass where a demonstration did"
        constant = float((sides[:, :4].sign() == passed.sign()[:, None]).all(1).float().mean())
        assert constant > 0.9, f"{solver}: {constant:.0%} of the chunks keep to their side"
