# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking: a new chunk is generated so that it continues the one under execution.

References:
    Black, Galliker, Levine 2025, "Real-Time Execution of Action Chunking Flow Policies"
    (arXiv 2506.07339), section 3, equations 2 to 5, algorithm 1.
    Song et al. 2023, "Pseudoinverse-Guided Diffusion Models for Inverse Problems".

The paper's time tau runs from 0 (noise) to 1 (data); here t = 1 - tau and dx/dt = v = eps - a:

    a_hat = x - t v                                the denoised estimate
    v'    = v - g (d a_hat / d x)^T W (Y - a_hat)  guided towards the old chunk Y
    g     = min( beta, (tau^2 + (1 - tau)^2) / (tau (1 - tau)) )

W is 1 on the steps that will be executed before the new chunk is there, decays over the rest of
the overlap and is 0 beyond it: where Y ends there is no target, so none is made up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.models.schedule import Evaluate, NoiseSchedule

BETA = 5.0
"""Bound on the guidance weight (the paper's value for few denoising steps)."""


@dataclass(frozen=True, eq=False)
class Guidance:
    """What a new chunk should continue.

    Attributes:
        target: The old chunk from the observation's step on, normalised, float32 (N, A).
        delay_steps: How many of its steps will be executed whatever the new chunk says.
        overlap_steps: Steps over which the old chunk counts at all, at most N.
        beta: Bound on the guidance weight.
        back_propagates: Use the vector-Jacobian product; else the error pulls directly, which
            costs no backward pass (and is what LeRobot's releases compute).
    """

    target: Tensor
    delay_steps: int
    overlap_steps: int
    beta: float = BETA
    back_propagates: bool = True


def soft_mask(length: int, delay_steps: int, overlap_steps: int) -> NDArray[np.float32]:
    """Weights of the old chunk per step of the new one (paper, equation 5).

    Args:
        length: Steps of the new chunk, T.
        delay_steps: d; the first d weights are 1.
        overlap_steps: H - s; weights from there on are 0.

    Returns:
        float32 (T,), not increasing.
    """
    overlap = max(0, min(overlap_steps, length))
    frozen = max(0, min(delay_steps, overlap))
    weights = np.zeros(length, dtype=np.float32)
    weights[:frozen] = 1.0
    for step in range(frozen, overlap):
        c = (overlap - step) / (overlap - frozen + 1)
        weights[step] = c * math.expm1(c) / math.expm1(1.0)
    return weights


def guidance_weight(time: float, beta: float) -> float:
    """g at t = 1 - tau; beta at both ends, where the formula has its poles."""
    tau = 1.0 - time
    product = tau * (1.0 - tau)
    if product <= 0.0:
        return beta
    return min(beta, (tau * tau + (1.0 - tau) * (1.0 - tau)) / product)


def guided(evaluate: Evaluate, guidance: Guidance, length: int) -> Evaluate:
    """Wrap a flow policy's velocity so that the chunk continues the old one.

    Args:
        evaluate: Velocity of (B, T, A) at times (B,); differentiable when `back_propagates`.
        guidance: The old chunk.
        length: T.
    """
    target, weights = _padded(guidance, length)

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        t = float(time[0])
        goal, mask = target.to(x.device), weights.to(x.device)
        if not guidance.back_propagates:
            v = evaluate(x, time)
            correction = (goal - (x - t * v)) * mask
        else:
            with torch.enable_grad():
                tracked = x.detach().clone().requires_grad_()
                v = evaluate(tracked, time)
                estimate = tracked - t * v
                error = ((goal - estimate) * mask).detach()
                (correction,) = torch.autograd.grad(estimate, tracked, error)
            v = v.detach()
        return v - guidance_weight(t, guidance.beta) * correction

    return velocity


def inpainted(
    evaluate: Evaluate, guidance: Guidance, schedule: NoiseSchedule, first: int
) -> Evaluate:
    """Wrap a diffusion network so that the frozen steps become exactly the old chunk's.

    The network's answer is replaced, on these steps, by the one whose estimate of the clean
    action is the old chunk. Both samplers then draw these steps from the forward process of known
    data (DDPM: its posterior given x_0; DDIM: with the noise that x holds), so that the other
    steps are denoised beside a sound neighbour. Nothing is imposed beyond the frozen steps.

    Args:
        evaluate: Output of (B, T, A) at integer steps (B,).
        guidance: The old chunk; only its first `delay_steps` count.
        schedule: The policy's noise schedule.
        first: Row of the horizon that belongs to the observation's step.
    """
    count = min(guidance.delay_steps, len(guidance.target))
    known = guidance.target[:count]
    if schedule.clip is not None:
        known = known.clamp(-schedule.clip, schedule.clip)

    def output(x: Tensor, step: Tensor) -> Tensor:
        result = evaluate(x, step).clone()
        here = slice(first, first + count)
        goal = known.to(result.device)
        if schedule.predicts_sample:
            result[:, here] = goal
        else:
            kept = float(schedule.signal[int(step[0])])
            result[:, here] = (x[:, here] - math.sqrt(kept) * goal) / math.sqrt(1.0 - kept)
        return result

    return output


def _padded(guidance: Guidance, length: int) -> tuple[Tensor, Tensor]:
    """Target (T, A) and weights (T, 1); beyond the target's end the weight is zero."""
    have = guidance.target[:length]
    target = torch.zeros(length, have.shape[1])
    target[: len(have)] = have
    overlap = min(guidance.overlap_steps, len(have))
    weights = soft_mask(length, guidance.delay_steps, overlap)
    return target, torch.from_numpy(weights).unsqueeze(-1)
