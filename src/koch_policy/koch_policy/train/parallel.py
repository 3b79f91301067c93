# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Several processes, as torchrun and `accelerate launch` start them (RANK, WORLD_SIZE, ...)."""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn

from koch_policy.errors import RuntimeChoiceError


def start(device: str) -> torch.device:
    """Join the process group, if there is one, and return this process's device.

    Args:
        device: "auto", "cpu" or a CUDA device; auto takes CUDA where it works.

    Raises:
        RuntimeChoiceError: There is no such device here.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as exc:  # torch asserts where it has no CUDA at all
        reason = str(exc).partition("\n")[0]
        raise RuntimeChoiceError(
            "torch", f"device {device!r} cannot be used ({reason})", "Take --device auto or cpu."
        ) from exc
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device == "cuda":
            device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    return torch.device(device)


def stop() -> None:
    """Leave the process group."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def rank_and_world() -> tuple[int, int]:
    """Return this process's number and the count of processes."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def add_gradients(model: nn.Module, world: int) -> None:
    """Replace every gradient by its sum over the processes, in one message."""
    if world == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    offset = 0
    for gradient in gradients:
        count = gradient.numel()
        gradient.copy_(flat[offset : offset + count].view_as(gradient))
        offset += count


def total(values: Tensor) -> Tensor:
    """Return the sum over the processes."""
    if rank_and_world()[1] == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values


def any_true(value: bool) -> bool:
    """Return whether any process says yes, so that all of them stop at the same step."""
    if rank_and_world()[1] == 1:
        return value
    flag = torch.tensor(float(value))
    if dist.get_backend() == "nccl":
        flag = flag.cuda()
    dist.all_reduce(flag)
    return bool(flag > 0)
