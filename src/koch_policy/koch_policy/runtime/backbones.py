# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ResNets of a policy's cameras on `native`: which of them it can run, for which camera."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.models.denoiser import Denoiser, RgbEncoder
from koch_policy.models.resnet import ResNet, fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.runtime.native import NativeResNet, can_run
from koch_policy.runtime.native_library import native_library

Picture = NDArray[Any]
"""(H, W, 3), uint8 or float32 in 0..255."""


class _Window(NamedTuple):
    """The part of a picture that a network sees."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Backbones:
    """Computes features of pictures; those that share a network go through it together.

    Attributes:
        networks: Each distinct one.
        places: Per camera: which of them.
        windows: Per camera: what is cut out of its pictures first.
        maps: Per camera: how its values in 0..1 are scaled.
    """

    networks: list[NativeResNet]
    places: list[int]
    windows: list[_Window]
    maps: list[Affine | None]

    def __call__(self, pictures: Sequence[tuple[int, Picture]]) -> list[NDArray[Any]]:
        """Return features (1, h, w, C) of some (camera, picture) pairs; bfloat16 as uint16."""
        found: dict[int, NDArray[Any]] = {}
        for place, network in enumerate(self.networks):
            mine = [i for i, (camera, _) in enumerate(pictures) if self.places[camera] == place]
            for begin in range(0, len(mine), network.count):
                part = mine[begin : begin + network.count]
                features = network(
                    [self._cut(*pictures[i]) for i in part],
                    [self.maps[pictures[i][0]] for i in part],
                )  # (N, h, w, C)
                for i, one in zip(part, features, strict=True):
                    found[i] = np.ascontiguousarray(one[None])
        return [found[i] for i in range(len(pictures))]

    def _cut(self, camera: int, picture: Picture) -> Picture:
        top, left, height, width = self.windows[camera]
        return picture[top : top + height, left : left + width]


def native_backbones(
    checkpoint: Checkpoint, precision: str, threads: int, *, int8: bool = False
) -> Backbones | None:
    """Return the networks of all cameras, or None where `native` cannot run them.

    Args:
        checkpoint: The policy.
        precision, threads, int8: As for `NativeResNet`.
    """
    config = checkpoint.config
    cameras = list(config.cameras)
    sizes = {config.input_features[key].shape[1:] for key in cameras}
    encoders = _encoders(checkpoint.model, len(cameras))
    if not encoders or len(sizes) != 1:
        return None
    height, width = sizes.pop()
    windows = [_window(encoder, height, width) for encoder in encoders]
    distinct = list({id(encoder): encoder for encoder in encoders}.values())
    folded = [_folded(encoder) for encoder in distinct]
    if None in windows or not all(can_run(each) for each in folded):
        return None
    if native_library(precision) is None:
        return None
    places = [next(i for i, e in enumerate(distinct) if e is encoder) for encoder in encoders]
    known = [window for window in windows if window is not None]
    return Backbones(
        networks=[
            NativeResNet(
                network, places.count(i), known[places.index(i)].height,
                known[places.index(i)].width, precision, threads, int8=int8,
            )
            for i, network in enumerate(folded)
        ],
        places=places,
        windows=known,
        maps=[checkpoint.normalizer.maps.get(key) for key in cameras],
    )  # fmt: skip


class _ChannelsFirst(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2)


def leave_out_backbones(model: nn.Module) -> None:
    """Let a network take features (B, h, w, C) for pictures, in place."""
    if isinstance(model, Denoiser):
        encoder = model.rgb_encoder
        for each in encoder if isinstance(encoder, nn.ModuleList) else [encoder]:
            assert isinstance(each, RgbEncoder)
            each.backbone, each.crop_shape = nn.Sequential(_ChannelsFirst()), None
    else:
        assert isinstance(model.backbone, ResNet)
        model.backbone = nn.Sequential(_ChannelsFirst())


def _encoders(model: nn.Module, count: int) -> list[ResNet | RgbEncoder]:
    """Return what encodes each camera; the same object where cameras share it."""
    found: list[Any]
    if isinstance(model, Denoiser) and count:
        encoder = model.rgb_encoder
        found = list(encoder) if isinstance(encoder, nn.ModuleList) else [encoder] * count
    else:
        found = [getattr(model, "backbone", None)] * count
    return found if all(isinstance(each, ResNet | RgbEncoder) for each in found) else []


def _folded(encoder: ResNet | RgbEncoder) -> nn.Sequential:
    """Return a backbone of its own with batch norms in its convolutions."""
    network = encoder.backbone if isinstance(encoder, RgbEncoder) else encoder.as_sequential()
    network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    fold_batch_norm(network)
    return network


def _window(encoder: ResNet | RgbEncoder, height: int, width: int) -> _Window | None:
    """Return what an encoder sees of a picture; None where it sees a resized one."""
    if isinstance(encoder, ResNet):
        return _Window(0, 0, height, width)
    if encoder.resize_shape is not None:
        return None
    seen = encoder.crop(torch.arange(height * width).view(1, 1, height, width))
    top, left = divmod(int(seen[0, 0, 0, 0]), width)
    return _Window(top, left, int(seen.shape[-2]), int(seen.shape[-1]))
