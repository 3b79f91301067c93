# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The interface of a policy that runs: observation in, chunk of actions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import PolicyConfig
from koch_policy.metadata import CheckpointMetadata

Observation = Mapping[str, Any]
"""{feature: value}: images uint8 RGB (H, W, 3), vectors float (D,), `task` text.

With n_obs_steps > 1 every value may carry the steps in front, oldest first; without, the policy
keeps the history itself, and `observe` must then be called at every tick.
"""


class Policy(Protocol):
    """A loaded policy. Not thread-safe: one thread owns it."""

    @property
    def config(self) -> PolicyConfig:
        """The policy's configuration."""
        ...

    @property
    def extras(self) -> CheckpointMetadata:
        """Names, units and fingerprint that came with the checkpoint."""
        ...

    @property
    def runtime(self) -> str:
        """Name of the runtime, with its precision."""
        ...

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Return a chunk of actions (T, A) in dataset units, the first one for this observation.

        Args:
            observation: Values of all input features.
            noise: Start of an iterative policy's reverse process, (horizon, A); drawn if None.

        Raises:
            ObservationError: A feature is missing, misshapen or not finite.
            NotFiniteError: The network returned NaN or infinity.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Take in one tick's observation without predicting (history, early encoding)."""
        ...

    def reset(self) -> None:
        """Forget all history; call it when an episode begins."""
        ...
