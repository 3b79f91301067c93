# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Going on from a trained policy: its recipe, the statistics that stay, and frozen weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
from torch import nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.config_json import config_to_dict, read_config
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.files import CONFIG, RECIPE, resolve_checkpoint
from koch_policy.normalize import Statistics
from koch_policy.train.config import Recipe, TrainConfig, recipe_from_json
from koch_policy.train.data import Demonstrations

# What of a recipe says how the network sees the data; steps, rates and the like are new.
_SEEN = (
    "inputs", "parts", "angles", "image_size", "image_sizes", "crops", "execution", "zero_range",
    "imagenet_statistics", "action_space",
)  # fmt: skip
_NOT_POLICY = (
    "input_features", "output_features", "device", "use_amp", "push_to_hub", "repo_id", "private",
    "tags", "license", "pretrained_backbone_weights", "pretrained_path",
)  # fmt: skip
_OUTSIDE = 0.01  # a larger part of the data beyond the kept range is told


def recipe_to_go_on(path: Path) -> Recipe:
    """Return the recipe that a checkpoint's network and view of the data ask for.

    Raises:
        CheckpointError: There is no checkpoint.
    """
    folder = resolve_checkpoint(path)
    config = read_config(folder / CONFIG)
    if (folder / RECIPE).is_file():
        stored = recipe_from_json(folder / RECIPE)
        policy = dict(stored.policy)
        train = TrainConfig(**{name: getattr(stored.train, name) for name in _SEEN})
    else:  # LeRobot's
        policy = config_to_dict(config)
        sizes = {key: list(shape[1:]) for key, shape in config.cameras.items()}
        train = TrainConfig(inputs=tuple(config.input_features), image_sizes=sizes)
    policy = {key: value for key, value in policy.items() if key not in _NOT_POLICY}
    policy["type"] = config.type
    train = replace(train, pretrained_policy=str(folder), keep_statistics=True)
    return Recipe(train=train, policy=policy)


def kept_statistics(
    measured: Statistics, start: Checkpoint, data: Demonstrations
) -> tuple[Statistics, list[str]]:
    """Keep the statistics that the weights were trained under, for features that they had.

    Under others the same weights would see other inputs and mean other actions. Features that the
    checkpoint had not take those of the new data.

    Args:
        measured: Of the new data.
        start: The checkpoint.
        data: The new data.

    Returns:
        The statistics, and sentences that say what was kept and why.

    Raises:
        DatasetError: Units or element names are others, so that keeping would be wrong.
    """
    require_same_meaning(start, data)
    kept = {key: start.statistics[key] for key in measured if key in start.statistics}
    lines = [
        f"statistics of {', '.join(kept) or 'nothing'} are kept from {start.path}: its weights "
        "were trained under them"
    ]
    units = {str(start.path): start.extras.units, data.name: data.units}
    if silent := [name for name, unit in units.items() if not unit]:
        lines.append(f"units are taken to be the same: {' and '.join(silent)} names none")
    new = [key for key in measured if key not in kept]
    if new:
        lines.append(f"statistics of {', '.join(new)} are the new data's: the policy had none")
    for key, values in data.vectors.items():
        if not {"min", "max"} <= kept.get(key, {}).keys():
            continue
        low, high = (kept[key][name].numpy() for name in ("min", "max"))
        outside = float(np.mean((values < low) | (values > high)))
        if outside > _OUTSIDE:
            lines.append(
                f"{outside:.0%} of the values of {key} are beyond the kept range; where that is "
                "much, --set train.keep_statistics=false takes the new data's"
            )
    return {**measured, **kept}, lines


def require_same_meaning(start: Checkpoint, data: Demonstrations) -> None:
    """Refuse data whose units or element names are others than a checkpoint's.

    Raises:
        DatasetError: They are.
    """
    units = start.extras.units
    if units and data.units and units != data.units:
        raise DatasetError(
            data.name, f"is in {data.units}, {start.path} in {units}", "Convert it in these units."
        )
    for key, names in data.names.items():
        known = start.extras.names.get(key)
        if known and list(known) != list(names):
            raise DatasetError(
                data.name,
                f"{key} holds {', '.join(names)}; {start.path} {', '.join(known)}",
                "A policy goes on with the same elements in the same order.",
            )


def matching_weights(model: nn.Module, pattern: str, option: str) -> list[str]:
    """Return the weights whose name is a pattern, begins with one and a dot, or fits it.

    Raises:
        ConfigError: There is none; `option` of `train` is named.
    """
    found = [
        name
        for name, _ in model.named_parameters()
        if name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
    ]
    if not found:
        modules = ", ".join(name for name, _ in model.named_children())
        raise ConfigError(
            "train", option, pattern, f"a module or weight; modules are {modules}",
            "Patterns such as encoder.* are understood.",
        )  # fmt: skip
    return found


def freeze(model: nn.Module, patterns: Sequence[str]) -> None:
    """Freeze the weights that patterns name.

    Raises:
        ConfigError: A pattern fits no weight, or nothing is left to train.
    """
    names = dict(model.named_parameters())
    for pattern in patterns:
        for name in matching_weights(model, pattern, "freeze"):
            names[name].requires_grad_(False)
    if patterns and not any(weight.requires_grad for weight in names.values()):
        raise ConfigError("train", "freeze", list(patterns), "something left to train")


def freeze_norms(model: nn.Module) -> None:
    """Keep the running statistics of frozen batch norms: they belong to their weights."""
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        is_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if is_norm and own and not any(weight.requires_grad for weight in own):
            module.eval()
