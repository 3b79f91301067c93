# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's actions are reproduced from LeRobot's checkpoints."""

from __future__ import annotations

from typing import Any

import torch

from koch_policy.checkpoint import load_checkpoint, save_checkpoint

# float32 roundings of a network that ends in values around 100 (dataset units -100..100)
_NORMALISED = {"act": 1e-5, "diffusion": 1e-4}
_ACTION_UNITS = {"act": 1e-4, "diffusion": 5e-3}


def _predict(checkpoint: Any, recorded: dict[str, torch.Tensor]) -> tuple[torch.Tensor, str]:
    normalizer = checkpoint.normalizer
    batch = {
        key: normalizer.normalize(key, value.unsqueeze(0))
        for key, value in recorded.items()
        if key.startswith("observation")
    }
    with torch.inference_mode():
        if "noise" in recorded:
            return checkpoint.model(batch, recorded["noise"]), "expected.normalized_horizon"
        return checkpoint.model(batch), "expected.normalized_chunk"


def test_golden_checkpoint_gives_lerobots_actions(golden: Any) -> None:
    checkpoint = load_checkpoint(golden.path)
    horizon, key = _predict(checkpoint, golden.recorded)
    kind = checkpoint.config.type
    error = (horizon - golden.recorded[key]).abs().max()
    assert error < _NORMALISED[kind], f"normalised units: {error:.2e}"

    start = checkpoint.config.n_obs_steps - 1
    chunk = horizon[:, start : start + checkpoint.config.n_action_steps]
    actions = checkpoint.normalizer.restore("action", chunk)
    error = (actions - golden.recorded["expected.action_chunk"]).abs().max()
    assert error < _ACTION_UNITS[kind], f"action units: {error:.2e}"


def test_golden_checkpoint_survives_writing_and_reading(golden: Any, tmp_path: Any) -> None:
    first = load_checkpoint(golden.path)
    save_checkpoint(tmp_path / "copy", first.config, first.model, first.statistics)
    second = load_checkpoint(tmp_path / "copy")
    assert second.config == first.config
    before, _ = _predict(first, golden.recorded)
    after, _ = _predict(second, golden.recorded)
    assert torch.equal(before, after)
    for feature, values in first.statistics.items():
        for name, value in values.items():
            assert torch.equal(second.statistics[feature][name], value)
