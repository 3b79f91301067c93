# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What both diffusion policies share: image encoder, training objective, reverse process.

References:
    Chi et al. 2023, "Diffusion Policy" (arXiv 2303.04137), section III, equation 5:
    L = E ||eps - eps_theta(x_t, t, O)||^2.
    Finn et al. 2015, "Deep Spatial Autoencoders", section V: spatial soft arg-max.

Shapes: B batch, O observation steps, T horizon, A action, S state, K keypoints.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.chunks.rtc import Guidance, inpainted
from koch_policy.configs import (
    ACTION,
    ACTION_IS_PAD,
    ACTION_NOISE,
    ACTION_WEIGHT,
    ENVIRONMENT,
    LOSS_SHARE,
    STATE,
    WINDOW_SHARE,
)
from koch_policy.models.keypoints import KEYPOINTS, KeypointRgbEncoder
from koch_policy.models.resnet import Norm, ResNet, each_camera, feature_size
from koch_policy.models.schedule import Evaluate, NoiseSchedule, betas
from koch_policy.policy_configs import DenoisingConfig


def make_schedule(config: DenoisingConfig) -> NoiseSchedule:
    """Build the noise schedule that a configuration describes."""
    variance = betas(
        config.beta_schedule, config.num_train_timesteps, config.beta_start, config.beta_end
    )
    return NoiseSchedule(
        signal=torch.cumprod(1.0 - variance, dim=0),
        predicts_sample=config.prediction_type == "sample",
        clip=config.clip_sample_range if config.clip_sample else None,
    )


def hold_padding(actions: Tensor, is_pad: Tensor) -> Tensor:
    """Return actions (B, T, A) whose padded steps repeat the nearest step that is none.

    Leaving padded steps out of the loss is not enough where a network mixes the steps of a chunk:
    the others would see their values. The data loader, as LeRobot's, fills them in like this.

    Args:
        actions: Normalised actions.
        is_pad: bool (B, T); padding is at the ends of a window.
    """
    steps = torch.arange(actions.shape[1], device=actions.device)
    valid = (~is_pad).int()
    first = valid.argmax(dim=1, keepdim=True)  # (B, 1), the first of several maxima
    last = len(steps) - 1 - valid.flip(1).argmax(dim=1, keepdim=True)
    nearest = torch.minimum(torch.maximum(steps, first), last)  # (B, T)
    return actions.gather(1, nearest.unsqueeze(-1).expand_as(actions))


def mean_without_padding(error: Tensor, batch: dict[str, Tensor], draws: int = 1) -> Tensor:
    """Return the mean of errors over the steps that are no padding, each by its weight.

    Of a part of a step's windows: what the part adds to the mean over all of them.

    Args:
        error: float (B * draws, T, A), the draws of a window behind one another.
        batch: `action_is_pad` bool (B, T), and `action_weight` (B, T) where steps are weighed.
        draws: Noises per window.
    """
    counts = step_weights(batch).unsqueeze(-1).repeat_interleave(draws, dim=0)  # (B * draws, T, 1)
    mean = (error * counts).sum() / (counts.sum() * error.shape[-1]).clamp_min(1)
    return mean * batch[LOSS_SHARE] if LOSS_SHARE in batch else mean


def step_weights(batch: dict[str, Tensor]) -> Tensor:
    """Return what each step of the chunks counts in a loss, (B, T); padding counts nothing."""
    counts = ~batch[ACTION_IS_PAD]
    return counts * batch[ACTION_WEIGHT] if ACTION_WEIGHT in batch else counts


def mean_over_windows(values: Tensor, batch: dict[str, Tensor]) -> Tensor:
    """Return the mean; of a part of a step's windows, what it adds to the mean over all."""
    mean = values.mean()
    return mean * batch[WINDOW_SHARE] if WINDOW_SHARE in batch else mean


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

    def __init__(self, config: DenoisingConfig) -> None:
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
        free_y, free_x = int(image.shape[-2]) - height, int(image.shape[-1]) - width
        if self.training and self.crop_is_random and (free_y or free_x):  # as torchvision draws
            top = int(torch.randint(free_y + 1, (1,)))
            left = int(torch.randint(free_x + 1, (1,)))
        else:
            top, left = round(free_y / 2), round(free_x / 2)
        return image[..., top : top + height, left : left + width]

    def forward(self, image: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 2 K)."""
        out: Tensor = F.relu(self.out(self.pool(self.backbone(self.crop(image)))))
        return out


class Denoiser(nn.Module):
    """Base of both variants: observations to features, and everything about noise.

    A subclass turns features into a condition and evaluates the network under it.
    """

    state_dict_prefix = "diffusion."
    heeds_shares = True
    backbones = ("rgb_encoder.",)

    def __init__(self, config: DenoisingConfig) -> None:
        super().__init__()
        self.config = config
        self.draws = 1  # noises per window of `loss`, under one condition
        self.schedule = make_schedule(config)
        count = len(config.cameras)
        if count and config.vision_backbone == KEYPOINTS:
            width = 2 * config.spatial_softmax_num_keypoints
            self.rgb_encoder: nn.Module = nn.ModuleList(
                KeypointRgbEncoder(width) for _ in range(count)
            )
        elif count and config.use_separate_rgb_encoder_per_camera:
            self.rgb_encoder = nn.ModuleList(RgbEncoder(config) for _ in range(count))
        elif count:
            self.rgb_encoder = RgbEncoder(config)
        self.step_width = (
            config.state_dim
            + config.environment_dim
            + count * 2 * config.spatial_softmax_num_keypoints
        )

    def condition_from(self, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return what stays the same during denoising, given each camera's (B, O, 2 K)."""
        raise NotImplementedError

    def evaluate(self, noisy: Tensor, step: Tensor, condition: Tensor) -> Tensor:
        """Return the network's output (B, T, A) for noisy actions and steps (B,)."""
        raise NotImplementedError

    def camera_encoders(self) -> list[nn.Module]:
        """Return what encodes each camera; the same object where cameras share it."""
        cameras = self.config.cameras
        return each_camera(self.rgb_encoder, len(cameras)) if cameras else []

    def camera_features(self, index: int, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) of one camera to (B, 2 K)."""
        features: Tensor = self.camera_encoders()[index](images)
        return features

    def observe(self, batch: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Join state (B, O, S), camera features (B, O, 2 K) and environment: (B, O, width)."""
        parts = [batch[STATE], *features]
        if self.config.environment_dim:
            parts.append(batch[ENVIRONMENT])
        return torch.cat(parts, dim=-1)

    def condition(self, batch: dict[str, Tensor]) -> Tensor:
        """Encode an observation once for all denoising steps."""
        keys = list(self.config.cameras)
        shape = batch[STATE].shape[:2]  # B, O
        if keys and not isinstance(self.rgb_encoder, nn.ModuleList):  # one pass, one crop
            stacked = torch.cat([batch[key].flatten(0, 1) for key in keys])
            encoded = list(self.camera_features(0, stacked).chunk(len(keys)))
        else:
            encoded = [
                self.camera_features(index, batch[key].flatten(0, 1))
                for index, key in enumerate(keys)
            ]
        return self.condition_from(batch, [part.view(*shape, -1) for part in encoded])

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective of a normalised batch and its parts, each a scalar.

        Args:
            batch: observations (B, O, ...), `action` (B, T, A), `action_is_pad` bool (B, T).
        """
        condition = self.condition(batch).repeat_interleave(self.draws, dim=0)
        actions = hold_padding(batch[ACTION], batch[ACTION_IS_PAD])
        actions = actions.repeat_interleave(self.draws, dim=0)
        noise = torch.randn_like(actions)
        if ACTION_NOISE in batch:  # of a teacher: what one step is to make of this noise
            noise = batch[ACTION_NOISE].repeat_interleave(self.draws, dim=0)
        step = torch.randint(
            self.config.num_train_timesteps, actions.shape[:1], device=actions.device
        )
        output = self.evaluate(self.schedule.add_noise(actions, noise, step), step, condition)
        error = (output - self.schedule.target(actions, noise)).square()
        if not self.config.do_mask_loss_for_padding and ACTION_WEIGHT not in batch:
            mse = mean_over_windows(error, batch)
        else:
            mse = mean_without_padding(error, batch, self.draws)
        return mse, {"mse": mse.detach()}

    def continue_chunk(
        self, evaluate: Evaluate, guidance: Guidance, noise: Tensor, steps: int | None = None
    ) -> Tensor:
        """Denoise like `integrate`, with the old chunk's frozen steps inpainted."""
        first = -self.config.first_action_offset
        return self.integrate(inpainted(evaluate, guidance, self.schedule, first), noise, steps)

    def integrate(self, evaluate: Evaluate, noise: Tensor, steps: int | None = None) -> Tensor:
        """Denoise (B, T, A); `evaluate` is this network under a condition, wherever it runs."""
        count = steps or self.config.num_inference_steps or self.config.num_train_timesteps

        def denoiser(x: Tensor, step: int) -> Tensor:
            return evaluate(x, torch.full((len(x),), step, device=x.device))

        stochastic = self.config.noise_scheduler_type == "DDPM"
        return self.schedule.sample(denoiser, noise, count, stochastic=stochastic)

    def noise_error(self, evaluate: Evaluate, actions: Tensor, noise: Tensor) -> float:
        """Return the mean square of eps_theta - eps for actions (1, T, A) and noise (K, T, A)."""
        config = self.config
        passed = self.schedule.steps(config.num_inference_steps or config.num_train_timesteps)
        errors = []
        for level in range(len(noise)):
            eps = noise[level : level + 1]
            # The steps that sampling passes: an exported U-Net keeps what it computes of each.
            step = passed[::-1][int((level + 0.5) * len(passed) / len(noise))][0]
            at = torch.full((1,), step)
            noisy = self.schedule.add_noise(actions, eps, at)
            _, found = self.schedule.estimate(evaluate(noisy, at), noisy, step)
            errors.append(found - eps)
        return float(torch.cat(errors).square().mean())

    def forward(self, batch: dict[str, Tensor], noise: Tensor | None = None) -> Tensor:
        """Return the denoised horizon (B, T, A)."""
        condition = self.condition(batch)
        actions = (len(batch[STATE]), self.config.horizon_steps, self.config.action_dim)
        start = torch.randn(actions, device=condition.device) if noise is None else noise
        return self.integrate(lambda x, step: self.evaluate(x, step, condition), start)
