# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How a policy is executed where nobody says: the recipe's strategy, steps and draws."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.chunks import StrategyKind, chosen_execution
from koch_policy.errors import ConfigError, UnknownKeysError
from koch_policy.metadata import CheckpointMetadata
from koch_policy.runtime import load_policy
from koch_policy.runtime.base import example_observation
from koch_policy.train.setup import make_trainer

OWN = CheckpointMetadata(execution={"strategy": "temporal_ensemble", "execution_steps": 12})


def test_what_is_asked_for_comes_before_the_recipe_and_the_recipe_before_the_type(
    make: Any, tmp_path: Path
) -> None:
    config = load_checkpoint(make.checkpoint("act", tmp_path)).config
    assert chosen_execution("", 0, config, OWN) == (StrategyKind.TEMPORAL_ENSEMBLE, 12)
    assert chosen_execution("", 3, config, OWN) == (StrategyKind.TEMPORAL_ENSEMBLE, 3)
    assert chosen_execution("queue", 0, config, OWN) == (StrategyKind.QUEUE, 0)
    assert chosen_execution("", 0, config, CheckpointMetadata()) == (StrategyKind.BLEND, 0)


@pytest.mark.parametrize(
    ("execution", "error", "match"),
    [
        ({"strategy": "magic"}, ConfigError, "queue or temporal_ensemble"),
        ({"draws": 0}, ConfigError, r"execution\.draws"),
        ({"execution_steps": True}, ConfigError, r"execution\.execution_steps"),
        ({"step": 3}, UnknownKeysError, "step"),
    ],
)
def test_an_execution_that_cannot_be_is_refused(
    execution: dict[str, Any], error: type[Exception], match: str, make: Any
) -> None:
    with pytest.raises(error, match=match):
        make.recipe("flow", execution=execution)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flow", "diffusion", "diffusion_transformer"])
def test_the_mean_of_two_draws_is_that_of_a_noise_and_its_negative(
    kind: str, make: Any, tmp_path: Path
) -> None:
    recipe = make.recipe(kind, execution={"draws": 2}, draws=3)
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path)
    trainer.run()
    policy: Any = load_policy(tmp_path, "torch")
    assert policy.draws == 2
    observation = example_observation(policy._checkpoint)
    shape = (policy.config.horizon_steps, policy.config.action_dim)
    noise = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    mean = policy.predict(observation, noise=noise)
    policy.draws = 1
    apart = [policy.predict(observation, noise=each) for each in (noise, -noise)]
    assert not np.allclose(apart[0], apart[1], atol=1e-3)
    assert np.allclose(mean, (apart[0] + apart[1]) / 2.0, atol=1e-3)


def test_several_noises_per_window_are_a_larger_batch(make: Any, tmp_path: Path) -> None:
    """The loss is that of the windows repeated; a network whose draws differ knows it."""
    trainer = make_trainer(make.demonstrations(), make.recipe("flow", draws=4), tmp_path)
    model: Any = trainer.model
    assert model.draws == 4
    batch = trainer._augmented(trainer.training.batch(trainer.training.rows()[:3]))
    torch.manual_seed(0)
    together = model.loss(batch)[0]
    model.draws = 1
    torch.manual_seed(0)
    repeated = {key: value.repeat_interleave(4, dim=0) for key, value in batch.items()}
    assert torch.allclose(together, model.loss(repeated)[0], atol=1e-6)
