# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What only iterative policies can: continue the chunk under execution, and tell their energy.

Energy says how well a policy knows the noise in what was executed, as a sign of the unknown. A
denoising policy was trained to find the noise eps in noisy demonstrations, given what was seen.
Where observation and actions are like those, its error || eps_theta(x_t, t, o) - eps ||^2 is
small; where they are not, it never learned to find it. The actions are those that were executed
from an observation on, whichever chunks they came from, so a figure is there once a whole chunk's
time has passed. Noise and its levels are the same each time: figures of one policy compare.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.chunks.chunk import RawRows, Request, Rows
from koch_policy.chunks.rtc import BETA, Guidance
from koch_policy.configs import ACTION, PolicyConfig
from koch_policy.policy import Observation, Policy
from koch_policy.runtime.base import EnginePolicy

if TYPE_CHECKING:
    from koch_policy.execution.inference import Predict

_LEVELS = 4  # evaluations of the network per figure; a chunk takes ten or so
_SEED = 0


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


class EnergyMeter:
    """The energy of one run. `executed` belongs to the run's thread, the rest to the policy's.

    Args:
        policy: Has noise, so it is one of our iterative policies.
        encode: Joints (T, J) in [rad] to the policy's numbers, seen from an observation.
        tell: Told the tick of a window's last action and its energy.
    """

    def __init__(
        self,
        policy: EnginePolicy,
        encode: Callable[[Rows, Observation], RawRows],
        tell: Callable[[int, float], None],
    ) -> None:
        config = policy.config
        self._policy, self._encode, self._tell = policy, encode, tell
        self._length, self._first = config.horizon_steps, config.first_action_offset
        shape = (_LEVELS, self._length, config.action_dim)
        self._noise = torch.randn(shape, generator=torch.Generator().manual_seed(_SEED))
        self._rows: OrderedDict[int, Rows] = OrderedDict()
        self._seen: OrderedDict[int, tuple[Tensor, Observation]] = OrderedDict()  # by tick
        self._lock = Lock()

    @staticmethod
    def can_measure(policy: Policy) -> bool:
        """Whether the policy denoises, here: flow and diffusion, in no server."""
        return can_guide(policy)

    def executed(self, tick: int, action: Rows) -> None:
        """Note what was commanded at a tick, [rad]."""
        with self._lock:
            self._rows[tick] = action
            while len(self._rows) > 2 * self._length:
                self._rows.popitem(last=False)

    def watching(self, predict: Predict) -> Predict:
        """Return a function that predicts and remembers what was seen."""

        def watched(policy: Policy, observation: Observation, request: Request) -> RawRows:
            raw = predict(policy, observation, request)
            assert self._policy.condition is not None  # predicted just now
            self._seen[request.tick] = (self._policy.condition, observation)
            while len(self._seen) > self._length:  # nothing is executed while a person drives
                self._seen.popitem(last=False)
            return raw

        return watched

    def measure(self) -> None:
        """Tell the energy of all windows that are over; one with a gap is left out."""
        with self._lock:
            rows = dict(self._rows)
        newest = max(rows, default=-1)
        for tick in list(self._seen):
            ticks = range(tick + self._first, tick + self._first + self._length)
            if ticks[-1] > newest:
                return
            condition, observation = self._seen.pop(tick)
            if all(each in rows for each in ticks):
                executed = np.stack([rows[each] for each in ticks])
                actions = self._encode(executed, observation)
                energy = self._policy.noise_error(condition, actions, self._noise)
                self._tell(ticks[-1], energy)
