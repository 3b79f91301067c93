# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A step that is computed in parts, by several processes or one after another, as if in one.

The mean of the parts' means is not the mean over all windows: parts hold unlike numbers of padded
steps. So each part is told its share of what the loss counts, and the parts are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from koch_policy.configs import ACTION, LOSS_SHARE, WINDOW_SHARE
from koch_policy.models.denoiser import step_weights
from koch_policy.train import parallel

Batch = dict[str, Tensor]


def split(batch: Mapping[str, Tensor], count: int) -> list[Batch]:
    """Deal the windows of a batch to so many parts."""
    return [{key: value[n::count] for key, value in batch.items()} for n in range(count)]


def with_shares(model: nn.Module, parts: Sequence[Batch]) -> list[Batch]:
    """Give each part of a step's windows its shares of all, those of other processes included."""
    weigh = getattr(model, "loss_weight", lambda part: step_weights(part).sum())
    counts = torch.stack(
        [torch.stack([weigh(part).float(), _windows(part)]) for part in parts]
    )  # (parts, 2)
    totals = parallel.total(counts.sum(0))
    shares = counts / totals.clamp_min(torch.finfo(counts.dtype).tiny)
    return [
        {**part, LOSS_SHARE: weight, WINDOW_SHARE: windows}
        for part, (weight, windows) in zip(parts, shares, strict=True)
    ]


def part_loss(model: nn.Module, loss: Tensor, told: Batch, batch: Batch) -> tuple[Tensor, Batch]:
    """Return what a part adds to loss and figures, where the network has not weighed it itself."""
    if getattr(model, "heeds_shares", False) or WINDOW_SHARE not in batch:
        return loss, told
    share = batch[WINDOW_SHARE]
    return loss * share, {name: value * share for name, value in told.items()}


def _windows(part: Batch) -> Tensor:
    return torch.tensor(float(len(part[ACTION])), device=part[ACTION].device)
