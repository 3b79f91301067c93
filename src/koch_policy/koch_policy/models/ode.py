# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed-step solvers of dx/dt = v(x, t), run from t = 1 (noise) to t = 0 (data).

Reference: Hairer, Norsett, Wanner, "Solving Ordinary Differential Equations I", section II.1:
Runge's midpoint rule, Heun's trapezoidal rule and the classical method of order 4.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
"""(x (B, T, A), time (B,)) -> dx/dt (B, T, A)."""

EVALUATIONS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}
"""Calls of the velocity per step."""


def solver_step(velocity: Velocity, x: Tensor, t: float, dt: float, solver: str) -> Tensor:
    """Advance x from t to t + dt; dt is negative on the way to the data."""

    def v(y: Tensor, time: float) -> Tensor:
        return velocity(y, torch.full((len(y),), time, device=y.device, dtype=torch.float32))

    k1 = v(x, t)
    if solver == "euler":
        return x + dt * k1
    if solver == "midpoint":
        return x + dt * v(x + dt / 2 * k1, t + dt / 2)
    if solver == "heun":
        return x + dt / 2 * (k1 + v(x + dt * k1, t + dt))
    k2 = v(x + dt / 2 * k1, t + dt / 2)
    k3 = v(x + dt / 2 * k2, t + dt / 2)
    k4 = v(x + dt * k3, t + dt)
    return x + dt / 6 * (k1 + 2 * k2 + 2 * k3 + k4)


def integrate(velocity: Velocity, noise: Tensor, steps: int, solver: str) -> Tensor:
    """Return x at t = 0 for x = noise at t = 1, in equal steps.

    Args:
        velocity: The field.
        noise: Start, (B, T, A).
        steps: Number of steps.
        solver: A key of EVALUATIONS.
    """
    x = noise
    for k in range(steps):
        x = solver_step(velocity, x, 1.0 - k / steps, -1.0 / steps, solver)
    return x
