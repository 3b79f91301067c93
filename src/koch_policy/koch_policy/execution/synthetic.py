# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policies that are functions: for tests, benchmarks and anyone's own controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from koch_policy.configs import (
    ACTION,
    STATE,
    FeatureType,
    NormalizationMode,
    PolicyConfig,
    PolicyFeature,
)
from koch_policy.metadata import CheckpointMetadata
from koch_policy.policy import Observation
from koch_rig.action_layout import ACTION_SPACES
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import Units

Function = Callable[[int, Observation], NDArray[np.float32]]
"""(number of the call from 0, observation) -> chunk (T, A) in the policy's units."""

_STATE_ONLY = {STATE: PolicyFeature(FeatureType.STATE, (len(KOCH_V1_1.joints),))}


@dataclass(frozen=True, kw_only=True)
class FunctionConfig(PolicyConfig):
    """Configuration of a policy that is a function."""

    type: ClassVar[str] = "function"
    chunk_size: int = 30

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.chunk_size


class FunctionPolicy:
    """A policy that calls a function; see `koch_policy.policy.Policy` for the interface.

    Args:
        function: Computes chunks.
        inputs: Features it sees; the joint state where absent.
        chunk_size: Steps that it says it returns.
        n_action_steps: Steps to execute before the next chunk.
        delay_s: Time that a prediction takes at least [s].
        extras: Units (radians unless given) and the like.
    """

    def __init__(
        self,
        function: Function,
        *,
        inputs: Mapping[str, PolicyFeature] | None = None,
        chunk_size: int = 30,
        n_action_steps: int = 10,
        delay_s: float = 0.0,
        extras: CheckpointMetadata | None = None,
    ) -> None:
        self.function = function
        self.delay_s = delay_s
        self.calls = 0
        self._extras = extras or CheckpointMetadata(units=Units.RADIANS.value, fps=0.0)
        space = ACTION_SPACES[self._extras.action_space]
        width = len(space.names(KOCH_V1_1.joints))
        self._config = FunctionConfig(
            input_features=dict(inputs or _STATE_ONLY),
            output_features={ACTION: PolicyFeature(FeatureType.ACTION, (width,))},
            normalization_mapping={kind.value: NormalizationMode.IDENTITY for kind in FeatureType},
            chunk_size=chunk_size,
            n_action_steps=n_action_steps,
        )

    @property
    def config(self) -> PolicyConfig:
        """Features and time axis."""
        return self._config

    @property
    def extras(self) -> CheckpointMetadata:
        """Units of the chunks."""
        return self._extras

    @property
    def runtime(self) -> str:
        """Name of the runtime."""
        return "function"

    def reset(self) -> None:
        """Count calls from zero again."""
        self.calls = 0

    def observe(self, observation: Observation) -> None:
        """Do nothing: there is no history."""

    def predict(
        self, observation: Observation, *, noise: NDArray[np.float32] | None = None
    ) -> NDArray[np.float32]:
        """Call the function."""
        begin = time.monotonic()
        result: Any = self.function(self.calls, observation)
        self.calls += 1
        time.sleep(max(0.0, begin + self.delay_s - time.monotonic()))
        chunk: NDArray[np.float32] = result
        return chunk
