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

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from koch_core.expression import Expression
from koch_core.options import OptionModel, declared, option, read_some
from koch_episodes.dataset.selection import is_expression, numbers_of
from koch_policy.chunks.strategies import StrategyKind
from koch_policy.errors import CheckpointError, ConfigError, UnknownKeysError, config_refusal
from koch_policy.files import read_json
from koch_policy.metadata import is_crop
from koch_policy.models.registry import preset_files
from koch_rig.action_layout import ACTION_SPACES

_GROUPS = {"about", "train", "augment", "policy"}


_STRATEGIES = " or ".join(kind.value for kind in StrategyKind)


@dataclass(frozen=True, kw_only=True)
class ExecutionDefaults(OptionModel):
    """How a policy's chunks are executed where a run does not say."""

    strategy: StrategyKind = option(StrategyKind.QUEUE, "strategy", expected=_STRATEGIES)
    execution_steps: int = option(1, "steps of a chunk before the next", low=1)
    draws: int = option(1, "an iterative policy executes the mean of so many", low=1)


@dataclass(frozen=True, kw_only=True)
class LoraOptions(OptionModel):
    """Adapters of a fine-tuning."""

    rank: int = option(16, "rank of the adapters", low=1)
    alpha: float = option(16.0, "adapters count alpha / rank times", above=0.0)
    targets: tuple[str, ...] = option(
        (),
        "modules or weights that get one, by name or pattern; empty: all matrices",
        expected="a list such as [encoder, 'decoder.*']",
    )


@dataclass(frozen=True, kw_only=True)
class EarlyFrames(OptionModel):
    """A beginning of the training that prefers the beginnings of the episodes."""

    seconds: float = option(0.6, "frames of the first seconds of an episode are early", above=0.0)
    share: float = option(1.0, "part of the windows that is early", above=0.0, high=1.0)
    steps: int = option(300, "optimiser steps that this is so for", low=1)
    # A tenth of all windows is early by itself, and a policy that gets no more forgets the words.
    later_share: float | None = option(
        None, "part of the windows that is early afterwards; None: as many as there are",
        low=0.0, high=1.0,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class AugmentConfig(OptionModel):
    """Strength of each augmentation; zero switches it off."""

    brightness: float = option(0.0, "factors of [1 - x, 1 + x]", low=0.0, below=1.0)
    contrast: float = option(0.0, "factors of [1 - x, 1 + x]", low=0.0, below=1.0)
    saturation: float = option(0.0, "factors of [1 - x, 1 + x]", low=0.0, below=1.0)
    hue: float = option(0.0, "rotation of the colours, of [-x, x] turns", low=0.0, high=0.5)
    blur_px: float = option(
        0.0, "standard deviation of a Gaussian blur, of [0, x] pixels", low=0.0
    )
    shift_fraction: float = option(
        0.0, "shift by up to this part of width and height; edges are repeated", low=0.0, below=1.0
    )
    rotate_deg: float = option(0.0, "rotation about the centre, of [-x, x] degrees", low=0.0)
    action_noise: float = option(
        0.0, "standard deviation added to the actions, in normalised units", low=0.0
    )
    # Large values make the policy look at the scene instead of following the trajectories it has
    # seen (causal confusion: de Haan et al. 2019, arXiv 1905.11979).
    state_noise: float = option(0.0, "the same for the arm's own state", low=0.0)
    environment_noise: float = option(0.0, "the same for the environment state", low=0.0)

    @classmethod
    def refuse(cls, name: str, got: object, expected: str, hint: str = "") -> Exception:
        """The error of a wrong value."""
        return config_refusal("augment")(name, got, expected, hint)

    @property
    def has_colour(self) -> bool:
        """True when any colour is changed."""
        return any((self.brightness, self.contrast, self.saturation, self.hue))

    @property
    def has_motion(self) -> bool:
        """True when images are moved."""
        return bool(self.shift_fraction or self.rotate_deg)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(OptionModel):
    """How a policy is trained."""

    steps: int = option(20_000, "optimiser steps", low=1)
    batch_size: int = option(8, "windows per step, over all processes", low=1)
    accumulate: int = option(
        1, "parts that the windows of a step are computed in, one after another, to save memory",
        low=1,
    )  # fmt: skip
    # An image is encoded once for all of them, and that is most of the work.
    draws: int = option(1, "noises per window and step of flow and diffusion policies", low=1)
    seed: int = option(
        1000, "of weights, split, order, noise and augmentation", low=0, high=(1 << 31) - 1
    )
    learning_rate: float | None = option(None, "None: the policy's own", low=0.0)
    backbone_learning_rate: float | None = option(None, "None: the policy's own", low=0.0)
    weight_decay: float | None = option(None, "None: the policy's own", low=0.0)
    warmup_steps: int = option(500, "steps of linear warm-up", low=0)
    final_rate_fraction: float = option(
        0.0, "end of the cosine decay, as part of the learning rate; 1: constant", low=0, high=1
    )
    clip_norm: float = option(10.0, "gradients are scaled down to this norm", above=0.0)
    # A processor without such instructions would take ten times as long.
    amp: bool = option(
        False, "compute the network in bfloat16 where that is safe, on hardware that has it"
    )
    ema_decay: float = option(
        0.0,
        "decay of the averaged weights, which are then the ones saved; 0: off",
        low=0.0,
        below=1.0,
    )
    validation_fraction: float = option(
        0.1, "part of the episodes that is held out", low=0.0, below=1.0
    )
    validation_windows: int = option(256, "windows used for the open-loop error", low=1)
    log_every: int = option(50, "steps", low=1)
    validate_every: int = option(1000, "steps", low=1)
    save_every: int = option(2000, "steps", low=1)
    evaluate_every: int = option(
        0, "steps between evaluations of a checkpoint in simulation; 0: never", low=0
    )
    evaluate_rollouts: int = option(
        20, "rollouts of one evaluation, on seeds that `koch eval` does not use", low=1
    )
    wandb: str | None = option(
        None, "project in Weights & Biases that the figures go to, where that package is installed"
    )
    inputs: tuple[str, ...] = option(
        (),
        "features the policy sees; empty: state, environment state, all cameras",
        expected="a list of feature names",
    )
    outcomes: tuple[str, ...] = option(
        (), "only episodes that ended so; empty: all", expected="a list such as [success]"
    )
    episodes: Any = option(
        (),
        "only these episodes: numbers, as a list or like 0,3-5, or an expression, like "
        "\"outcome == 'success' and task ~ 'red'\"; empty: all",
    )
    weights: Mapping[str, float] = option(
        {},
        "{column: factor}: frames where a column such as `intervention` is true are drawn so many "
        "times as often",
        low=0.0,
        expected="{column: factor}",
    )
    # Only there do the words decide: later the joints and the hand's place tell what is meant.
    early: Mapping[str, Any] = option(
        {},
        "in the first steps, draw this share of the windows from the first seconds of episodes",
        expected="{seconds: 0.6, share: 1.0, steps: 300, later_share: 0.3}",
    )
    parts: Mapping[str, list[str]] = option(
        {},
        "{feature: dataset keys}: join several vectors into one, as of two arms",
        expected="a list of feature names",
    )
    angles: Mapping[str, Mapping[str, float]] = option(
        {},
        "{feature: {element: period}}: elements that fold, such as a yaw, which the policy sees "
        "as sine and cosine; the period is in the element's unit",
        above=0.0,
        expected="{element: period above zero}",
    )
    action_space: str = option(
        "",
        "what the policy predicts: joint, joint_relative (from the observed pose), tcp (the "
        "hand's pose), tcp_quaternion, tcp_relative (in the observed hand's frame), "
        "tcp_relative_base; empty: as the dataset has it",
        choices=("", *ACTION_SPACES),
    )
    image_size: tuple[int, int] | None = option(
        None, "what images are reduced to", low=1, expected="[height, width] in pixels"
    )
    # Most pixels for the camera that must be precise, few for one that is near.
    image_sizes: Mapping[str, list[int]] = option(
        {}, "{camera feature: size}, in place of `image_size`", low=1,
        expected="[height, width] in pixels",
    )  # fmt: skip
    # Pixels then go where the work is.
    crops: Mapping[str, list[float]] = option(
        {},
        "{camera feature: the box of its images that the policy sees}",
        expected="[left, top, width, height], fractions of 0 to 1",
    )
    execution: Mapping[str, Any] = option(
        {}, "how chunks are executed where a run does not say: strategy, execution_steps, draws"
    )
    imagenet_statistics: bool = option(
        True, "scale images by ImageNet's statistics instead of the dataset's"
    )
    zero_range: str = option(
        "refuse", "what to do with dimensions that never move", choices=("refuse", "constant")
    )
    pretrained_policy: str | None = option(
        None,
        "checkpoint whose weights the policy starts from",
    )
    keep_statistics: bool = option(
        False, "with `pretrained_policy`: keep the statistics that its weights were trained under"
    )
    kl_warmup_steps: int = option(
        0, "steps over which the weight of ACT's KL term grows from zero; 0: it is there at once",
        low=0,
    )  # fmt: skip
    teacher: str | None = option(None, "checkpoint whose chunks the policy learns")
    teacher_fraction: float = option(
        0.5, "part of the windows whose chunk is the teacher's", low=0.0, high=1.0
    )
    teacher_decay: float = option(
        0.1, "a step t of the teacher's chunk counts exp(-decay t)", low=0.0
    )
    freeze: tuple[str, ...] = option(
        (),
        "modules or weights that are not trained, by name or pattern",
        expected="a list such as [backbone, 'encoder.*']",
    )
    lora: Mapping[str, Any] = option(
        {},
        "train low-rank adapters of a pretrained policy (rank, alpha, targets), freeze the rest",
        expected="{rank: 16, alpha: 16, targets: [encoder]}",
    )
    pretrained_backbone: str | None = option(
        None, "safetensors file of torchvision weights to start the backbones from"
    )
    measure_norms: bool = option(
        False,
        "without pretrained weights: measure the backbones' frozen batch norms on the dataset's "
        "images before the first step",
    )

    def __post_init__(self) -> None:
        """Check the values, and what does not go together."""
        for name in ("inputs", "outcomes", "episodes", "freeze", "image_size"):
            value = getattr(self, name)
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
        super().__post_init__()
        object.__setattr__(self, "episodes", self._episodes())
        for key, box in self.crops.items():
            if not is_crop(box):
                expected = declared(TrainConfig)["crops"].option.expected
                raise self.refuse(f"crops.{key}", box, expected)
        for key, size in self.image_sizes.items():
            if len(size) != 2:
                raise self.refuse(f"image_sizes.{key}", size, "[height, width] in pixels")
        refuse = config_refusal("train")
        read_some(
            ExecutionDefaults, self.execution, lambda key, *why: refuse(f"execution.{key}", *why)
        )
        _ = self.early_frames
        if self.adapters is not None and self.pretrained_policy is None:
            raise self.refuse("lora", self.lora, "nothing without --from: it adapts weights")
        if self.pretrained_policy is not None and self.pretrained_backbone is not None:
            raise ConfigError(
                "train", "pretrained_backbone", self.pretrained_backbone, "nothing",
                "train.pretrained_policy brings its backbones along.",
            )  # fmt: skip

    @classmethod
    def refuse(cls, name: str, got: object, expected: str, hint: str = "") -> Exception:
        """The error of a wrong value."""
        return config_refusal("train")(name, got, expected, hint)

    def _episodes(self) -> tuple[int, ...] | str:
        """The episodes as numbers, or as an expression that can be read."""
        text = self.episodes
        if isinstance(text, int) and not isinstance(text, bool):
            text = str(text)  # what YAML makes of one number
        if isinstance(text, str):
            if is_expression(text):
                Expression(text, "train.episodes")
                return text
            return tuple(dict.fromkeys(numbers_of(text, "train.episodes")))
        whole = isinstance(text, list | tuple) and all(
            isinstance(each, int) and not isinstance(each, bool) and each >= 0 for each in text
        )
        if not whole:
            expected = "numbers such as [0, 3] or 0,3-5, or an expression"
            raise self.refuse("episodes", text, expected)
        return tuple(text)

    @property
    def early_frames(self) -> EarlyFrames | None:
        """How the training begins, None where it draws alike throughout."""
        refuse = config_refusal("train")
        read = read_some(EarlyFrames, self.early, lambda key, *why: refuse(f"early.{key}", *why))
        return EarlyFrames(**read) if self.early else None

    @property
    def adapters(self) -> LoraOptions | None:
        """The low-rank adapters, None without."""
        refuse = config_refusal("train")
        read = read_some(LoraOptions, self.lora, lambda key, *why: refuse(f"lora.{key}", *why))
        return LoraOptions(**read) if self.lora else None

    @property
    def pretrained(self) -> str | None:
        """What weights come from; None where all of them are drawn at random."""
        return self.pretrained_policy or self.pretrained_backbone


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
            train=replace(self.train, **_read("train", TrainConfig, groups, where)),
            augment=replace(self.augment, **_read("augment", AugmentConfig, groups, where)),
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


def _read(group: str, model: type[Any], groups: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The checked values of one group of an override file."""
    return read_some(model, groups.get(group, {}), config_refusal(f"{where}: {group}"))


def preset_names() -> list[str]:
    """Return the names of the shipped presets, e.g. `act-tiny`."""
    return sorted(preset_files())


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
        name, presets = f"{policy}-{preset}", preset_files(policy)
        if name not in presets:
            own = [known.removeprefix(f"{policy}-") for known in sorted(presets)]
            others = ", ".join(known for known in preset_names() if known not in presets)
            raise ConfigError(
                "--preset",
                "",
                preset,
                f"one of {', '.join(own) or 'none'} with --policy {policy}",
                f"Of other policies there are {others}.",
            )
        files = [presets[name], *files]
    for path in files:
        recipe = recipe.with_overrides(_read_yaml(path), str(path))
    for setting in settings:
        key, equals, text = setting.partition("=")
        group, dot, name = key.partition(".")
        if not equals or not dot:
            raise ConfigError("--set", "", setting, "GROUP.KEY=VALUE, e.g. train.steps=100")
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
