# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Starting image backbones from weights trained on ImageNet."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from koch_policy.errors import CheckpointError, WeightsMismatchError
from koch_policy.models.denoiser import RgbEncoder
from koch_policy.models.resnet import ResNet

_SEQUENTIAL = {
    "0": "conv1",
    "1": "bn1",
    "4": "layer1",
    "5": "layer2",
    "6": "layer3",
    "7": "layer4",
}


def load_backbones(model: nn.Module, path: Path) -> None:
    """Load torchvision's ResNet weights, saved as safetensors, into every backbone of a model.

    Raises:
        CheckpointError: The file cannot be read, or the model has no backbone.
        WeightsMismatchError: The file holds another network.
    """
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(path, f"cannot be read ({exc})", "Save it as safetensors.") from exc
    found = False
    for module in model.modules():
        if isinstance(module, ResNet):
            _load(module, tensors, path, {})
            found = True
        elif isinstance(module, RgbEncoder):
            _load(module.backbone, tensors, path, _SEQUENTIAL)
            found = True
    if not found:
        raise CheckpointError(path, "the policy has no image backbone", "Leave it out.")


def _load(
    module: nn.Module, tensors: dict[str, Tensor], path: Path, names: dict[str, str]
) -> None:
    """Fill one backbone; `names` maps its first key parts to torchvision's."""
    own, missing, shapes = {}, [], []
    for key, value in module.state_dict().items():
        first, _, rest = key.partition(".")
        source = f"{names.get(first, first)}.{rest}"
        if source in tensors and tensors[source].shape == value.shape:
            own[key] = tensors[source]
        elif source in tensors:
            shapes.append(source)
        elif not key.endswith("num_batches_tracked"):
            missing.append(source)
    if missing or shapes:
        raise WeightsMismatchError(path, missing, (), shapes)
    module.load_state_dict(own, strict=False)
