# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policies' configurations: shape of the network and defaults of its training.

`act` and `diffusion` are LeRobot's types with LeRobot's fields and (0.4) defaults;
`diffusion_transformer`, `flow` and `fast` are ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

from koch_policy.configs import LanguageInput, NormalizationMode, PolicyConfig
from koch_policy.models.text import TASK_ENCODERS


def _modes(state_and_action: NormalizationMode) -> Mapping[str, NormalizationMode]:
    visual = NormalizationMode.MEAN_STD
    return MappingProxyType(
        {"VISUAL": visual, "STATE": state_and_action, "ACTION": state_and_action}
    )


def _modes_with_environment() -> Mapping[str, NormalizationMode]:
    """LeRobot leaves ENV features unscaled by default; our own policies scale them."""
    modes = dict(_modes(NormalizationMode.MEAN_STD))
    return MappingProxyType({**modes, "ENV": NormalizationMode.MEAN_STD})


@dataclass(frozen=True, kw_only=True)
class ToldConfig(PolicyConfig):
    """What policies share that may be told their task.

    Attributes:
        task_encoder: "none"; "learned" (an embedding per task text of the dataset); "minilm"
            (sentence embeddings, so that new wordings of a task work too); or "minilm_scaled" (the
            same, each element scaled over the training tasks).
        task_dim: Width of the task input: number of tasks when learned, 384 for minilm.
    """

    task_encoder: str = "none"
    task_dim: int = 0

    def __post_init__(self) -> None:
        """Check that encoder and width go together."""
        super().__post_init__()
        self.require_choice("task_encoder", ("none", *TASK_ENCODERS.names()))
        if (self.task_encoder == "none") != (self.task_dim == 0):
            raise self.error("task_dim", self.task_dim, "zero exactly when task_encoder is none")

    @property
    def language(self) -> LanguageInput | None:
        """The task's vector, where there is one."""
        return LanguageInput(self.task_encoder, self.task_dim) if self.task_dim else None


@dataclass(frozen=True, kw_only=True)
class ActConfig(ToldConfig):
    """Action Chunking Transformer (LeRobot type `act`, which no task is told)."""

    type: ClassVar[str] = "act"
    is_single_shot: ClassVar[bool] = True
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
            "chunk_size", "dim_model", "n_heads", "latent_dim", "n_decoder_layers",
            "dim_feedforward",
        )  # fmt: skip
        self.require_within("n_encoder_layers", "n_vae_encoder_layers", "kl_weight")
        self.require_within("optimizer_lr_backbone")
        self.require_within("dropout", below=1)
        self.require_choice("feedforward_activation", ("relu", "gelu"))
        self.require_observation()
        if self.n_obs_steps != 1:
            raise self.error("n_obs_steps", self.n_obs_steps, "1 (ACT sees one observation)")
        if self.n_action_steps > self.chunk_size:
            raise self.error("n_action_steps", self.n_action_steps, f"<= {self.chunk_size}")
        if self.temporal_ensemble_coeff is not None and self.n_action_steps != 1:
            raise self.error("n_action_steps", self.n_action_steps, "1 with temporal ensembling")
        if self.dim_model % self.n_heads:
            raise self.error(
                "dim_model", self.dim_model, f"a multiple of n_heads ({self.n_heads})"
            )
        if self.cameras and self.dim_model % 4:
            raise self.error("dim_model", self.dim_model, "a multiple of 4, as there are cameras")

    @property
    def strategy(self) -> str:
        """Ensembling where LeRobot's field says so."""
        return "blend" if self.temporal_ensemble_coeff is None else "temporal_ensemble"

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.chunk_size


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(PolicyConfig):
    """What both diffusion policies share: observation encoder, noise schedule, time axis."""

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
        """Check the combinations that diffusion allows and derive the crop."""
        super().__post_init__()
        self.require_choice("noise_scheduler_type", ("DDPM", "DDIM"))
        self.require_choice("prediction_type", ("epsilon", "sample"))
        schedules: tuple[str, ...] = ("linear", "scaled_linear", "squaredcos_cap_v2")
        if self.noise_scheduler_type == "DDPM":  # LeRobot's DDIM has no sigmoid
            schedules = (*schedules, "sigmoid")
        self.require_choice("beta_schedule", schedules)
        self.require_positive(
            "num_train_timesteps", "horizon", "spatial_softmax_num_keypoints", "clip_sample_range"
        )
        self.require_within("drop_n_last_frames")
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

    def _check_images(self) -> None:
        if not 0.0 < self.crop_ratio <= 1.0:
            raise self.error("crop_ratio", self.crop_ratio, "a fraction in (0, 1]")
        if self.resize_shape is not None:
            height, width = self.resize_shape
            ratio = self.crop_ratio
            crop = (int(height * ratio), int(width * ratio)) if ratio < 1.0 else None
            object.__setattr__(self, "crop_shape", crop)
        shapes = set(self.cameras.values())
        if len(shapes) > 1 and self.vision_backbone != "keypoints":  # has an encoder per camera
            raise self.error("input_features", sorted(shapes), "one shape for all cameras")
        source = self.resize_shape or (next(iter(shapes))[1:] if shapes else None)
        crop = self.crop_shape
        if self.vision_backbone == "keypoints" and (crop or self.resize_shape):
            raise self.error(
                "crop_shape", crop or self.resize_shape, "none with vision_backbone keypoints",
                "Use train.crops and train.image_size.",
            )  # fmt: skip
        for name in ("crop_shape", "resize_shape"):
            if getattr(self, name) is not None and min(getattr(self, name)) < 1:
                raise self.error(name, getattr(self, name), "a height and width of 1 or more")
        if source and crop and (crop[0] > source[0] or crop[1] > source[1]):
            raise self.error("crop_shape", crop, f"no larger than the image {source}")

    @property
    def horizon_steps(self) -> int:
        """Steps of the denoised sequence."""
        return self.horizon

    @property
    def kept_steps(self) -> int:
        """The executed part alone, as LeRobot cuts it."""
        return self.n_action_steps

    @property
    def first_action_offset(self) -> int:
        """The horizon starts at the oldest observation."""
        return 1 - self.n_obs_steps

    @property
    def has_step_axis(self) -> bool:
        """Always, even for a single observation step, as in LeRobot."""
        return True

    @property
    def encoded_image_shape(self) -> tuple[int, int] | None:
        """Height and width that enter the backbone, None without cameras."""
        if not self.cameras:
            return None
        height, width = (
            self.crop_shape or self.resize_shape or next(iter(self.cameras.values()))[1:]
        )
        return (height, width)


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig(DenoisingConfig):
    """Diffusion Policy with the 1-D U-Net (LeRobot type `diffusion`)."""

    type: ClassVar[str] = "diffusion"
    # LeRobot 0.6 changed these defaults.
    lerobot_ambiguous: ClassVar[tuple[str, ...]] = (
        "horizon", "n_action_steps", "crop_shape", "use_group_norm",
        "use_separate_rgb_encoder_per_camera",
    )  # fmt: skip
    down_dims: tuple[int, ...] = (512, 1024, 2048)
    kernel_size: int = 5
    n_groups: int = 8
    diffusion_step_embed_dim: int = 128
    use_film_scale_modulation: bool = True

    def __post_init__(self) -> None:
        """Check the U-Net's shape."""
        super().__post_init__()
        self.require_positive("diffusion_step_embed_dim", "n_groups", "kernel_size")
        if self.kernel_size % 2 == 0:
            raise self.error("kernel_size", self.kernel_size, "an odd number")
        if self.diffusion_step_embed_dim % 2 or self.diffusion_step_embed_dim < 4:
            got = self.diffusion_step_embed_dim
            raise self.error("diffusion_step_embed_dim", got, "an even number of 4 or more")
        if not self.down_dims:
            raise self.error("down_dims", self.down_dims, "at least one width")
        factor = 2 ** len(self.down_dims)
        if self.horizon % factor:
            raise self.error("horizon", self.horizon, f"a multiple of {factor} (2^len(down_dims))")
        if any(width < 1 or width % self.n_groups for width in self.down_dims):
            raise self.error(
                "down_dims", self.down_dims, f"multiples of n_groups ({self.n_groups})"
            )
        if self.down_dims[0] % 8:  # the last convolution has eight groups, as published
            raise self.error("down_dims", self.down_dims, "a first width that 8 divides")


@dataclass(frozen=True, kw_only=True)
class DiffusionTransformerConfig(DenoisingConfig):
    """Diffusion Policy with a transformer that attends to the observation steps."""

    type: ClassVar[str] = "diffusion_transformer"
    dim_model: int = 256
    n_heads: int = 4
    n_layers: int = 8
    dropout: float = 0.1
    is_causal: bool = True
    optimizer_weight_decay: float = 1e-3

    def __post_init__(self) -> None:
        """Check the transformer's shape."""
        super().__post_init__()
        self.require_positive("dim_model", "n_heads", "n_layers")
        self.require_within("dropout", below=1)
        if self.dim_model % self.n_heads or self.dim_model % 2:
            raise self.error("dim_model", self.dim_model, "a multiple of n_heads and of 2")


@dataclass(frozen=True, kw_only=True)
class PrefixConfig(ToldConfig):
    """What policies share that attend to a cached observation prefix.

    Attributes:
        backbone_norm: "group", "frozen" or "batch".
    """

    chunk_size: int = 50
    n_action_steps: int = 50
    vision_backbone: str = "resnet18"
    backbone_norm: str = "group"
    dim_model: int = 384
    n_heads: int = 6
    dim_head: int = 64
    n_layers: int = 6
    dropout: float = 0.0
    optimizer_lr: float = 1e-4
    optimizer_lr_backbone: float = 5e-5
    optimizer_weight_decay: float = 0.01
    optimizer_betas: tuple[float, float] = (0.9, 0.95)

    def __post_init__(self) -> None:
        """Check the combinations that a prefix allows."""
        super().__post_init__()
        self.require_choice("backbone_norm", ("group", "frozen", "batch"))
        self.require_positive("chunk_size", "n_layers", "n_heads", "dim_model", "dim_head")
        self.require_within("optimizer_lr_backbone")
        self.require_within("dropout", below=1)
        self.require_observation()
        if self.n_obs_steps != 1:
            raise self.error(
                "n_obs_steps", self.n_obs_steps, f"1 ({self.type} sees one observation)"
            )
        if self.n_action_steps > self.chunk_size:
            raise self.error("n_action_steps", self.n_action_steps, f"<= {self.chunk_size}")
        if self.dim_model % 4:
            raise self.error("dim_model", self.dim_model, "a multiple of 4")

    @property
    def horizon_steps(self) -> int:
        """Steps of one chunk."""
        return self.chunk_size


@dataclass(frozen=True, kw_only=True)
class FlowConfig(PrefixConfig):
    """Flow matching with an action expert over a cached observation prefix.

    Attributes:
        guidance_scale: Classifier-free guidance on the task; 1 = off.
        task_dropout: Part of the training windows whose task is hidden, which guidance needs.
        solver: "euler", "midpoint", "heun" or "rk4"; all take num_inference_steps steps.
        time_alpha, time_beta, time_scale, time_offset: Training times are drawn as
            Beta(alpha, beta) * scale + offset; 1 is noise, 0 is data.
    """

    type: ClassVar[str] = "flow"
    normalization_mapping: Mapping[str, NormalizationMode] = field(
        default_factory=_modes_with_environment
    )
    dim_expert: int = 256
    task_dropout: float = 0.1
    guidance_scale: float = 1.0
    num_inference_steps: int = 10
    solver: str = "euler"
    time_alpha: float = 1.5
    time_beta: float = 1.0
    time_scale: float = 0.999
    time_offset: float = 0.001
    min_period: float = 4e-3
    max_period: float = 4.0

    def __post_init__(self) -> None:
        """Check the combinations that the flow policy allows."""
        super().__post_init__()
        self.require_choice("solver", ("euler", "midpoint", "heun", "rk4"))
        self.require_positive(
            "num_inference_steps", "dim_expert", "time_alpha", "time_beta", "time_scale",
            "min_period", "max_period",
        )  # fmt: skip
        self.require_within("task_dropout", "time_offset", below=1)
        if self.time_scale + self.time_offset > 1:
            raise self.error("time_offset", self.time_offset, "<= 1 - time_scale: time ends at 1")
        if self.guidance_scale != 1.0 and self.task_encoder == "none":
            raise self.error("guidance_scale", self.guidance_scale, "1 without a task_encoder")
        if self.dim_expert % 2:
            raise self.error("dim_expert", self.dim_expert, "a multiple of 2")

    @property
    def strategy(self) -> str:
        """Real-time chunking: the velocity field can be guided."""
        return "rtc"


def _modes_for_tokens() -> Mapping[str, NormalizationMode]:
    """Tokens cover -1 to 1: actions are scaled by their range, the rest as elsewhere."""
    return MappingProxyType({**_modes_with_environment(), "ACTION": NormalizationMode.MIN_MAX})


@dataclass(frozen=True, kw_only=True)
class FastConfig(PrefixConfig):
    """Tokens of a chunk, predicted one after the other over a cached observation prefix.

    Attributes:
        tokenizer: "fast", learned from the data; or "bins", one token per element.
        vocabulary: Tokens at most; for "bins" their number.
        token_scale: Of FAST: cosine coefficients are multiplied by it before they are rounded.
    """

    type: ClassVar[str] = "fast"
    is_single_shot: ClassVar[bool] = True  # nothing is sampled that could be guided
    normalization_mapping: Mapping[str, NormalizationMode] = field(
        default_factory=_modes_for_tokens
    )
    tokenizer: str = "fast"
    vocabulary: int = 1024
    token_scale: float = 10.0

    def __post_init__(self) -> None:
        """Check the tokenizer's options."""
        super().__post_init__()
        self.require_choice("tokenizer", ("fast", "bins"))
        self.require_positive("vocabulary", "token_scale")
        if self.normalization_mapping.get("ACTION") is NormalizationMode.IDENTITY:
            raise self.error("normalization_mapping", "ACTION IDENTITY", "actions in -1 to 1")
