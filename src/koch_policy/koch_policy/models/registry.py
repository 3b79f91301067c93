# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policies by name, what is asked of a network, and how one of your own is registered.

A policy is a configuration and a network, in one file of any package:

    @dataclass(frozen=True, kw_only=True)
    class MineConfig(PolicyConfig):  # fields, defaults, and what the policy can do
        type: ClassVar[str] = "mine"

    @register_policy(MineConfig)
    class Mine(nn.Module):  # a PolicyModel
        def __init__(self, config: MineConfig) -> None: ...

and in that package's metadata:

    [project.entry-points."koch_vla.policies"]
    mine = "my_package.mine"

Then `koch train --policy mine` trains it, and its checkpoints run wherever others do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeVar, cast

from koch_core.registry import Registry
from koch_policy.configs import PolicyConfig
from koch_policy.errors import UnknownPolicyError

if TYPE_CHECKING:  # a command line asks for the names, and shall not wait for torch
    from torch import Tensor, nn

    from koch_policy.chunks.rtc import Guidance
    from koch_policy.models.schedule import Evaluate

_PRESETS = Path(__file__).parents[1] / "train" / "presets"
_OWN = ("act", "diffusion", "diffusion_transformer", "fast", "flow")
N = TypeVar("N", bound="nn.Module")


class PolicyModel(Protocol):
    """What training and runtimes ask of a network; tensors are normalised.

    Attributes:
        state_dict_prefix: Put before the weights' names in a checkpoint: "model.".
        backbones: Optional. Beginnings of the names of its image backbones' parameters, which
            `optimizer_lr_backbone` of the configuration is for.
        camera_encoders: Optional method: each camera's encoder, for accelerators of ResNets; a
            network without it, or with other encoders, computes its images itself.
        heeds_shares: Optional, true where `loss` weighs its means by `LOSS_SHARE` and
            `WINDOW_SHARE` of the batch; the loss of other networks is weighed by windows.
        loss_weight: Optional method: what a batch counts in the loss; else its steps without
            padding.
        learn_tokens: Optional method: learns how normalised chunks (N, T, A) of the training data
            are written as tokens. A new run calls it once, before its first step.
    """

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

    def integrate(self, evaluate: Evaluate, noise: Tensor, steps: int | None = None) -> Tensor:
        """Turn noise (B, T, A) into actions by calling `evaluate` repeatedly."""
        ...

    def continue_chunk(
        self, evaluate: Evaluate, guidance: Guidance, noise: Tensor, steps: int | None = None
    ) -> Tensor:
        """The same, so that the actions continue the chunk under execution."""
        ...

    def noise_error(self, evaluate: Evaluate, actions: Tensor, noise: Tensor) -> float:
        """Return the mean square of eps_theta - eps for actions (1, T, A) and noise (K, T, A).

        The K noises are added at K levels, spread over those that sampling passes.
        """
        ...


@dataclass(frozen=True)
class PolicyKind:
    """A registered policy.

    Attributes:
        config: Its configuration; what it can do is there.
        network: Built from a configuration.
        presets: Folder of its presets, files TYPE-PRESET.yaml.
        runtimes: The engines that can compute it.
    """

    config: type[PolicyConfig]
    network: Callable[..., nn.Module]
    presets: Path
    runtimes: tuple[str, ...]


POLICIES: Registry[PolicyKind] = Registry(
    "policy", "koch_vla.policies", {name: f"koch_policy.models.{name}" for name in _OWN}
)


def register_policy(
    config: type[PolicyConfig],
    *,
    presets: Path = _PRESETS,
    runtimes: Sequence[str] = ("torch", "openvino"),
) -> Callable[[type[N]], type[N]]:
    """Register a network as the policy that its configuration's `type` names.

    Args:
        config: The configuration.
        presets: Folder with its presets.
        runtimes: Leave "openvino" out where OpenVINO cannot convert the network.

    Raises:
        ValueError: The name is taken.
    """

    def register(network: type[N]) -> type[N]:
        POLICIES.add(PolicyKind(config, network, presets, tuple(runtimes)), config.type)
        return network

    return register


def known_policies() -> list[str]:
    """Return the names of the policy types."""
    return POLICIES.names()


def policy_kind(name: str, where: str) -> PolicyKind:
    """Return what is registered for a policy type.

    Raises:
        UnknownPolicyError: There is no such type; `where` says who asked for it.
    """
    kind = POLICIES.find(name)
    if kind is None:
        raise UnknownPolicyError(name, where, known_policies())
    return kind


def preset_files(policy: str | None = None) -> dict[str, Path]:
    """Return the presets, {TYPE-PRESET: file}, of one policy or of all in this tree.

    Raises:
        UnknownPolicyError: There is no such policy.
    """
    if policy is None:
        folders, pattern = [_PRESETS], "*.yaml"
    else:
        folders, pattern = [policy_kind(policy, "--policy").presets], f"{policy}-*.yaml"
    return {path.stem: path for folder in folders for path in sorted(folder.glob(pattern))}


def build_model(config: PolicyConfig) -> nn.Module:
    """Build the network of a configuration with fresh weights, in training mode."""
    return policy_kind(config.type, "configuration").network(config)


def policy_model(module: nn.Module) -> PolicyModel:
    """View a built module through the protocol that all models share."""
    return cast("PolicyModel", module)


def iterative_model(module: nn.Module) -> IterativeModel | None:
    """View a built module as an iterative one; None for single-shot policies (ACT)."""
    return cast("IterativeModel", module) if hasattr(module, "integrate") else None
