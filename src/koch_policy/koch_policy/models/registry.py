# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policy types by name: the one place that a new policy is entered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from koch_policy.configs import PolicyConfig
from koch_policy.errors import UnknownPolicyError
from koch_policy.models.act import Act
from koch_policy.models.denoiser import Evaluate
from koch_policy.models.diffusion import Diffusion
from koch_policy.models.diffusion_transformer import DiffusionTransformer
from koch_policy.models.flow import Flow
from koch_policy.policy_configs import (
    ActConfig,
    DiffusionConfig,
    DiffusionTransformerConfig,
    FlowConfig,
)


class PolicyModel(Protocol):
    """What training and runtimes ask of a network; tensors are normalised."""

    state_dict_prefix: str

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training objective and its parts."""
        ...

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the predicted horizon (B, T, A)."""
        ...


class IterativeModel(PolicyModel, Protocol):
    """A network that is evaluated several times under one encoded observation.

    Attributes:
        draws: Noises per window of `loss`.
    """

    draws: int

    def camera_features(self, index: int, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) of one camera."""
        ...

    def condition_from(self, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return what stays the same during the evaluations."""
        ...

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the network's output (B, T, A) at a denoising step or flow time (B,)."""
        ...

    def integrate(
        self,
        evaluate: Evaluate,
        noise: Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Turn noise (B, T, A) into actions by calling `evaluate` repeatedly."""
        ...


_CONFIGS: Mapping[str, type[PolicyConfig]] = {
    kind.type: kind
    for kind in (ActConfig, DiffusionConfig, DiffusionTransformerConfig, FlowConfig)
}
_MODELS: Mapping[str, type[nn.Module]] = {
    "act": Act,
    "diffusion": Diffusion,
    "diffusion_transformer": DiffusionTransformer,
    "flow": Flow,
}


def known_policies() -> list[str]:
    """Return the names of the policy types."""
    return sorted(_CONFIGS)


def config_class(name: str, where: str) -> type[PolicyConfig]:
    """Return the configuration class of a policy type.

    Raises:
        UnknownPolicyError: There is no such type.
    """
    if name not in _CONFIGS:
        raise UnknownPolicyError(name, where, _CONFIGS)
    return _CONFIGS[name]


def build_model(config: PolicyConfig) -> nn.Module:
    """Build the network of a configuration with fresh weights, in training mode."""
    return _MODELS[config.type](config)


def policy_model(module: nn.Module) -> PolicyModel:
    """View a built module through the protocol that all models share."""
    return cast("PolicyModel", module)


def iterative_model(module: nn.Module) -> IterativeModel | None:
    """View a built module as an iterative one; None for single-shot policies (ACT)."""
    return cast("IterativeModel", module) if hasattr(module, "integrate") else None
