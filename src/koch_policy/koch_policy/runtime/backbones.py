# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The ResNets of a policy's cameras on an accelerator: which of them it runs, for which camera."""

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
from koch_policy.models.denoiser import RgbEncoder
from koch_policy.models.resnet import BasicBlock, ResNet, fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.runtime import accelerator
from koch_policy.runtime.accelerator import Accelerator, Network

Image = NDArray[Any]
"""(H, W, 3), uint8 or float32 in 0..255."""

_FIRST_STAGE = 4  # of `ResNet.as_sequential`


class _Scaling(NamedTuple):
    """What becomes of an image's values in 0..1: times `scale` plus `shift`, (3,) each."""

    scale: NDArray[np.float32]
    shift: NDArray[np.float32]


class _Window(NamedTuple):
    """The part of an image that a network sees."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True, eq=False)
class Backbones:
    """Computes features of images; those that share a network go through it together.

    Attributes:
        networks: Each distinct one.
        places: Per camera: which of them.
        windows: Per camera: what is cut out of its images first.
        scalings: Per camera: how its values in 0..1 are scaled.
    """

    networks: list[Network]
    places: list[int]
    windows: list[_Window]
    scalings: list[_Scaling | None]

    def __call__(self, images: Sequence[tuple[int, Image]]) -> list[NDArray[Any]]:
        """Return features (1, h, w, C) of some (camera, image) pairs; bfloat16 as uint16."""
        found: dict[int, NDArray[Any]] = {}
        for place, network in enumerate(self.networks):
            mine = [i for i, (camera, _) in enumerate(images) if self.places[camera] == place]
            for begin in range(0, len(mine), network.count):
                part = mine[begin : begin + network.count]
                features = network(
                    [self._cut(*images[i]) for i in part],
                    [self.scalings[images[i][0]] for i in part],
                )  # (N, h, w, C)
                for i, one in zip(part, features, strict=True):
                    found[i] = np.ascontiguousarray(one[None])
        return [found[i] for i in range(len(images))]

    def _cut(self, camera: int, image: Image) -> Image:
        top, left, height, width = self.windows[camera]
        return image[top : top + height, left : left + width]


def fast_backbones(
    checkpoint: Checkpoint, precision: str, threads: int, *, int8: bool = False
) -> Backbones | None:
    """Return the networks of all cameras on an accelerator, or None where there is none for them.

    Args:
        checkpoint: The policy.
        precision: "f32" or "bf16".
        threads: How many to compute with.
        int8: With "bf16": multiply 8 bits.
    """
    fast = accelerator.find()
    config = checkpoint.config
    cameras = list(config.cameras)
    sizes = {config.input_features[key].shape[1:] for key in cameras}
    encoders = _resnets(checkpoint.model)
    if fast is None or not encoders or len(sizes) != 1:
        return None
    windows = _windows(encoders, *sizes.pop())
    if windows is None:
        return None
    distinct = list({id(encoder): encoder for encoder in encoders}.values())
    places = [next(i for i, e in enumerate(distinct) if e is encoder) for encoder in encoders]
    networks = []
    for i, encoder in enumerate(distinct):
        layers, seen = resnet_layers(_folded(encoder), fast), windows[places.index(i)]
        network = None if layers is None else fast.resnet(
            *layers, count=places.count(i), height=seen.height, width=seen.width,
            precision=precision, threads=threads, int8=int8,
        )  # fmt: skip
        if network is None:
            return None
        networks.append(network)
    scalings = [_scaling(checkpoint.normalizer.maps.get(key)) for key in cameras]
    return Backbones(networks, places, windows, scalings)


def resnet_layers(network: nn.Sequential, fast: Accelerator) -> tuple[Any, list[Any]] | None:
    """Return a network as an accelerator takes it: stem and blocks; None with other blocks.

    Args:
        network: As `ResNet.as_sequential` returns it, with batch norms folded.
        fast: Brings the types.
    """
    found = [block for stage in list(network)[_FIRST_STAGE:] for block in stage.children()]
    blocks = [block for block in found if isinstance(block, BasicBlock)]
    if len(blocks) != len(found):
        return None

    made = []
    for block in blocks:
        down = block.downsample
        shortcut = None if down is None else _convolution(down[0], down[1], fast)
        first = _convolution(block.conv1, block.bn1, fast)
        second = _convolution(block.conv2, block.bn2, fast)
        made.append(fast.Block(first, second, shortcut))
    return _convolution(network[0], network[1], fast), made


def _convolution(conv: nn.Module, norm: nn.Module, fast: Accelerator) -> Any:
    assert isinstance(conv, nn.Conv2d)  # by the network's layout
    group_norm = None
    if isinstance(norm, nn.GroupNorm):
        channels = norm.num_channels // norm.num_groups
        group_norm = fast.GroupNorm(_numbers(norm.weight), _numbers(norm.bias), channels, norm.eps)
    else:
        assert isinstance(norm, nn.Identity)  # a batch norm is folded
    bias = None if conv.bias is None else _numbers(conv.bias)
    weight, pad = _numbers(conv.weight), int(conv.padding[0])
    return fast.Convolution(weight, bias, conv.stride[0], pad, group_norm)


def _numbers(values: Tensor) -> NDArray[np.float32]:
    found: NDArray[np.float32] = values.detach().numpy()
    return found


def _scaling(affine: Affine | None) -> _Scaling | None:
    if affine is None:
        return None
    return _Scaling(affine.scale.numpy().reshape(3), affine.shift.numpy().reshape(3))


def widened(values: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Return bfloat16 features as float32."""
    return (values.astype(np.uint32) << 16).view(np.float32)


class _ChannelsFirst(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return features.permute(0, 3, 1, 2)


def leave_out_backbones(model: nn.Module) -> None:
    """Let a network take features (B, h, w, C) for images, in place."""
    for encoder in _resnets(model):
        if isinstance(encoder, RgbEncoder):
            encoder.backbone, encoder.crop_shape = nn.Sequential(_ChannelsFirst()), None
    for name, child in list(model.named_children()):
        if isinstance(child, ResNet):
            setattr(model, name, nn.Sequential(_ChannelsFirst()))


def _resnets(model: nn.Module) -> list[ResNet | RgbEncoder]:
    """Return each camera's encoder where all are ResNets; the same object where it is shared."""
    encoders: list[Any] = getattr(model, "camera_encoders", list)()
    return encoders if all(isinstance(each, ResNet | RgbEncoder) for each in encoders) else []


def _folded(encoder: ResNet | RgbEncoder) -> nn.Sequential:
    """Return a backbone of its own with batch norms in its convolutions."""
    network = encoder.backbone if isinstance(encoder, RgbEncoder) else encoder.as_sequential()
    network = copy.deepcopy(network).eval().requires_grad_(requires_grad=False)
    fold_batch_norm(network)
    return network


def _windows(
    encoders: Sequence[ResNet | RgbEncoder], height: int, width: int
) -> list[_Window] | None:
    """Return what each encoder sees of an image; None where one sees a resized image."""
    found = [_window(encoder, height, width) for encoder in encoders]
    windows = [window for window in found if window is not None]
    return windows if len(windows) == len(found) else None


def _window(encoder: ResNet | RgbEncoder, height: int, width: int) -> _Window | None:
    """Return what an encoder sees of an image; None where it sees a resized one."""
    if isinstance(encoder, ResNet):
        return _Window(0, 0, height, width)
    if encoder.resize_shape is not None:
        return None
    seen = encoder.crop(torch.arange(height * width).view(1, 1, height, width))
    top, left = divmod(int(seen[0, 0, 0, 0]), width)
    return _Window(top, left, int(seen.shape[-2]), int(seen.shape[-1]))
