# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion Policy: a 1-D U-Net denoises an action sequence given the observations.

References:
    Chi et al. 2023, "Diffusion Policy" (arXiv 2303.04137), section III: training objective
    L = E ||eps - eps_theta(x_t, t, O)||^2 (equation 5), U-Net over time with FiLM conditioning.
    Perez et al. 2017, "FiLM", equation 1: out = gamma(c) * x + beta(c).
    Finn et al. 2015, "Deep Spatial Autoencoders", section V: spatial soft arg-max.
    Janner et al. 2022, "Planning with Diffusion", for the U-Net.

Shapes: B batch, O observation steps, T horizon, A action, S state, C condition, K keypoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.configs import ACTION, ACTION_IS_PAD, ENVIRONMENT, STATE, DiffusionConfig
from koch_policy.models.positions import diffusion_step_embedding
from koch_policy.models.resnet import Norm, ResNet, feature_size
from koch_policy.models.schedule import NoiseSchedule, betas


def make_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """Build the noise schedule that a configuration describes."""
    variance = betas(
        config.beta_schedule, config.num_train_timesteps, config.beta_start, config.beta_end
    )
    return NoiseSchedule(
        signal=torch.cumprod(1.0 - variance, dim=0),
        predicts_sample=config.prediction_type == "sample",
        clip=config.clip_sample_range if config.clip_sample else None,
    )


class SpatialSoftmax(nn.Module):
    """Expected image coordinates, in [-1, 1], of K learned heat maps."""

    def __init__(self, channels: int, height: int, width: int, keypoints: int) -> None:
        super().__init__()
        self.nets = nn.Conv2d(channels, keypoints, 1)
        y, x = torch.meshgrid(
            torch.linspace(-1, 1, height, dtype=torch.float64),
            torch.linspace(-1, 1, width, dtype=torch.float64),
            indexing="ij",
        )
        self.register_buffer("pos_grid", torch.stack((x.flatten(), y.flatten()), 1).float())

    pos_grid: Tensor

    def forward(self, features: Tensor) -> Tensor:
        """Map (B, C, h, w) to x, y of each keypoint, (B, 2 K)."""
        heat = self.nets(features).flatten(2).softmax(dim=-1)  # (B, K, h * w)
        out: Tensor = (heat @ self.pos_grid).flatten(1)
        return out


class RgbEncoder(nn.Module):
    """Resize, crop, ResNet, spatial softmax and one linear layer."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        shape = config.encoded_image_shape
        assert shape is not None  # only built where there are cameras
        norm = Norm.GROUP if config.use_group_norm else Norm.BATCH
        resnet = ResNet(config.vision_backbone, norm)
        self.resize_shape = config.resize_shape
        self.crop_shape = config.crop_shape
        self.crop_is_random = config.crop_is_random
        self.backbone = resnet.as_sequential()
        keypoints = config.spatial_softmax_num_keypoints
        self.pool = SpatialSoftmax(
            resnet.channels, feature_size(shape[0]), feature_size(shape[1]), keypoints
        )
        self.out = nn.Linear(2 * keypoints, 2 * keypoints)

    def crop(self, image: Tensor) -> Tensor:
        """Resize and crop (B, 3, H, W): at random while training, else in the centre."""
        if self.resize_shape is not None:
            image = F.interpolate(image, self.resize_shape, mode="bilinear", antialias=True)
        if self.crop_shape is None:
            return image
        height, width = self.crop_shape
        free_y, free_x = image.shape[-2] - height, image.shape[-1] - width
        if self.training and self.crop_is_random:
            top = int(torch.randint(free_y + 1, (1,)))
            left = int(torch.randint(free_x + 1, (1,)))
        else:
            top, left = round(free_y / 2), round(free_x / 2)
        return image[..., top : top + height, left : left + width]

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 2 K)."""
        out: Tensor = F.relu(self.out(self.pool(self.backbone(self.crop(image)))))
        return out


class ConvBlock(nn.Module):
    """Conv1d, GroupNorm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2),
            nn.GroupNorm(groups, outputs),
            nn.Mish(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T)."""
        out: Tensor = self.block(x)
        return out


class ResidualBlock(nn.Module):
    """Two convolution blocks; the condition scales and shifts the first one's output."""

    def __init__(self, inputs: int, outputs: int, condition: int, config: DiffusionConfig) -> None:
        super().__init__()
        self.has_scale = config.use_film_scale_modulation
        self.conv1 = ConvBlock(inputs, outputs, config.kernel_size, config.n_groups)
        width = outputs * (2 if self.has_scale else 1)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, width))
        self.conv2 = ConvBlock(outputs, outputs, config.kernel_size, config.n_groups)
        self.residual_conv = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, film: Tensor) -> Tensor:
        """Map (B, inputs, T) to (B, outputs, T); `film` is this block's (B, outputs or 2x, 1)."""
        hidden = self.conv1(x)
        if self.has_scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + film
        out: Tensor = self.conv2(hidden) + self.residual_conv(x)
        return out


class Stage(nn.ModuleList):
    """Two residual blocks (0, 1) and a resampling layer (2), in a list for the keys' sake."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        condition: int,
        config: DiffusionConfig,
        resample: nn.Module,
    ) -> None:
        first = ResidualBlock(inputs, outputs, condition, config)
        second = ResidualBlock(outputs, outputs, condition, config)
        super().__init__([first, second, resample])

    def run(self, x: Tensor, film: Iterator[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the features (B, C, T) before and after resampling."""
        x = self[0](x, next(film))
        x = self[1](x, next(film))
        return x, self[2](x)


class Unet(nn.Module):
    """The denoiser."""

    def __init__(self, config: DiffusionConfig, condition: int) -> None:
        super().__init__()
        self.step_dim = config.diffusion_step_embed_dim
        dims = config.down_dims
        self.diffusion_step_encoder = nn.Sequential(
            nn.Identity(),  # the sinusoid's index; it carries no weights
            nn.Linear(self.step_dim, 4 * self.step_dim),
            nn.Mish(),
            nn.Linear(4 * self.step_dim, self.step_dim),
        )
        total = condition + self.step_dim
        self.down_modules = nn.ModuleList()
        for index, (inputs, outputs) in enumerate(
            zip((config.action_dim, *dims), dims, strict=False)
        ):
            last = index == len(dims) - 1
            halve = nn.Identity() if last else nn.Conv1d(outputs, outputs, 3, 2, 1)
            self.down_modules.append(Stage(inputs, outputs, total, config, halve))
        self.mid_modules = nn.ModuleList(
            ResidualBlock(dims[-1], dims[-1], total, config) for _ in range(2)
        )
        self.up_modules = nn.ModuleList(
            Stage(
                2 * inputs, outputs, total, config, nn.ConvTranspose1d(outputs, outputs, 4, 2, 1)
            )
            for inputs, outputs in zip(dims[:0:-1], dims[-2::-1], strict=True)
        )
        self.final_conv = nn.Sequential(
            ConvBlock(dims[0], dims[0], config.kernel_size, groups=8),
            nn.Conv1d(dims[0], config.action_dim, 1),
        )

    def blocks(self) -> list[ResidualBlock]:
        """Return the residual blocks in the order in which `denoise` runs them."""
        stages = [*self.down_modules, self.mid_modules, *self.up_modules]
        return [block for stage in stages for block in list(stage)[:2]]

    def films(self, step: Tensor, condition: Tensor) -> list[Tensor]:
        """Return each block's modulation (B, width, 1) for steps (B,) and condition (B, C)."""
        embedding = self.diffusion_step_encoder(diffusion_step_embedding(step, self.step_dim))
        merged = torch.cat((embedding, condition), dim=-1)  # (B, step_dim + C)
        return [block.cond_encoder(merged).unsqueeze(-1) for block in self.blocks()]

    def denoise(self, noisy: Tensor, films: list[Tensor]) -> Tensor:
        """Return the network's output (B, T, A) for noisy actions (B, T, A)."""
        film = iter(films)
        x = noisy.transpose(1, 2)  # (B, A, T)
        skips: list[Tensor] = []
        for stage in self.down_modules:
            skip, x = cast("Stage", stage).run(x, film)  # (B, C, T), (B, C, T / 2)
            skips.append(skip)
        for block in self.mid_modules:
            x = block(x, next(film))
        for stage in self.up_modules:
            x = torch.cat((x, skips.pop()), dim=1)  # (B, 2 C, T / 2)
            _, x = cast("Stage", stage).run(x, film)
        out: Tensor = self.final_conv(x).transpose(1, 2)  # (B, T, A)
        return out

    def forward(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the output for noisy actions (B, T, A), steps (B,) and condition (B, C)."""
        return self.denoise(noisy, self.films(step, condition))


class ObservationEncoder(nn.Module):
    """Turns the observations of O steps into one condition vector; base of both variants."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        count = len(config.cameras)
        if count and config.use_separate_rgb_encoder_per_camera:
            self.rgb_encoder: nn.Module = nn.ModuleList(RgbEncoder(config) for _ in range(count))
        elif count:
            self.rgb_encoder = RgbEncoder(config)
        self.step_width = (
            config.state_dim
            + config.environment_dim
            + count * 2 * config.spatial_softmax_num_keypoints
        )

    def camera_encoder(self, index: int) -> nn.Module:
        """Return the encoder of one camera."""
        if isinstance(self.rgb_encoder, nn.ModuleList):
            return self.rgb_encoder[index]
        return self.rgb_encoder

    def observe(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the features of each observation step, (B, O, step_width)."""
        state = batch[STATE]  # (B, O, S)
        parts = [state]
        keys = list(self.config.cameras)
        if keys and not self.config.use_separate_rgb_encoder_per_camera:
            stacked = torch.stack([batch[key] for key in keys], dim=2)  # (B, O, cameras, 3, H, W)
            features = self.rgb_encoder(stacked.flatten(0, 2))
            parts.append(features.view(*state.shape[:2], -1))  # (B, O, cameras * 2 K)
        elif keys:
            for index, key in enumerate(keys):
                features = self.camera_encoder(index)(batch[key].flatten(0, 1))
                parts.append(features.view(*state.shape[:2], -1))  # (B, O, 2 K)
        if self.config.environment_dim:
            parts.append(batch[ENVIRONMENT])
        return torch.cat(parts, dim=-1)


class Diffusion(ObservationEncoder):
    """The network; all values in and out are normalised."""

    state_dict_prefix = "diffusion."

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__(config)
        self.schedule = make_schedule(config)
        self.unet = Unet(config, config.n_obs_steps * self.step_width)

    def condition(self, batch: dict[str, Tensor]) -> Tensor:
        """Encode an observation once for all denoising steps, (B, C)."""
        return self.observe(batch).flatten(1)

    def output(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the denoiser's output (B, T, A)."""
        out: Tensor = self.unet(noisy, step, condition)
        return out

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective of a normalised batch and its parts, each a scalar.

        Args:
            batch: observations (B, O, ...), `action` (B, T, A), `action_is_pad` bool (B, T).
        """
        condition = self.condition(batch)
        actions = batch[ACTION]
        noise = torch.randn_like(actions)
        step = torch.randint(
            self.config.num_train_timesteps, actions.shape[:1], device=actions.device
        )
        output = self.output(self.schedule.add_noise(actions, noise, step), step, condition)
        error = (output - self.schedule.target(actions, noise)).square()
        if not self.config.do_mask_loss_for_padding:
            mse = error.mean()
        else:
            valid = ~batch[ACTION_IS_PAD].unsqueeze(-1)  # (B, T, 1)
            mse = (error * valid).sum() / (valid.sum() * error.shape[-1]).clamp_min(1)
        return mse, {"mse": mse.detach()}

    def draw_noise(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Return the start of the reverse process, (B, T, A)."""
        shape = (count, self.config.horizon_steps, self.config.action_dim)
        device = next(self.parameters()).device
        return torch.randn(shape, generator=generator, device=device)

    def sample(
        self,
        condition: Tensor,
        noise: Tensor,
        steps: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Denoise (B, T, A) under a condition; `steps` defaults to the configuration's."""
        count = steps or self.config.num_inference_steps or self.config.num_train_timesteps

        def denoiser(x: Tensor, step: int) -> Tensor:
            return self.output(x, torch.full((len(x),), step, device=x.device), condition)

        stochastic = self.config.noise_scheduler_type == "DDPM"
        return self.schedule.sample(
            denoiser, noise, count, stochastic=stochastic, generator=generator
        )

    def forward(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Return the denoised horizon (B, T, A)."""
        condition = self.condition(batch)
        start = self.draw_noise(len(condition)) if noise is None else noise
        return self.sample(condition, start)
