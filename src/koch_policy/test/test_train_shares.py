# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A step in parts, by two processes or one after another, is the step in one, within rounding."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION, ACTION_IS_PAD, ACTION_WEIGHT
from koch_policy.errors import ConfigError
from koch_policy.models.denoiser import mean_over_windows, mean_without_padding
from koch_policy.train.optim import optimize
from koch_policy.train.setup import make_trainer
from koch_policy.train.shares import split, with_shares

# Nothing is drawn while these train; chunks of 8 steps over the ends of episodes hold padding.
SETTINGS = [
    "train.batch_size=8", "train.warmup_steps=1", "train.final_rate_fraction=1.0",
    "train.learning_rate=0.001", "train.log_every=2", "train.validate_every=1000",
    "policy.chunk_size=8", "policy.n_action_steps=8", "policy.dim_model=32", "policy.n_heads=2",
    "policy.dim_feedforward=32", "policy.n_encoder_layers=1", "policy.dropout=0.0",
    "policy.use_vae=false", "augment.state_noise=0.0",
]  # fmt: skip


def run(dataset: Path, out: Path, processes: int, steps: int, *more: str) -> None:
    """Train by the command, as torchrun starts it."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = [*SETTINGS, f"train.steps={steps}"]
    command = [sys.executable, "-m", "koch_policy.train", "--dataset", str(dataset)]
    command += ["--out", str(out), "--device", "cpu", "--threads", "1", *more]
    command += [word for setting in settings for word in ("--set", setting)]
    shared = {"WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **shared}
    started = [
        subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE)
        for rank in range(processes)
    ]
    said = [process.communicate(timeout=100)[1].decode() for process in started]
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)


def chunks(out: Path) -> Tensor:
    """Return what a run's policy predicts, normalised.

    Its weights differ by more than rounding where the loss does not depend on them, as on the bias
    of an attention's keys: AdamW scales the rounding of their gradients up to whole steps.
    """
    model = load_checkpoint(out / "checkpoints" / "last" / "pretrained_model").model.eval()
    draw = torch.Generator().manual_seed(5)
    sizes = {key: feature.shape for key, feature in model.config.input_features.items()}
    with torch.inference_mode():
        return model({key: torch.randn(16, *size, generator=draw) for key, size in sizes.items()})


def test_two_processes_are_one_also_when_one_goes_on_as_two(make: Any, tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    make.dataset(dataset)
    run(dataset, tmp_path / "one", 1, 6)
    run(dataset, tmp_path / "two", 2, 6)
    run(dataset, tmp_path / "grown", 1, 3)
    half = chunks(tmp_path / "grown")
    run(dataset, tmp_path / "grown", 2, 6, "--resume")
    one = chunks(tmp_path / "one")
    for other in ("two", "grown"):
        torch.testing.assert_close(chunks(tmp_path / other), one, rtol=0, atol=2e-6)
    assert float((half - one).abs().max()) > 1e-2


@pytest.mark.parametrize(
    ("kind", "policy"), [("act", {"use_vae": False}), ("fast", {}), ("act", {"use_vae": True})]
)
def test_accumulated_parts_are_the_whole(
    make: Any, tmp_path: Path, kind: str, policy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)  # parts draw other noise
    figures = []
    for parts in (1, 3):
        recipe = make.recipe(kind, accumulate=parts).with_overrides({"policy": policy}, "test")
        trainer = make_trainer(make.demonstrations(), recipe, tmp_path / str(parts))
        # Windows at the ends of episodes, so that parts hold unlike numbers of padded steps.
        raw = trainer.training.batch(trainer.training.rows()[32:40])
        padded = [int(part[ACTION_IS_PAD].sum()) for part in split(raw, 3)]
        assert len(set(padded)) == 3
        told, norm = trainer._optimise(raw)
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        figures.append((told, norm, gradients))
    (whole, norm, gradients), (parted, norm_parted, gradients_parted) = figures
    assert {key: float(value) for key, value in parted.items()} == pytest.approx(
        {key: float(value) for key, value in whole.items()}, rel=1e-5, abs=1e-7
    )
    assert float(norm_parted) == pytest.approx(float(norm), rel=1e-5)
    for one, other in zip(gradients, gradients_parted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_shares_of_parts_add_to_the_mean() -> None:
    draw = torch.Generator().manual_seed(4)
    error = torch.rand(7, 5, 3, generator=draw)
    batch = {
        ACTION: error,
        ACTION_IS_PAD: torch.arange(5) >= torch.randint(0, 6, (7, 1), generator=draw),
        ACTION_WEIGHT: torch.rand(7, 5, generator=draw),
    }
    assert batch[ACTION_IS_PAD].all(1).any()  # a window may be padding alone
    parts = with_shares(nn.Identity(), split(batch, 4))
    for mean in (mean_without_padding, mean_over_windows):
        added = sum(float(mean(part[ACTION], part)) for part in parts)
        assert added == pytest.approx(float(mean(error, batch)), rel=1e-5)


class Foreign(nn.Module):
    """A network that knows nothing of parts."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        error = (batch[ACTION] * self.scale).square().mean()
        return error, {"mse": error.detach()}


def test_a_foreign_network_is_weighed_by_windows() -> None:
    batch = {ACTION: torch.rand(7, 5, 3), ACTION_IS_PAD: torch.zeros(7, 5, dtype=torch.bool)}
    found = []
    for count in (1, 3):
        model = Foreign()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        told, norm = optimize(model, optimizer, split(batch, count), amp=False, clip_norm=1e9)
        found.append([float(told["mse"]), float(norm), model.scale.item()])
    assert found[1] == pytest.approx(found[0], rel=1e-5)


def test_more_parts_than_windows_are_refused(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"batch_size.*9 or more"):
        make_trainer(make.demonstrations(), make.recipe("act", accumulate=9), tmp_path)
