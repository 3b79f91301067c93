# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Training configuration: a dataclass and small YAML files that override it.

An override file holds up to four groups, each strict about its keys:

    about:   hardware, wall_time, expected_loss      (for people; required in our presets)
    train:   fields of TrainConfig
    augment: fields of AugmentConfig
    policy:  fields of the policy's configuration (its `type` picks the policy)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from koch_policy.chunks.strategies import StrategyKind
from koch_policy.errors import CheckpointError, ConfigError, UnknownKeysError
from koch_policy.files import read_json
from koch_policy.metadata import is_crop
from koch_policy.train.augment import AugmentConfig

RECIPE = "koch_train_config.json"  # beside the checkpoint's config.json
PRESETS = Path(__file__).parent / "presets"
_GROUPS = {"about", "train", "augment", "policy"}


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a policy is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Windows per step, over all processes.
        seed: Of weights, split, order, noise and augmentation.
        draws: Noises per window and step of flow and diffusion policies: an image is encoded once
            for all of them, and that is most of the work.
        learning_rate, weight_decay, backbone_learning_rate: None takes the policy's own.
        warmup_steps: Steps of linear warm-up.
        final_rate_fraction: End of the cosine decay, as part of the learning rate; 1 = constant.
        clip_norm: Gradients are scaled down to this norm.
        amp: Compute the network in bfloat16 where that is safe, on hardware that has it: a
            processor without such instructions would take ten times as long.
        ema_decay: Decay of the averaged weights (which are then the ones saved); 0 = off.
        validation_fraction: Part of the episodes that is held out.
        validation_windows: Windows used for the open-loop error.
        log_every, validate_every, save_every: In steps.
        evaluate_every: Steps between evaluations of a checkpoint in simulation; 0 = never.
        evaluate_rollouts: Rollouts of one evaluation, on seeds that `koch eval` does not use.
        wandb: Project in Weights & Biases that the figures go to, where that package is
            installed; None: none.
        inputs: Features the policy sees; empty = state, environment state, all cameras.
        outcomes: Only episodes that ended so, such as [success]; empty = all.
        parts: {feature: dataset keys}: join several vectors into one, e.g. two arms.
        angles: {feature: {element: period}}: elements that fold, such as a yaw, which the policy
            sees as sine and cosine; the period is in the element's unit.
        image_size: (height, width) images are reduced to; None keeps the camera's.
        image_sizes: {camera feature: [height, width]}, in place of `image_size`: most pixels for
            the camera that must be precise, few for one that is near.
        crops: {camera feature: [left, top, width, height]}: the box of its images that the policy
            sees, as fractions of the image. Pixels then go where the work is.
        imagenet_statistics: Scale images by ImageNet's statistics instead of the dataset's.
        execution: How the policy's chunks are executed where a run does not say: `strategy`,
            `execution_steps`, `draws` (an iterative policy executes the mean of so many).
        zero_range: "refuse" or "constant": what to do with dimensions that never move.
        pretrained_policy: Checkpoint (folder or training output) whose weights the policy starts
            from, for fine-tuning; the statistics are those of the new data.
        pretrained_backbone: safetensors file of torchvision weights to start the backbones from.
        measure_norms: Without pretrained weights: measure the backbones' frozen batch norms on the
            dataset's images before the first step.
    """

    steps: int = 20_000
    batch_size: int = 8
    draws: int = 1
    seed: int = 1000
    learning_rate: float | None = None
    backbone_learning_rate: float | None = None
    weight_decay: float | None = None
    warmup_steps: int = 500
    final_rate_fraction: float = 0.0
    clip_norm: float = 10.0
    amp: bool = False
    ema_decay: float = 0.0
    validation_fraction: float = 0.1
    validation_windows: int = 256
    log_every: int = 50
    validate_every: int = 1000
    save_every: int = 2000
    evaluate_every: int = 0
    evaluate_rollouts: int = 20
    wandb: str | None = None
    inputs: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    parts: Mapping[str, list[str]] = field(default_factory=dict)
    angles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    image_sizes: Mapping[str, list[int]] = field(default_factory=dict)
    crops: Mapping[str, list[float]] = field(default_factory=dict)
    execution: Mapping[str, Any] = field(default_factory=dict)
    imagenet_statistics: bool = True
    zero_range: str = "refuse"
    pretrained_policy: str | None = None
    pretrained_backbone: str | None = None
    measure_norms: bool = False

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in (
            "steps", "batch_size", "draws", "log_every", "validate_every", "save_every",
            "validation_windows", "evaluate_rollouts",
        ):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError("train", name, getattr(self, name), "one or more")
        for name in ("learning_rate", "backbone_learning_rate", "weight_decay", "warmup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < math.inf:
                raise ConfigError("train", name, value, "a finite number, zero or more")
        if self.evaluate_every < 0:
            raise ConfigError("train", "evaluate_every", self.evaluate_every, "zero or more")
        if not 0 <= self.seed < 1 << 31:
            raise ConfigError("train", "seed", self.seed, "0 to 2147483647")
        if not self.clip_norm > 0:
            raise ConfigError("train", "clip_norm", self.clip_norm, "a norm above zero")
        if not 0.0 <= self.final_rate_fraction <= 1.0:
            raise ConfigError("train", "final_rate_fraction", self.final_rate_fraction, "[0, 1]")
        self._check_inputs()
        self._check_execution()
        if not 0.0 <= self.validation_fraction < 1.0:
            raise ConfigError("train", "validation_fraction", self.validation_fraction, "[0, 1)")
        if not 0.0 <= self.ema_decay < 1.0:
            raise ConfigError("train", "ema_decay", self.ema_decay, "[0, 1)")
        if self.pretrained_policy is not None and self.pretrained_backbone is not None:
            raise ConfigError(
                "train", "pretrained_backbone", self.pretrained_backbone, "nothing",
                "train.pretrained_policy brings its backbones along.",
            )  # fmt: skip
        if self.zero_range not in ("refuse", "constant"):
            raise ConfigError("train", "zero_range", self.zero_range, "refuse or constant")

    def _check_execution(self) -> None:
        strategies = [kind.value for kind in StrategyKind]
        for name, value in self.execution.items():
            if name == "strategy" and value not in strategies:
                raise ConfigError("train", "execution.strategy", value, " or ".join(strategies))
            if name in ("execution_steps", "draws") and not (type(value) is int and value > 0):
                raise ConfigError("train", f"execution.{name}", value, "one or more")
        unknown = set(self.execution) - {"strategy", "execution_steps", "draws"}
        if unknown:
            known = ("strategy", "execution_steps", "draws")
            raise UnknownKeysError("train.execution", unknown, known)

    @property
    def pretrained(self) -> str | None:
        """What weights come from; None where all of them are drawn at random."""
        return self.pretrained_policy or self.pretrained_backbone

    def _check_inputs(self) -> None:
        """Check the lists of features and the image size."""
        for name in ("inputs", "outcomes", "image_size"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        lists = {"inputs": self.inputs, **{f"parts.{k}": v for k, v in self.parts.items()}}
        for name, value in lists.items():
            if isinstance(value, str) or not all(isinstance(key, str) for key in value):
                raise ConfigError("train", name, value, "a list of feature names")
        if isinstance(self.outcomes, str) or not all(isinstance(o, str) for o in self.outcomes):
            raise ConfigError("train", "outcomes", self.outcomes, "a list such as [success]")
        for key, box in self.crops.items():
            if not is_crop(box):
                raise ConfigError(
                    "train", f"crops.{key}", box, "[left, top, width, height], fractions of 0 to 1"
                )
        for key, angles in self.angles.items():
            if not isinstance(angles, Mapping) or not all(
                isinstance(period, int | float) and period > 0 for period in angles.values()
            ):
                raise ConfigError("train", f"angles.{key}", angles, "{element: period above zero}")
        sizes = {f"image_sizes.{key}": size for key, size in self.image_sizes.items()}
        for name, size in {"image_size": self.image_size, **sizes}.items():
            if size is not None and (
                len(size) != 2 or not all(isinstance(side, int) and side > 0 for side in size)
            ):
                raise ConfigError("train", name, size, "[height, width] in pixels")


@dataclass(frozen=True)
class Recipe:
    """A training configuration with its augmentation and the policy's own overrides."""

    train: TrainConfig = field(default_factory=TrainConfig)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    policy: Mapping[str, Any] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def policy_type(self) -> str:
        """Name of the policy."""
        return str(self.policy.get("type", "act"))

    def with_overrides(self, groups: Mapping[str, Any], where: str) -> Recipe:
        """Return a recipe with the groups of one override file on top.

        Raises:
            UnknownKeysError: A group or key is not known.
            ConfigError: A value is out of range, or a group is not a mapping.
        """
        unknown = set(groups) - _GROUPS
        if unknown:
            raise UnknownKeysError(where, unknown, _GROUPS)
        for name, values in groups.items():
            if not isinstance(values, Mapping):
                raise ConfigError(where, name, values, "a mapping")
        return Recipe(
            train=_override(self.train, groups.get("train", {}), f"{where}: train"),
            augment=_override(self.augment, groups.get("augment", {}), f"{where}: augment"),
            policy={**self.policy, **groups.get("policy", {})},
            about={**self.about, **groups.get("about", {})},
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, as written into train_config.json."""
        return {
            "about": dict(self.about),
            "train": asdict(self.train),
            "augment": asdict(self.augment),
            "policy": dict(self.policy),
        }


def _override(base: Any, values: Mapping[str, Any], where: str) -> Any:
    known = {entry.name: str(entry.type) for entry in fields(base)}
    unknown = set(values) - set(known)
    if unknown:
        raise UnknownKeysError(where, unknown, known)
    for key, value in values.items():
        _check_type(known[key], key, value, where)
    return replace(base, **values)


def _check_type(annotation: str, key: str, value: Any, where: str) -> None:
    """Refuse values of another type than the field's (YAML turns `1e-4` into text)."""
    if value is None and "None" in annotation:
        return
    kind = annotation.replace(" | None", "")
    kinds: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str,),
    }
    expected = kinds.get(kind, (dict,) if kind.startswith("Mapping") else (list, tuple))
    if not isinstance(value, expected) or (isinstance(value, bool) and kind != "bool"):
        advice = "In YAML write 1.0e-4, not 1e-4." if kind == "float" else ""
        raise ConfigError(where, key, value, annotation, advice)


def preset_names() -> list[str]:
    """Return the names of the shipped presets, e.g. `act-tiny`."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def load_recipe(
    policy: str,
    preset: str | None = None,
    files: Sequence[Path] = (),
    settings: Sequence[str] = (),
    base: Recipe | None = None,
) -> Recipe:
    """Build a recipe: defaults or `base`, preset, override files, `group.key=value` settings.

    Raises:
        ConfigError: The preset, a file or a setting is not valid.
    """
    recipe = Recipe(policy={"type": policy}) if base is None else base
    if preset is not None:
        name = f"{policy}-{preset}"
        if name not in preset_names():
            raise ConfigError("--preset", "preset", preset, f"one of {', '.join(preset_names())}")
        files = [PRESETS / f"{name}.yaml", *files]
    for path in files:
        recipe = recipe.with_overrides(_read_yaml(path), str(path))
    for setting in settings:
        key, equals, text = setting.partition("=")
        group, dot, name = key.partition(".")
        if not equals or not dot:
            raise ConfigError("--set", "setting", setting, "GROUP.KEY=VALUE, e.g. train.steps=100")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as exc:
            raise ConfigError("--set", key, text, "a value in YAML") from exc
        recipe = recipe.with_overrides({group: {name: value}}, f"--set {setting}")
    if recipe.policy_type != policy:
        raise ConfigError("policy", "type", recipe.policy_type, f"{policy!r}, as --policy says")
    return recipe


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as exc:
        raise CheckpointError(path, f"not readable as YAML ({exc})", "Check the file.") from exc
    if not isinstance(content, Mapping):
        raise ConfigError(str(path), "file", content, "groups train, augment, policy, about")
    return content


def recipe_from_json(path: Path) -> Recipe:
    """Read the recipe that a training run wrote, to resume it."""
    return Recipe().with_overrides(read_json(path), str(path))
