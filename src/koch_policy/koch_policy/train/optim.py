# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Optimiser, its step, learning-rate schedule and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from koch_policy.configs import PolicyConfig
from koch_policy.models.registry import policy_model
from koch_policy.train import parallel
from koch_policy.train.config import TrainConfig
from koch_policy.train.shares import part_loss, with_shares


def make_optimizer(
    model: nn.Module, policy: PolicyConfig, train: TrainConfig
) -> torch.optim.AdamW:
    """Return AdamW with the image backbones in a group of their own."""
    rate = train.learning_rate if train.learning_rate is not None else policy.optimizer_lr
    slow = train.backbone_learning_rate
    if slow is None:
        scale = (
            rate / policy.optimizer_lr
        )  # a changed rate changes both, as the preset relates them
        slow = getattr(policy, "optimizer_lr_backbone", policy.optimizer_lr) * scale
    decay = train.weight_decay
    if decay is None:
        decay = policy.optimizer_weight_decay
    backbone: list[Tensor] = []
    rest: list[Tensor] = []
    slower = getattr(model, "backbones", ())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (backbone if name.startswith(slower) else rest).append(parameter)
    groups = [{"params": rest, "lr": rate}]
    if backbone:
        groups.append({"params": backbone, "lr": slow})
    betas = getattr(policy, "optimizer_betas", (0.9, 0.999))
    eps = getattr(policy, "optimizer_eps", 1e-8)
    optimizer = torch.optim.AdamW(
        groups, lr=rate, betas=betas, eps=eps, weight_decay=decay, fused=True
    )
    for group in optimizer.param_groups:
        group["base_lr"] = group["lr"]
    return optimizer


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether a device computes bfloat16 in hardware.

    A processor without the instructions (AVX-512 with bf16, AMX) emulates them: forward and
    backward of a small convolutional network took 5.8 s instead of 0.55 s on one with AVX2.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)
    return asked is None or bool(asked())


def rate_factor(step: int, train: TrainConfig) -> float:
    """Return the learning rate at a step as part of its base: warm-up, then cosine."""
    if step < train.warmup_steps:
        return (step + 1) / train.warmup_steps
    span = max(train.steps - train.warmup_steps, 1)
    progress = min((step - train.warmup_steps) / span, 1.0)
    low = train.final_rate_fraction
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * progress))


def set_rate(optimizer: torch.optim.Optimizer, step: int, train: TrainConfig) -> float:
    """Set every group's rate for a step; return the first group's."""
    factor = rate_factor(step, train)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


def optimize(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Sequence[dict[str, Tensor]],
    *,
    amp: bool,
    clip_norm: float,
    world: int = 1,
) -> tuple[dict[str, Tensor], Tensor]:
    """Take one step on normalised windows.

    Args:
        model: A policy's network in training mode.
        optimizer: Of its parameters.
        batches: Parts of the windows, each what `loss` takes; computed one after another.
        amp: Compute the network in bfloat16 where that is safe.
        clip_norm: Gradients are scaled down to this norm.
        world: Number of processes that share the step.

    Returns:
        The loss with its parts, and the norm of the gradient before clipping; where that is not
        finite nothing was changed.
    """
    kind = next(model.parameters()).device.type
    optimizer.zero_grad(set_to_none=True)
    is_whole = len(batches) == 1 and world == 1
    figures: dict[str, Tensor] = {}
    for batch in batches if is_whole else with_shares(model, batches):
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=amp):
            loss, told = part_loss(model, *policy_model(model).loss(batch), batch)
        loss.backward()  # type: ignore[no-untyped-call]
        for name, value in {"loss": loss.detach(), **told}.items():
            figures[name] = figures[name] + value if name in figures else value
    parallel.add_gradients(model, world)
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm(gradients)
    if bool(norm > clip_norm):
        nn.utils.clip_grads_with_norm_(model.parameters(), clip_norm, norm)
    if bool(torch.isfinite(norm)):
        optimizer.step()
    if world > 1:
        sums = parallel.total(torch.stack([value.float() for value in figures.values()]))
        figures = dict(zip(figures, sums, strict=True))
    return figures, norm


class AveragedWeights:
    """Exponential moving average of a model's parameters and buffers.

    The decay grows as (1 + n) / (10 + n) up to its limit, so that early steps are forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.updates = 0
        self.values = {key: value.detach().clone() for key, value in model.state_dict().items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take one step towards the model's present weights."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        for key, value in model.state_dict().items():
            mine = self.values[key]
            if mine.is_floating_point():
                mine.lerp_(value, 1 - decay)
            else:
                mine.copy_(value)
