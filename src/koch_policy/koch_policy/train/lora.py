# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Low-rank adapters: fine-tuning that trains a small product beside frozen weights.

Reference: Hu et al. 2021, "LoRA" (arXiv 2106.09685), section 4.1:

    W = W_0 + alpha / rank * B A,   A (rank, in) drawn at random, B (out, rank) zero at first

The adapters stand on the weights themselves (torch's parametrisations), not on layers: ACT keeps
the projections of its attention in one matrix that belongs to no linear layer, which the package
`peft` cannot adapt. That package would also bring `transformers` and `accelerate` along.

A checkpoint holds the merged weights W, so that it stays what it is without adapters: it runs on
every runtime, LeRobot loads it, and `--from` goes on from it.
"""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn
from torch.nn.utils import parametrize

from koch_policy.errors import ConfigError
from koch_policy.train.config import LoraOptions
from koch_policy.train.finetune import matching_weights


class LowRank(nn.Module):
    """Adds alpha / rank * B A to a matrix (out, in)."""

    def __init__(self, weight: Tensor, options: LoraOptions) -> None:
        super().__init__()
        self.scale = options.alpha / options.rank
        self.a = nn.Parameter(weight.new_empty(options.rank, weight.shape[1]))
        self.b = nn.Parameter(weight.new_zeros(weight.shape[0], options.rank))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the adapted matrix."""
        return weight + self.scale * (self.b @ self.a)


def add_adapters(model: nn.Module, options: LoraOptions) -> None:
    """Freeze all weights of a network and put adapters on the matrices that are chosen.

    Raises:
        ConfigError: A target is no weight, or among its weights is no matrix.
    """
    matrices = {
        name
        for name, weight in model.named_parameters()
        if weight.dim() == 2
        and name.endswith("weight")  # others are tables, such as a network's own positions
        and not isinstance(_owner(model, name)[0], nn.Embedding)
    }
    chosen: set[str] = set() if options.targets else matrices
    for pattern in options.targets:
        found = matrices & set(matching_weights(model, pattern, "lora.targets"))
        if not found:
            raise ConfigError("train", "lora.targets", pattern, "a module with a matrix")
        chosen |= found
    model.requires_grad_(requires_grad=False)
    for name in sorted(chosen):
        owner, own_name = _owner(model, name)
        weight = getattr(owner, own_name)
        parametrize.register_parametrization(owner, own_name, LowRank(weight, options))


def has_adapters(model: nn.Module) -> bool:
    """Say whether any weight has an adapter."""
    return any(isinstance(module, LowRank) for module in model.modules())


def merged(model: nn.Module) -> nn.Module:
    """Return a network with its adapters in its weights: itself, where it has none."""
    if not has_adapters(model):
        return model
    plain = copy.deepcopy(model)
    for path, module in model.named_modules():
        if not parametrize.is_parametrized(module):
            continue
        own = plain.get_submodule(path)
        names = list(module.parametrizations)
        # Copies share the class that torch made; to take a weight's adapter out of that class,
        # as `remove_parametrizations` does, would break the original.
        own.__class__ = type(module).__bases__[0]
        del own.parametrizations
        for name in names:
            own.register_parameter(name, nn.Parameter(getattr(module, name).detach().clone()))
    return plain


def _owner(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """Return the module that a weight belongs to, and its name there."""
    path, _, own_name = name.rpartition(".")
    return model.get_submodule(path), own_name
