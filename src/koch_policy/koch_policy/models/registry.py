# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policy types by name: the one place that a new policy is entered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, cast

import torch
from torch import Tensor, nn

from koch_policy.configs import ActConfig, DiffusionConfig, PolicyConfig
from koch_policy.errors import UnknownPolicyError
from koch_policy.models.act import Act
from koch_policy.models.diffusion import Diffusion


class PolicyModel(Protocol):
    """What training and runtimes ask of a network; tensors are normalised."""

    state_dict_prefix: str

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the training objective and its parts."""
        ...

    def __call__(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the predicted horizon (B, T, A)."""
        ...


_CONFIGS: Mapping[str, type[PolicyConfig]] = {
    kind.type: kind for kind in (ActConfig, DiffusionConfig)
}
_MODELS: Mapping[str, type[nn.Module]] = {"act": Act, "diffusion": Diffusion}


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


def seed_everything(seed: int) -> None:
    """Seed torch's generators (weights, noise, dropout)."""
    torch.manual_seed(seed)
