# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Energy: by hand, of a trained policy, and over the ticks of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.chunks import Request
from koch_policy.chunks.guided import EnergyMeter
from koch_policy.configs import ACTION
from koch_policy.execution.inference import plain_predict
from koch_policy.runtime import load_policy
from koch_policy.train.setup import make_trainer

KINDS = ["diffusion", "diffusion_transformer", "flow"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_that_knows_the_actions_has_no_energy(
    kind: str, make: Any, tmp_path: Path
) -> None:
    """It tells the noise of what it knows; a shift d of the actions is taken for noise."""
    model: Any = load_checkpoint(make.checkpoint(kind, tmp_path)).model
    known = torch.zeros(1, 8, 6)
    noise = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))

    def knowing(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        if kind == "flow":
            return (x - known) / time.view(-1, 1, 1)
        kept = model.schedule.signal[time].view(-1, 1, 1)
        return (x - kept.sqrt() * known) / (1 - kept).sqrt()

    assert model.noise_error(knowing, known, noise) == pytest.approx(0.0, abs=1e-9)
    if kind == "flow":
        parts = [(1 - t) / t for t in (0.125, 0.375, 0.625, 0.875)]
    else:  # steps 16, 12, 8, 4, 0 are passed; levels lie at 0.625, 1.875, 3.125, 4.375 of them
        kept = model.schedule.signal[[0, 4, 12, 16]]
        parts = (kept / (1 - kept)).sqrt().tolist()
    expected = 0.25 * sum(part**2 for part in parts) * 0.2**2
    assert model.noise_error(knowing, known + 0.2, noise) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_what_was_not_demonstrated_has_more_energy(kind: str, make: Any, tmp_path: Path) -> None:
    few = {"log_every": 300, "validate_every": 300, "save_every": 300, "batch_size": 16}
    recipe = make.recipe(kind, steps=300, learning_rate=3e-3, **few)
    make_trainer(make.demonstrations(), recipe, tmp_path, show_progress=False).run()
    data, policy = make.demonstrations(), load_policy(tmp_path, "torch", full_horizon=True)
    noise = torch.randn(4, 8, 6, generator=torch.Generator().manual_seed(1))
    true, wrong = [], []
    for row in range(5, 35):
        policy.reset()
        policy.predict({k: v[row] for k, v in data.vectors.items() if k != ACTION})
        first = row + policy.config.first_action_offset
        actions = data.vectors[ACTION][first : first + 8]
        true.append(policy.noise_error(policy.condition, actions, noise))
        wrong.append(policy.noise_error(policy.condition, actions - 60.0, noise))
    assert np.mean(np.array(wrong) > 1.2 * np.array(true)) > 0.9


def test_windows_end_with_their_last_action_and_gaps_are_left_out(
    make: Any, tmp_path: Path
) -> None:
    policy: Any = load_policy(make.checkpoint("flow", tmp_path), "torch", full_horizon=True)
    told: list[tuple[int, float]] = []
    meter = EnergyMeter(policy, lambda rad, seen: 100.0 * rad, lambda *what: told.append(what))
    predict = meter.watching(plain_predict)
    conditions = {}
    for tick in range(40):
        if tick in (0, 6, 20):  # rows 0 and 1 come too late, tick 9 is lost
            seen = {
                "observation.state": np.full(6, tick, np.float32),
                "observation.environment_state": np.zeros(4, np.float32),
            }
            predict(policy, seen, Request(tick, tick, 0, None))
            conditions[tick] = policy.condition
        if tick >= 2 and tick != 9:
            meter.executed(tick, np.full(6, 0.01 * tick))
        meter.measure()
    assert [tick for tick, _ in told] == [27]
    rows = np.repeat(np.arange(20.0, 28.0)[:, None], 6, axis=1)
    assert told[0][1] == policy.noise_error(conditions[20], rows, meter._noise)
    assert told[0][1] != policy.noise_error(conditions[6], rows, meter._noise)


def test_predictions_of_which_nothing_is_executed_are_forgotten(make: Any, tmp_path: Path) -> None:
    policy: Any = load_policy(make.checkpoint("flow", tmp_path), "torch", full_horizon=True)
    meter = EnergyMeter(policy, lambda rad, seen: rad, lambda *what: None)
    predict = meter.watching(plain_predict)
    seen = {
        "observation.state": np.zeros(6, np.float32),
        "observation.environment_state": np.zeros(4, np.float32),
    }
    for tick in range(30):
        predict(policy, seen, Request(tick, tick, 0, None))
        meter.measure()
    assert list(meter._seen) == list(range(22, 30))


def test_only_what_denoises_can_be_measured(make: Any, tmp_path: Path) -> None:
    for kind in (*KINDS, "act", "fast"):
        policy = load_policy(make.checkpoint(kind, tmp_path / kind), "torch")
        assert EnergyMeter.can_measure(policy) == (kind in KINDS)
