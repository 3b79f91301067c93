# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's `policy.*` keys that say how to train: each is honoured or refused.

A checkpoint's config.json carries them too, and there they change no output and are read past
(`koch_policy.config_json`). In a recipe a person asks for something with them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from koch_policy.errors import ConfigError
from koch_policy.train.config import Recipe, TrainConfig

WHERE = "recipe: policy"
_HUB = "Nothing is uploaded from here; leave it out, and upload OUT with the hub's own client."
# Key -> (values that ask for nothing, what is possible, what to do instead).
_REFUSED: Mapping[str, tuple[tuple[Any, ...], str, str]] = {
    "use_peft": ((None, False), "false", "Adapters are not trained here; LeRobot does that."),
    "push_to_hub": ((None, False), "false", _HUB),
    "repo_id": ((None,), "nothing", _HUB),
    "private": ((None,), "nothing", _HUB),
    "tags": ((None,), "nothing", _HUB),
    "license": ((None,), "nothing", _HUB),
    "pretrained_revision": ((None,), "nothing", "pretrained_path names a folder, no repository."),
    "compile_model": ((None, False), "false", "Networks are not compiled here."),
    "compile_mode": ((None,), "nothing", "Networks are not compiled here."),
    "gradient_checkpointing": ((None, False), "false", "Lower train.batch_size instead."),
    "input_features": ((), "a mapping made from the dataset", "Choose with train.inputs."),
    "output_features": ((), "a mapping made from the dataset", "Leave it out."),
}


def honoured(recipe: Recipe) -> Recipe:
    """Return the recipe with what these keys ask for under `train`, and without the keys.

    `policy.device` stays: the command line joins it with --device.

    Raises:
        ConfigError: A key asks for something that is not done here, or contradicts `train`.
    """
    policy = dict(recipe.policy)
    if policy.get("compile_model") is False:  # then its mode is a default that LeRobot writes
        policy.pop("compile_mode", None)
    for key, (harmless, expected, advice) in _REFUSED.items():
        if key in policy and policy.pop(key) not in harmless:
            raise ConfigError(WHERE, key, recipe.policy[key], expected, advice)
    _refuse_doubled_crop(policy)
    train = _amp(recipe.train, policy.pop("use_amp", None))
    train = _pretrained(train, policy.pop("pretrained_path", None))
    train = _backbone(train, policy.pop("pretrained_backbone_weights", None))
    train = _schedule(train, policy)
    return replace(recipe, train=train, policy=policy)


def _amp(train: TrainConfig, asked: Any) -> TrainConfig:
    if asked is None:
        return train
    if not isinstance(asked, bool):
        raise ConfigError(WHERE, "use_amp", asked, "true or false")
    if train.amp and not asked:
        raise ConfigError(WHERE, "use_amp", asked, "true, as train.amp says", "Set train.amp.")
    return replace(train, amp=asked)


def _pretrained(train: TrainConfig, path: Any) -> TrainConfig:
    """`pretrained_path`: all weights start from a checkpoint."""
    if path is None:
        return train
    if train.pretrained_policy not in (None, path) or not isinstance(path, str):
        raise ConfigError(WHERE, "pretrained_path", path, "one checkpoint folder to start from")
    return replace(train, pretrained_policy=path)


def _backbone(train: TrainConfig, weights: Any) -> TrainConfig:
    """`pretrained_backbone_weights`: a file here, as nothing is downloaded."""
    if weights is None:
        return train
    if not isinstance(weights, str) or not Path(weights).suffix == ".safetensors":
        raise ConfigError(
            WHERE,
            "pretrained_backbone_weights",
            weights,
            "a safetensors file",
            "Nothing is downloaded: save torchvision's state_dict with safetensors.torch and name "
            "the file here or as train.pretrained_backbone.",
        )
    if train.pretrained_backbone not in (None, weights):
        raise ConfigError(
            WHERE, "pretrained_backbone_weights", weights, str(train.pretrained_backbone)
        )
    return replace(train, pretrained_backbone=weights)


def _schedule(train: TrainConfig, policy: Mapping[str, Any]) -> TrainConfig:
    """Diffusion's scheduler: warm-up and cosine, as `train` has it for every policy."""
    name = policy.get("scheduler_name", "cosine")
    if name != "cosine":
        raise ConfigError(
            WHERE, "scheduler_name", name, "cosine", "train.final_rate_fraction=1 is constant."
        )
    steps = policy.get("scheduler_warmup_steps")
    if steps is None:
        return train
    default = TrainConfig().warmup_steps
    if train.warmup_steps not in (default, steps):
        raise ConfigError(
            WHERE, "scheduler_warmup_steps", steps, f"train.warmup_steps ({train.warmup_steps})"
        )
    if not isinstance(steps, int):
        raise ConfigError(WHERE, "scheduler_warmup_steps", steps, "a number of steps")
    return replace(train, warmup_steps=steps)


def _refuse_doubled_crop(policy: Mapping[str, Any]) -> None:
    """The crop is a ratio of `resize_shape`, or a shape of its own; the other has no effect."""
    resized = policy.get("resize_shape") is not None
    if resized and policy.get("crop_shape") is not None:
        raise ConfigError(
            WHERE, "crop_shape", policy["crop_shape"], "crop_ratio, as there is a resize_shape"
        )
    if not resized and policy.get("crop_ratio", 1.0) != 1.0:
        raise ConfigError(
            WHERE, "crop_ratio", policy["crop_ratio"], "crop_shape, as there is no resize_shape"
        )
