# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""ResNet feature extractor, with the parameter names that torchvision's checkpoints use.

Reference: He et al. 2015, "Deep Residual Learning for Image Recognition", table 1 and figure 5.
Batch normalisation can be frozen (fixed affine), trained, or replaced by group normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from koch_policy.errors import ConfigError

_EPS = 1e-5
_LAYOUTS = {  # name: (blocks per stage, has bottleneck)
    "resnet18": ((2, 2, 2, 2), False),
    "resnet34": ((3, 4, 6, 3), False),
    "resnet50": ((3, 4, 6, 3), True),
    "resnet101": ((3, 4, 23, 3), True),
    "resnet152": ((3, 8, 36, 3), True),
}


class Norm(Enum):
    """Kind of normalisation after each convolution."""

    FROZEN = "frozen"
    BATCH = "batch"
    GROUP = "group"


class FrozenBatchNorm2d(nn.Module):
    """Batch normalisation with constant statistics and constant affine parameters."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def affine(self) -> tuple[Tensor, Tensor]:
        """Return the scale and shift, each (C,), that this layer amounts to."""
        scale = self.weight * (self.running_var + _EPS).rsqrt()
        return scale, self.bias - self.running_mean * scale

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Scale and shift each channel of (B, C, H, W)."""
        scale, shift = self.affine()
        return x * scale[:, None, None] + shift[:, None, None]


_BATCH_NORMS = (FrozenBatchNorm2d, nn.BatchNorm2d)


def conv_norm(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a convolution and its normalisation.

    A frozen batch norm is a constant affine map, so it goes into the convolution's weights (the
    gradient still reaches them), which saves two passes over the feature map. The result is new
    and no backward pass needs it, so callers may change it in place.
    """
    if isinstance(norm, FrozenBatchNorm2d) and isinstance(conv, nn.Conv2d):
        scale, shift = norm.affine()
        weight = conv.weight * scale[:, None, None, None]
        return F.conv2d(x, weight, shift, conv.stride, conv.padding, conv.dilation)
    out: Tensor = norm(conv(x))
    return out


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = dilation * (kernel // 2)
    return nn.Conv2d(inputs, outputs, kernel, stride, padding, dilation, bias=False)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (ResNet-18 and -34)."""

    expansion = 1

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        if dilation > 1:
            raise ConfigError(
                "backbone",
                "replace_final_stride_with_dilation",
                True,
                "false with resnet18 and resnet34",
                "Only the bottleneck networks (resnet50 and above) can be dilated.",
            )
        self.conv1 = _conv(inputs, width, 3, stride)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = norm(width)
        self.downsample = _shortcut(inputs, width, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, width, H / stride, W / stride)."""
        out = F.relu_(conv_norm(self.conv1, self.bn1, x))
        out = conv_norm(self.conv2, self.bn2, out)
        down = self.downsample
        short = x if down is None else conv_norm(down[0], down[1], x)
        return F.relu_(out.add_(short))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and a shortcut (ResNet-50 and deeper)."""

    expansion = 4

    def __init__(
        self, inputs: int, width: int, stride: int, dilation: int, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.conv1 = _conv(inputs, width, 1)
        self.bn1 = norm(width)
        self.conv2 = _conv(width, width, 3, stride, dilation)
        self.bn2 = norm(width)
        self.conv3 = _conv(width, width * 4, 1)
        self.bn3 = norm(width * 4)
        self.downsample = _shortcut(inputs, width * 4, stride, norm)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, 4 width, H / stride, W / stride)."""
        out = F.relu_(conv_norm(self.conv1, self.bn1, x))
        out = F.relu_(conv_norm(self.conv2, self.bn2, out))
        out = conv_norm(self.conv3, self.bn3, out)
        down = self.downsample
        short = x if down is None else conv_norm(down[0], down[1], x)
        return F.relu_(out.add_(short))


def _shortcut(
    inputs: int, outputs: int, stride: int, norm: Callable[[int], nn.Module]
) -> nn.Sequential | None:
    if stride == 1 and inputs == outputs:
        return None
    return nn.Sequential(_conv(inputs, outputs, 1, stride), norm(outputs))


def _norm_factory(norm: Norm) -> Callable[[int], nn.Module]:
    if norm is Norm.FROZEN:
        return FrozenBatchNorm2d
    if norm is Norm.BATCH:
        return nn.BatchNorm2d
    return lambda channels: nn.GroupNorm(channels // 16, channels)


class ResNet(nn.Module):
    """The network up to its last feature map; stride 32 (16 with a dilated last stage)."""

    def __init__(self, name: str, norm: Norm, *, dilate_last: bool = False) -> None:
        super().__init__()
        if name not in _LAYOUTS:
            raise ConfigError("backbone", "vision_backbone", name, f"one of {', '.join(_LAYOUTS)}")
        counts, bottleneck = _LAYOUTS[name]
        block: type[BasicBlock] | type[Bottleneck] = Bottleneck if bottleneck else BasicBlock
        make_norm = _norm_factory(norm)
        self.conv1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        self.bn1 = make_norm(64)
        channels = 64
        for stage, count in enumerate(counts):
            dilated = dilate_last and stage == 3
            width = 64 * 2**stage
            blocks: list[nn.Module] = []
            for index in range(count):
                stride = 2 if stage and not index and not dilated else 1
                # As published: the first dilated block still looks at its direct neighbours.
                dilation = 2 if dilated and index else 1
                if dilated and not bottleneck:
                    dilation = 2
                blocks.append(block(channels, width, stride, dilation, make_norm))
                channels = width * block.expansion
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = channels
        self._initialise()

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, channels, ceil(H / 32), ceil(W / 32))."""
        x = F.relu_(conv_norm(self.conv1, self.bn1, x))  # (B, 64, H/2, W/2)
        x = F.max_pool2d(x, 3, 2, 1)  # (B, 64, H/4, W/4)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return x

    def as_sequential(self) -> nn.Sequential:
        """Return the same layers under the indices 0, 1, 4 .. 7 (2 and 3 carry no weights)."""
        pool = nn.MaxPool2d(3, 2, 1)
        return nn.Sequential(
            self.conv1, self.bn1, nn.ReLU(inplace=True), pool,
            self.layer1, self.layer2, self.layer3, self.layer4,
        )  # fmt: skip


def feature_size(size: int, *, dilate_last: bool = False) -> int:
    """Return the length of one side of the last feature map for an image side in pixels."""
    for _ in range(4 if dilate_last else 5):
        size = (size + 1) // 2
    return size


def fold_batch_norm(root: nn.Module) -> None:
    """Merge every (frozen or evaluated) batch norm into the convolution before it, in place."""
    for module in list(root.modules()):
        children = dict(module.named_children())
        names = list(children)
        for first, second in pairwise(names):
            conv, norm = children[first], children[second]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, _BATCH_NORMS):
                setattr(module, first, _folded(conv, norm))
                setattr(module, second, nn.Identity())


def _folded(conv: nn.Conv2d, norm: FrozenBatchNorm2d | nn.BatchNorm2d) -> nn.Conv2d:
    """Return one convolution that equals the pair."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None  # ours always track statistics
    assert var is not None
    scale = norm.weight * (var + _EPS).rsqrt()
    merged = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride,  # type: ignore[arg-type]
        conv.padding, conv.dilation,  # type: ignore[arg-type]
    ).to(conv.weight.device, conv.weight.dtype)  # fmt: skip
    with torch.no_grad():
        merged.weight.copy_(conv.weight * scale[:, None, None, None])
        assert merged.bias is not None
        merged.bias.copy_(norm.bias - mean * scale)
    return merged


def each_camera(encoder: nn.Module, count: int) -> list[nn.Module]:
    """Return the encoder of each camera: its own, or the one that all of them share."""
    return list(encoder) if isinstance(encoder, nn.ModuleList) else [encoder] * count
