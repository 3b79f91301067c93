# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Flow matching: an action expert follows a learned velocity field from noise to actions.

References:
    Lipman et al. 2022, "Flow Matching for Generative Modeling" (arXiv 2210.02747), section 4.
    Black et al. 2024, "pi0" (arXiv 2410.24164), section IV and appendix B: the action expert
    that attends to a cached observation prefix, the block-wise mask, Beta-distributed times.
    Ho and Salimans 2022, "Classifier-Free Diffusion Guidance", equation 6.

Time runs from t = 1 (noise) to t = 0 (data), here and everywhere in this package:

    x_t = t eps + (1 - t) a,   dx/dt = u = eps - a,   L = E || v_theta(x_t, t, o) - u ||^2

The actions attend to the observation's prefix (`models/prefix.py`) and to each other.

Shapes: B batch, T chunk, A action, P prefix tokens, L layers, H heads, W head width, E expert
width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from koch_policy.chunks.rtc import Guidance, guided
from koch_policy.configs import ACTION, ACTION_IS_PAD, ACTION_NOISE, ENVIRONMENT
from koch_policy.models.denoiser import hold_padding, mean_without_padding
from koch_policy.models.ode import integrate
from koch_policy.models.positions import flow_time_embedding
from koch_policy.models.prefix import ExpertBlock, ObservationPrefix
from koch_policy.models.registry import register_policy
from koch_policy.models.schedule import Evaluate
from koch_policy.policy_configs import FlowConfig


@register_policy(FlowConfig)
class Flow(ObservationPrefix):
    """The network; all values in and out are normalised."""

    state_dict_prefix = "model."
    heeds_shares = True
    config: FlowConfig

    def __init__(self, config: FlowConfig) -> None:
        super().__init__(config)
        self.draws = 1  # noises per window of `loss`, under one condition
        expert = config.dim_expert
        self.action_in = nn.Linear(config.action_dim, expert)
        self.action_position = nn.Parameter(0.02 * torch.randn(config.chunk_size, expert))
        self.time_mlp = nn.Sequential(
            nn.Linear(2 * expert, expert), nn.SiLU(), nn.Linear(expert, expert)
        )
        self.expert = nn.ModuleList(ExpertBlock(expert, config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(expert)
        self.action_out = nn.Linear(expert, config.action_dim)

    def _is_guided(self) -> bool:
        return not self.training and self.config.guidance_scale != 1.0

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the velocity (B, T, A) at noisy actions (B, T, A) and times (B,) in [0, 1]."""
        guided = self._is_guided()
        if guided:
            noisy, time = torch.cat((noisy, noisy)), torch.cat((time, time))
        low, high = self.config.min_period, self.config.max_period
        embedding = flow_time_embedding(
            time, self.config.dim_expert, min_period=low, max_period=high
        )
        x = self.action_in(noisy) + self.action_position  # (B, T, E)
        embedding = embedding.to(x.dtype).unsqueeze(1).expand_as(x)
        x = self.time_mlp(torch.cat((x, embedding), dim=-1))
        for index, layer in enumerate(self.expert):
            q, k, v = layer.project(x)  # type: ignore[operator]
            k = torch.cat((condition[index, 0], k), dim=2)  # (B, H, P + T, W)
            v = torch.cat((condition[index, 1], v), dim=2)
            x = layer.finish(x, q, k, v, None)  # type: ignore[operator]
        velocity: Tensor = self.action_out(self.norm(x))
        if not guided:
            return velocity
        with_task, without = velocity.chunk(2)
        return without + self.config.guidance_scale * (with_task - without)

    def draw_times(self, count: int, device: torch.device) -> Tensor:
        """Draw training times (B,), more of them near the noise (t = 1)."""
        config = self.config
        gamma_a = torch._standard_gamma(torch.full((count,), config.time_alpha))
        gamma_b = torch._standard_gamma(torch.full((count,), config.time_beta))
        fraction = gamma_a / (gamma_a + gamma_b)  # Beta(alpha, beta)
        return (fraction * config.time_scale + config.time_offset).to(device)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective of a normalised batch and its parts, each a scalar.

        Args:
            batch: observation features, `action` (B, T, A), `action_is_pad` bool (B, T).
        """
        actions = hold_padding(batch[ACTION], batch[ACTION_IS_PAD])
        actions = actions.repeat_interleave(self.draws, dim=0)
        hide = None
        if self.training and self.config.task_dim:
            hide = torch.rand(len(batch[ACTION]), device=actions.device) < self.config.task_dropout
        noise = torch.randn_like(actions)
        if ACTION_NOISE in batch:  # of a teacher: its pairs make the paths straight
            noise = batch[ACTION_NOISE].repeat_interleave(self.draws, dim=0)
        time = self.draw_times(len(actions), actions.device)
        t = time.view(-1, 1, 1)
        noisy = t * noise + (1 - t) * actions
        condition = self.condition(batch, hide).repeat_interleave(self.draws, dim=2)
        error = (self.evaluate(noisy, time, condition) - (noise - actions)).square()
        mse = mean_without_padding(error, batch, self.draws)
        return mse, {"mse": mse.detach()}

    def continue_chunk(
        self, evaluate: Evaluate, guidance: Guidance, noise: Tensor, steps: int | None = None
    ) -> Tensor:
        """Follow the field, guided so that the chunk continues the old one."""
        velocity = guided(evaluate, guidance, self.config.chunk_size)
        return self.integrate(velocity, noise, steps)

    def integrate(self, evaluate: Evaluate, noise: Tensor, steps: int | None = None) -> Tensor:
        """Follow the field from noise (B, T, A) to actions."""
        count = steps or self.config.num_inference_steps
        return integrate(evaluate, noise, count, self.config.solver)

    def noise_error(self, evaluate: Evaluate, actions: Tensor, noise: Tensor) -> float:
        """Return the mean square of eps_theta - eps for actions (1, T, A) and noise (K, T, A)."""
        errors = []
        for level in range(len(noise)):
            eps = noise[level : level + 1]
            t = (level + 0.5) / len(noise)
            velocity = evaluate(t * eps + (1 - t) * actions, torch.full((1,), t))
            # eps_theta = x_t + (1 - t) v, so its error is that of the velocity times 1 - t.
            errors.append((1 - t) * (velocity - (eps - actions)))
        return float(torch.cat(errors).square().mean())

    def forward(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Return a chunk (B, T, A)."""
        first = batch[next(iter(self.config.cameras), ENVIRONMENT)]
        actions = (len(first), self.config.chunk_size, self.config.action_dim)
        start = torch.randn(actions, device=first.device) if noise is None else noise
        condition = self.condition(batch)
        return self.integrate(lambda x, time: self.evaluate(x, time, condition), start)
