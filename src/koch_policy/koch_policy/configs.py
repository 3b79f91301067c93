# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Policy configurations: the network's shape and the defaults of its training, frozen and checked.

Field names and defaults follow LeRobot's config.json (0.4 series), so that a checkpoint travels
in both directions; `koch_policy.config_json` maps them to and from that file.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import ClassVar

from koch_policy.errors import ConfigError

STATE = "observation.state"
ENVIRONMENT = "observation.environment_state"
ACTION = "action"
ACTION_IS_PAD = "action_is_pad"
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


def _modes(state_and_action: NormalizationMode) -> Mapping[str, NormalizationMode]:
    visual = NormalizationMode.MEAN_STD
    return MappingProxyType(
        {"VISUAL": visual, "STATE": state_and_action, "ACTION": state_and_action}
    )


@dataclass(frozen=True, kw_only=True)
class PolicyConfig:
    """What every policy has: features, normalisation and its time axis.

    The order of `input_features` is the order of the cameras inside the network.
    """

    type: ClassVar[str] = ""
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

    def error(self, key: str, got: object, expected: str, advice: str = "") -> ConfigError:
        """Return (not raise) the error that names this policy type and one key."""
        return ConfigError(f"policy {self.type!r}", key, got, expected, advice)

    def require_positive(self, *names: str) -> None:
        """Raise ConfigError unless each named field is above zero."""
        for name in names:
            if getattr(self, name) <= 0:
                raise self.error(name, getattr(self, name), "a value above zero")

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
    def first_action_offset(self) -> int:
        """Offset of the horizon's first step from the newest observation, in steps (<= 0)."""
        return 0

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


@dataclass(frozen=True, kw_only=True)
class ActConfig(PolicyConfig):
    """Action Chunking Transformer (LeRobot type `act`)."""

    type: ClassVar[str] = "act"
    normalization_mapping: Mapping[str, NormalizationMode] = field(
        default_factory=lambda: _modes(NormalizationMode.MEAN_STD)
    )
    chunk_size: int = 100
    n_action_steps: int = 100
    vision_backbone: str = "resnet18"
    replace_final_stride_with_dilation: bool = False
    pre_norm: bool = False
    dim_model: int = 512
    n_heads: int = 8
    dim_feedforward: int = 3200
    feedforward_activation: str = "relu"
    n_encoder_layers: int = 4
    n_decoder_layers: int = 1
    use_vae: bool = True
    latent_dim: int = 32
    n_vae_encoder_layers: int = 4
    temporal_ensemble_coeff: float | None = None
    dropout: float = 0.1
    kl_weight: float = 10.0
    optimizer_lr: float = 1e-5
    optimizer_weight_decay: float = 1e-4
    optimizer_lr_backbone: float = 1e-5

    def __post_init__(self) -> None:
        """Check the combinations that ACT allows."""
        super().__post_init__()
        self.require_positive(
            "chunk_size", "dim_model", "n_heads", "latent_dim", "n_decoder_layers"
        )
        self.require_choice("feedforward_activation", ("relu", "gelu"))
        self.require_observation()
        if self.n_obs_steps != 1:
            raise self.error("n_obs_steps", self.n_obs_steps, "1 (ACT sees one observation)")
        if self.n_action_steps > self.chunk_size:
            raise self.error("n_action_steps", self.n_action_steps, f"<= {self.chunk_size}")
        if self.temporal_ensemble_coeff is not None and self.n_action_steps != 1:
            raise self.error("n_action_steps", self.n_action_steps, "1 with temporal ensembling")
        if self.dim_model % self.n_heads or self.dim_model % 4:
            raise self.error("dim_model", self.dim_model, "a multiple of n_heads and of 4")

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.chunk_size


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(PolicyConfig):
    """Diffusion Policy with the 1-D U-Net (LeRobot type `diffusion`)."""

    type: ClassVar[str] = "diffusion"
    normalization_mapping: Mapping[str, NormalizationMode] = field(
        default_factory=lambda: _modes(NormalizationMode.MIN_MAX)
    )
    n_obs_steps: int = 2
    horizon: int = 16
    n_action_steps: int = 8
    drop_n_last_frames: int = 7
    vision_backbone: str = "resnet18"
    resize_shape: tuple[int, int] | None = None
    crop_ratio: float = 1.0
    crop_shape: tuple[int, int] | None = None
    crop_is_random: bool = True
    use_group_norm: bool = True
    spatial_softmax_num_keypoints: int = 32
    use_separate_rgb_encoder_per_camera: bool = False
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True
    noise_scheduler_type: str = "DDPM"
    num_train_timesteps: int = 100
    beta_schedule: str = "squaredcos_cap_v2"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"
    clip_sample: bool = True
    clip_sample_range: float = 1.0
    num_inference_steps: int | None = None
    do_mask_loss_for_padding: bool = False
    optimizer_betas: tuple[float, float] = (0.95, 0.999)
    optimizer_eps: float = 1e-8
    scheduler_name: str = "cosine"
    scheduler_warmup_steps: int = 500

    def __post_init__(self) -> None:
        """Check the combinations that the U-Net allows and derive the crop."""
        super().__post_init__()
        self.require_choice("noise_scheduler_type", ("DDPM", "DDIM"))
        self.require_choice("prediction_type", ("epsilon", "sample"))
        self.require_choice("beta_schedule", ("linear", "scaled_linear", "squaredcos_cap_v2"))
        self.require_positive("num_train_timesteps", "horizon", "diffusion_step_embed_dim")
        self.require_observation()
        if not self.state_dim:
            raise self.error("input_features", list(self.input_features), "observation.state")
        self._check_time()
        self._check_images()

    def _check_time(self) -> None:
        steps = self.num_inference_steps
        if steps is not None and not 0 < steps <= self.num_train_timesteps:
            raise self.error("num_inference_steps", steps, f"1..{self.num_train_timesteps}")
        if self.n_action_steps > self.horizon - self.n_obs_steps + 1:
            raise self.error("n_action_steps", self.n_action_steps, "<= horizon - n_obs_steps + 1")
        factor = 2 ** len(self.down_dims)
        if self.horizon % factor:
            raise self.error("horizon", self.horizon, f"a multiple of {factor} (2^len(down_dims))")

    def _check_images(self) -> None:
        if not 0.0 < self.crop_ratio <= 1.0:
            raise self.error("crop_ratio", self.crop_ratio, "a fraction in (0, 1]")
        if self.resize_shape is not None:
            height, width = self.resize_shape
            ratio = self.crop_ratio
            crop = (int(height * ratio), int(width * ratio)) if ratio < 1.0 else None
            object.__setattr__(self, "crop_shape", crop)
        shapes = set(self.cameras.values())
        if len(shapes) > 1:
            raise self.error("input_features", sorted(shapes), "one shape for all cameras")
        source = self.resize_shape or (next(iter(shapes))[1:] if shapes else None)
        crop = self.crop_shape
        if source and crop and (crop[0] > source[0] or crop[1] > source[1]):
            raise self.error("crop_shape", crop, f"no larger than the image {source}")

    @property
    def horizon_steps(self) -> int:
        """Steps of the denoised sequence."""
        return self.horizon

    @property
    def first_action_offset(self) -> int:
        """The horizon starts at the oldest observation."""
        return 1 - self.n_obs_steps

    @property
    def encoded_image_shape(self) -> tuple[int, int] | None:
        """Height and width that enter the backbone, None without cameras."""
        if not self.cameras:
            return None
        height, width = (
            self.crop_shape or self.resize_shape or next(iter(self.cameras.values()))[1:]
        )
        return (height, width)
