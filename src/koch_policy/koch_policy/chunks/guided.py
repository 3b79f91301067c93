# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Predicting with a policy so that its chunk continues the one under execution."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.chunks.chunk import RawRows, Request
from koch_policy.chunks.rtc import BETA, Guidance
from koch_policy.configs import ACTION, PolicyConfig
from koch_policy.policy import Observation, Policy
from koch_policy.runtime.base import EnginePolicy


def can_guide(policy: Policy) -> bool:
    """True for iterative policies (flow, diffusion) on one of our engines."""
    return isinstance(policy, EnginePolicy) and policy.is_iterative


def can_back_propagate(policy: Policy) -> bool:
    """True where the engine is torch."""
    return can_guide(policy) and hasattr(getattr(policy, "engine", None), "iterative")


def predict_continuing(
    policy: Policy,
    observation: Observation,
    request: Request,
    *,
    beta: float = BETA,
    back_propagates: bool = True,
    steps: int | None = None,
    noise: NDArray[np.float32] | None = None,
) -> RawRows:
    """Predict a chunk that continues `request.leftover`; plainly where there is none.

    Args:
        policy: Any policy; only those of `can_guide` are guided.
        observation: As for `predict`.
        request: Tells what is left of the old chunk and how much of it will be executed.
        beta: Bound on the guidance weight.
        back_propagates: Wanted; an engine without gradients is pulled directly.
        steps: Denoising steps; None takes the configuration's.
        noise: Start (horizon, A); drawn if None.
    """
    if request.leftover is None or not isinstance(policy, EnginePolicy) or not can_guide(policy):
        return policy.predict(observation, noise=noise)
    old = torch.from_numpy(np.array(request.leftover, dtype=np.float32))
    guidance = Guidance(
        target=policy.normalizer.normalize(ACTION, old),
        delay_steps=min(request.delay_steps, len(old)),
        overlap_steps=len(old),
        beta=beta,
        back_propagates=back_propagates and can_back_propagate(policy),
    )
    condition = policy.encode(observation)

    def evaluate(x: Tensor, time: Tensor) -> Tensor:
        return policy.engine.evaluate(x, time, condition)

    with torch.no_grad():
        start = _start(policy.config, noise)
        horizon = policy.network.continue_chunk(evaluate, guidance, start, steps)
    return policy.restore(horizon)


def _start(config: PolicyConfig, noise: NDArray[np.float32] | None) -> Tensor:
    shape = (1, config.horizon_steps, config.action_dim)
    if noise is None:
        return torch.randn(shape)
    return torch.from_numpy(np.array(noise, dtype=np.float32)).view(shape)
