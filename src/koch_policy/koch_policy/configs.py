# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What all policy configurations share: features, normalisation and the time axis.

Field names and defaults follow LeRobot's config.json (0.4 series), so that a checkpoint travels
in both directions; `koch_policy.config_json` maps them to and from that file. The policies
themselves are in `koch_policy.policy_configs`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from koch_policy.errors import ConfigError

STATE = "observation.state"
ENVIRONMENT = "observation.environment_state"
ACTION = "action"
ACTION_IS_PAD = "action_is_pad"
ACTION_WEIGHT = "action_weight"  # what each step of a chunk counts in the loss, (B, T); 1 without
ACTION_NOISE = "action_noise"  # what a teacher made the chunk of, (B, T, A)
# Of the windows of a step that is computed in parts: what part of all windows, and of all that the
# loss counts, these are; scalars, missing where they are all.
WINDOW_SHARE = "window_share"
LOSS_SHARE = "loss_share"
TASK = "task"
TASK_EMBEDDING = "task_embedding"


class FeatureType(Enum):
    """What a feature is to a policy; the values are LeRobot's."""

    STATE = "STATE"
    VISUAL = "VISUAL"
    ENV = "ENV"
    ACTION = "ACTION"
    REWARD = "REWARD"
    LANGUAGE = "LANGUAGE"


class NormalizationMode(Enum):
    """How a feature is scaled; the values are LeRobot's."""

    MEAN_STD = "MEAN_STD"
    MIN_MAX = "MIN_MAX"
    QUANTILES = "QUANTILES"
    QUANTILE10 = "QUANTILE10"
    IDENTITY = "IDENTITY"


@dataclass(frozen=True)
class PolicyFeature:
    """Type and shape of one input or output; images are (C, H, W)."""

    type: FeatureType
    shape: tuple[int, ...]


class LanguageInput(NamedTuple):
    """How a policy reads the task's text: a name of TASK_ENCODERS, and the vector's length."""

    encoder: str
    dim: int


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What every policy has: features, normalisation, its time axis, and what it can do.

    The order of `input_features` is the order of the cameras inside the network.

    Attributes:
        type: Name of the policy.
        is_single_shot: It predicts in one evaluation, without a sampling that could be guided.
        lerobot_ambiguous: Fields whose default changed between LeRobot's releases: a config.json
            without them has two meanings.
    """

    type: ClassVar[str] = ""
    is_single_shot: ClassVar[bool] = False
    lerobot_ambiguous: ClassVar[tuple[str, ...]] = ()
    input_features: Mapping[str, PolicyFeature]
    output_features: Mapping[str, PolicyFeature]
    normalization_mapping: Mapping[str, NormalizationMode]
    n_obs_steps: int = 1
    n_action_steps: int = 1
    optimizer_lr: float = 1e-4
    optimizer_weight_decay: float = 1e-6

    def __post_init__(self) -> None:
        """Freeze the mappings and check what all policies require."""
        for name in ("input_features", "output_features", "normalization_mapping"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))
        if ACTION not in self.output_features:
            raise self.error(
                "output_features", list(self.output_features), "a feature named 'action'"
            )
        if len(self.output_features[ACTION].shape) != 1:
            raise self.error("action.shape", self.output_features[ACTION].shape, "one dimension")
        for key, feature in self.input_features.items():
            if not feature.shape or any(size < 1 for size in feature.shape):
                raise self.error(f"input_features.{key}", feature.shape, "positive sizes")
        for key, shape in self.cameras.items():
            if len(shape) != 3 or shape[0] != 3:
                raise self.error(f"input_features.{key}", shape, "an RGB image shape (3, H, W)")
        self.require_positive("n_obs_steps", "n_action_steps")
        self.require_within("optimizer_lr", "optimizer_weight_decay")

    def __deepcopy__(self, memo: dict[int, object]) -> PolicyConfig:
        """Return itself: nothing in it can change."""
        return self

    def error(self, key: str, got: object, expected: str, advice: str = "") -> ConfigError:
        """Return (not raise) the error that names this policy type and one key."""
        return ConfigError(f"policy {self.type!r}", key, got, expected, advice)

    def require_positive(self, *names: str) -> None:
        """Raise ConfigError unless each named field is above zero."""
        for name in names:
            if getattr(self, name) <= 0:
                raise self.error(name, getattr(self, name), "a value above zero")

    def require_within(self, *names: str, below: float = math.inf) -> None:
        """Raise ConfigError unless each named field is zero or more, and less than a bound."""
        for name in names:
            if not 0 <= getattr(self, name) < below:
                expected = "zero or more" + ("" if below == math.inf else f", below {below:g}")
                raise self.error(name, getattr(self, name), expected)

    def require_choice(self, name: str, choices: tuple[str, ...]) -> None:
        """Raise ConfigError unless the named field holds one of the choices."""
        if getattr(self, name) not in choices:
            raise self.error(name, getattr(self, name), f"one of {', '.join(choices)}")

    @property
    def state_dim(self) -> int:
        """Length of `observation.state`, 0 without that input."""
        feature = self.input_features.get(STATE)
        return feature.shape[0] if feature is not None else 0

    @property
    def environment_dim(self) -> int:
        """Length of `observation.environment_state`, 0 without that input."""
        feature = self.input_features.get(ENVIRONMENT)
        return feature.shape[0] if feature is not None else 0

    @property
    def action_dim(self) -> int:
        """Length of the action vector."""
        return self.output_features[ACTION].shape[0]

    @property
    def cameras(self) -> dict[str, tuple[int, ...]]:
        """Image inputs in network order, each with its (C, H, W)."""
        visual = FeatureType.VISUAL
        return {key: f.shape for key, f in self.input_features.items() if f.type is visual}

    @property
    def horizon_steps(self) -> int:
        """Steps of the action sequence that the network models."""
        raise NotImplementedError  # pragma: no cover - every policy below answers

    @property
    def kept_steps(self) -> int:
        """Steps from the observation on that make a chunk; the horizon's rest is not executed."""
        return self.horizon_steps

    @property
    def strategy(self) -> str:
        """Name of the chunk execution that suits this policy."""
        return "blend"

    @property
    def language(self) -> LanguageInput | None:
        """How the task's text goes in, None for a policy that does not read it."""
        return None

    @property
    def first_action_offset(self) -> int:
        """Offset of the horizon's first step from the newest observation, in steps (<= 0)."""
        return 0

    @property
    def has_step_axis(self) -> bool:
        """Whether the network's inputs carry an axis for the observation steps, (B, O, ...)."""
        return False

    def observation_offsets(self) -> range:
        """Offsets of the observation steps from the newest one."""
        return range(1 - self.n_obs_steps, 1)

    def action_offsets(self) -> range:
        """Offsets of the horizon's steps from the newest observation."""
        return range(self.first_action_offset, self.first_action_offset + self.horizon_steps)

    def require_observation(self) -> None:
        """Raise ConfigError unless there is a camera or the environment state."""
        if not self.cameras and not self.environment_dim:
            raise self.error(
                "input_features",
                list(self.input_features),
                "at least one camera or observation.environment_state",
            )
