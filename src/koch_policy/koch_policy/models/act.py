# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""ACT: a transformer that maps one observation to a chunk of actions.

References:
    Zhao et al. 2023, "Learning Fine-Grained Bimanual Manipulation with Low-Cost Hardware"
    (arXiv 2304.13705), section IV and algorithm 1: the network and its training objective.
    Kingma and Welling 2013, "Auto-Encoding Variational Bayes", appendix B: the KL term.

Training encodes the true chunk into a latent z, q(z | a, s) = N(mu, sigma^2); the decoder
reconstructs the chunk from z and the observation:

    L = mean |a - a_hat| + w_kl * sum_j -1/2 (1 + log sigma_j^2 - mu_j^2 - sigma_j^2)

where the first mean runs over the steps inside the episode. At inference z = 0.
Shapes: B batch, T chunk steps, A action, S state, N observation tokens, D width, Z latent.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.configs import ACTION, ACTION_IS_PAD, ENVIRONMENT, STATE, TASK_EMBEDDING
from koch_policy.models.denoiser import mean_over_windows, mean_without_padding
from koch_policy.models.keypoints import KEYPOINTS, KeypointEncoder
from koch_policy.models.positions import sinusoid_1d, sinusoid_2d
from koch_policy.models.registry import register_policy
from koch_policy.models.resnet import Norm, ResNet, each_camera
from koch_policy.models.task import TaskFilm, TaskProjection
from koch_policy.policy_configs import ActConfig


class Attention(nn.Module):
    """Multi-head attention on (B, N, D); parameters named as in torch's MultiheadAttention."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * dim, dim))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * dim))
        self.out_proj = nn.Linear(dim, dim)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None = None
    ) -> Tensor:
        """Attend with query (B, Q, D) over key and value (B, K, D).

        `allowed` is bool (B, 1, 1, K), True where a key may be seen.
        """
        dim = query.shape[-1]
        weights = self.in_proj_weight.chunk(3)
        biases = self.in_proj_bias.chunk(3)
        if query is key:  # self-attention: queries and keys in one multiplication
            q, k = F.linear(
                query, self.in_proj_weight[: 2 * dim], self.in_proj_bias[: 2 * dim]
            ).chunk(2, dim=-1)
        else:
            q, k = F.linear(query, weights[0], biases[0]), F.linear(key, weights[1], biases[1])
        v = F.linear(value, weights[2], biases[2])
        q, k, v = (self._split(x) for x in (q, k, v))  # (B, heads, Q or K, D / heads)
        drop = self.dropout if self.training else 0.0
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, dropout_p=drop)
        merged: Tensor = self.out_proj(out.transpose(1, 2).flatten(2))  # (B, Q, D)
        return merged

    def _split(self, x: Tensor) -> Tensor:
        return x.view(x.shape[0], x.shape[1], self.heads, -1).transpose(1, 2)


class Dropout(nn.Module):
    """Dropout on (B, N, D) whose mask is drawn as (N, B, D), the order of LeRobot's layers.

    The same seed then drops the same values there and here, so that loss curves can be compared.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        """Drop while training."""
        if not self.training or self.probability == 0.0:
            return x
        kept = 1.0 - self.probability
        count, tokens, dim = x.shape
        mask = x.new_empty((tokens, count, dim)).bernoulli_(kept).div_(kept)
        return x * mask.transpose(0, 1)


class Layer(nn.Module):
    """What encoder and decoder layers share: self-attention and feed-forward."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        dim = config.dim_model
        self.pre_norm = config.pre_norm
        self.gelu = config.feedforward_activation == "gelu"
        self.self_attn = Attention(dim, config.n_heads, config.dropout)
        self.linear1 = nn.Linear(dim, config.dim_feedforward)
        self.linear2 = nn.Linear(config.dim_feedforward, dim)
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.drop = Dropout(config.dropout)

    def feed_forward(self, x: Tensor) -> Tensor:
        """Apply the two linear layers to (B, N, D)."""
        hidden = self.linear1(x)
        hidden = F.gelu(hidden) if self.gelu else F.relu(hidden)
        out: Tensor = self.drop(self.linear2(self.drop(hidden)))
        return out


class EncoderLayer(Layer):
    """Self-attention and feed-forward, normalised after (default) or before each."""

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D) with positions (1, N, D); positions enter queries and keys only."""
        y = self.norm1(x) if self.pre_norm else x
        query = y + position
        x = x + self.drop(self.self_attn(query, query, y, allowed))
        if self.pre_norm:
            return x + self.feed_forward(self.norm2(x))
        x = self.norm1(x)
        out: Tensor = self.norm2(x + self.feed_forward(x))
        return out


class DecoderLayer(Layer):
    """Self-attention among the steps, cross-attention to the observation, feed-forward."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__(config)
        self.multihead_attn = Attention(config.dim_model, config.n_heads, config.dropout)
        self.norm3 = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, step: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """Map steps (B, T, D) with embeddings (1, T, D), given memory (B, N, D) and positions."""
        y = self.norm1(x) if self.pre_norm else x
        query = y + step
        x = x + self.drop(self.self_attn(query, query, y))
        if not self.pre_norm:
            x = self.norm1(x)
        y = self.norm2(x) if self.pre_norm else x
        x = x + self.drop(self.multihead_attn(y + step, memory + position, memory))
        if self.pre_norm:
            return x + self.feed_forward(self.norm3(x))
        x = self.norm2(x)
        out: Tensor = self.norm3(x + self.feed_forward(x))
        return out


class Encoder(nn.Module):
    """A stack of encoder layers; a last norm only in the pre-norm variant."""

    def __init__(self, config: ActConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))
        self.norm = nn.LayerNorm(config.dim_model) if config.pre_norm else nn.Identity()

    def forward(self, x: Tensor, position: Tensor, allowed: Tensor | None = None) -> Tensor:
        """Map tokens (B, N, D)."""
        for layer in self.layers:
            x = layer(x, position, allowed)
        out: Tensor = self.norm(x)
        return out


class Decoder(nn.Module):
    """A stack of decoder layers with a last norm."""

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.n_decoder_layers))
        self.norm = nn.LayerNorm(config.dim_model)

    def forward(self, x: Tensor, step: Tensor, memory: Tensor, position: Tensor) -> Tensor:
        """Map steps (B, T, D)."""
        for layer in self.layers:
            x = layer(x, step, memory, position)
        out: Tensor = self.norm(x)
        return out


@register_policy(ActConfig)
class Act(nn.Module):
    """The network; all values in and out are normalised."""

    state_dict_prefix = "model."
    heeds_shares = True
    backbones = ("backbone.",)

    def __init__(self, config: ActConfig) -> None:
        super().__init__()
        self.config = config
        self.kl_fraction = 1.0  # training lets it grow, where train.kl_warmup_steps says so
        dim = config.dim_model
        if config.use_vae:
            self._add_vae_encoder(config)
        self.encoder = Encoder(config, config.n_encoder_layers)
        self.decoder = Decoder(config)
        self.has_keypoints = bool(config.cameras) and config.vision_backbone == KEYPOINTS
        if self.has_keypoints:  # one token per camera
            self.backbone: nn.Module = nn.ModuleList(KeypointEncoder() for _ in config.cameras)
            self.encoder_keypoint_input_proj = nn.Linear(KeypointEncoder.width, dim)
            self.encoder_camera_pos_embed = nn.Embedding(len(config.cameras), dim)
            if config.task_dim:
                self.encoder_task_film = TaskFilm(dim, KeypointEncoder.width)
        elif config.cameras:
            dilate = config.replace_final_stride_with_dilation
            resnet = ResNet(config.vision_backbone, Norm.FROZEN, dilate_last=dilate)
            self.backbone = resnet
            self.encoder_img_feat_input_proj = nn.Conv2d(resnet.channels, dim, 1)
        if config.state_dim:
            self.encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
        if config.environment_dim:
            self.encoder_env_state_input_proj = nn.Linear(config.environment_dim, dim)
        self.encoder_latent_input_proj = nn.Linear(config.latent_dim, dim)
        if config.language is not None:
            self.encoder_task_input_proj = TaskProjection(config.language, dim, is_normed=True)
        inputs = (config.state_dim, config.environment_dim, config.task_dim)
        vectors = 1 + sum(map(bool, inputs))
        self.encoder_1d_feature_pos_embed = nn.Embedding(vectors, dim)
        self.decoder_pos_embed = nn.Embedding(config.chunk_size, dim)
        self.action_head = nn.Linear(dim, config.action_dim)
        for parameter in (*self.encoder.parameters(), *self.decoder.parameters()):
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        self._position_cache: dict[tuple[int, int], Tensor] = {}

    vae_encoder_pos_enc: Tensor

    def _add_vae_encoder(self, config: ActConfig) -> None:
        dim = config.dim_model
        self.vae_encoder = Encoder(config, config.n_vae_encoder_layers)
        self.vae_encoder_cls_embed = nn.Embedding(1, dim)
        if config.state_dim:
            self.vae_encoder_robot_state_input_proj = nn.Linear(config.state_dim, dim)
        self.vae_encoder_action_input_proj = nn.Linear(config.action_dim, dim)
        self.vae_encoder_latent_output_proj = nn.Linear(dim, 2 * config.latent_dim)
        tokens = config.chunk_size + (2 if config.state_dim else 1)
        self.register_buffer("vae_encoder_pos_enc", sinusoid_1d(tokens, dim).unsqueeze(0))

    def camera_encoders(self) -> list[nn.Module]:
        """Return what encodes each camera: one ResNet for all, or key points of its own."""
        cameras = self.config.cameras
        return each_camera(self.backbone, len(cameras)) if cameras else []

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the objective of a normalised batch and its parts, each a scalar.

        Args:
            batch: observation features, `action` (B, T, A) and `action_is_pad` bool (B, T).
        """
        mu, log_var = self.encode_actions(batch) if self.config.use_vae else (None, None)
        latent = None
        if mu is not None and log_var is not None:
            latent = mu + (log_var / 2).exp() * torch.randn_like(mu)  # (B, Z)
        predicted = self.decode(batch, latent)  # (B, T, A)
        l1 = mean_without_padding((batch[ACTION] - predicted).abs(), batch)
        if mu is None or log_var is None:
            return l1, {"l1": l1.detach()}
        kl = (-0.5 * (1 + log_var - mu.square() - log_var.exp())).sum(-1)
        kl = mean_over_windows(kl, batch)
        return l1 + self.kl_fraction * self.config.kl_weight * kl, {
            "l1": l1.detach(),
            "kl": kl.detach(),
        }

    def encode_actions(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return mean and log variance of q(z | a, s), each (B, Z)."""
        actions = batch[ACTION]
        count = actions.shape[0]
        tokens = [self.vae_encoder_cls_embed.weight.expand(count, 1, -1)]  # (B, 1, D)
        if self.config.state_dim:
            tokens.append(self.vae_encoder_robot_state_input_proj(batch[STATE]).unsqueeze(1))
        tokens.append(self.vae_encoder_action_input_proj(actions))  # (B, T, D)
        allowed = F.pad(~batch[ACTION_IS_PAD], (len(tokens) - 1, 0), value=True)
        out = self.vae_encoder(
            torch.cat(tokens, dim=1), self.vae_encoder_pos_enc, allowed[:, None, None, :]
        )
        mu, log_var = self.vae_encoder_latent_output_proj(out[:, 0]).chunk(2, dim=-1)
        return mu, log_var

    def decode(self, batch: dict[str, Tensor], latent: Tensor | None) -> Tensor:
        """Return the chunk (B, T, A) for an observation and a latent (B, Z), None meaning zero."""
        tokens, position = self.observation_tokens(batch, latent)
        memory = self.encoder(tokens, position)  # (B, N, D)
        step = self.decoder_pos_embed.weight.unsqueeze(0)  # (1, T, D)
        start = torch.zeros_like(step).expand(memory.shape[0], -1, -1)
        chunk: Tensor = self.action_head(self.decoder(start, step, memory, position))
        return chunk

    def observation_tokens(
        self, batch: dict[str, Tensor], latent: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return tokens (B, N, D) and positions: latent, state, environment, task, cameras."""
        config = self.config
        first = batch[next(iter(config.cameras), ENVIRONMENT)]
        if latent is None:
            latent = first.new_zeros((first.shape[0], config.latent_dim))
        tokens = [self.encoder_latent_input_proj(latent).unsqueeze(1)]  # (B, 1, D)
        if config.state_dim:
            tokens.append(self.encoder_robot_state_input_proj(batch[STATE]).unsqueeze(1))
        if config.environment_dim:
            tokens.append(self.encoder_env_state_input_proj(batch[ENVIRONMENT]).unsqueeze(1))
        if config.task_dim:
            tokens.append(self.encoder_task_input_proj(batch[TASK_EMBEDDING]).unsqueeze(1))
        positions = [self.encoder_1d_feature_pos_embed.weight]  # (1 to 4, D)
        if self.has_keypoints:
            assert isinstance(self.backbone, nn.ModuleList)
            encoders = zip(config.cameras, self.backbone, strict=True)
            found = [encoder(batch[key]).unsqueeze(1) for key, encoder in encoders]
            if config.task_dim:
                found = self.encoder_task_film.told(tokens[-1][:, 0], found)
            tokens.extend(self.encoder_keypoint_input_proj(points) for points in found)
            positions.append(self.encoder_camera_pos_embed.weight)
            return torch.cat(tokens, dim=1), torch.cat(positions).unsqueeze(0)
        for images in self._image_groups(batch):  # (G * B, 3, H, W)
            features = self.encoder_img_feat_input_proj(self.backbone(images))  # (G * B, D, h, w)
            height, width = int(features.shape[-2]), int(features.shape[-1])
            positions.extend([self._image_position(height, width)] * (len(images) // len(first)))
            pixels = features.flatten(2).transpose(1, 2)  # (G * B, h * w, D)
            tokens.extend(pixels.split(first.shape[0]))
        return torch.cat(tokens, dim=1), torch.cat(positions).unsqueeze(0)

    def _image_groups(self, batch: dict[str, Tensor]) -> list[Tensor]:
        """Stack neighbouring cameras of equal size along the batch: one pass of the backbone."""
        groups: list[list[Tensor]] = []
        for key in self.config.cameras:
            image = batch[key]  # (B, 3, H, W)
            if groups and groups[-1][0].shape == image.shape:
                groups[-1].append(image)
            else:
                groups.append([image])
        return [torch.cat(group) for group in groups]

    def _image_position(self, height: int, width: int) -> Tensor:
        """Return the (h * w, D) position table, computed once per size."""
        table = self._position_cache.get((height, width))
        device = self.decoder_pos_embed.weight.device
        if table is None or table.device != device:
            table = sinusoid_2d(height, width, self.config.dim_model).to(device)
            self._position_cache[height, width] = table
        return table

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Return the chunk (B, T, A) that the policy executes: the latent is zero."""
        return self.decode(batch, None)
