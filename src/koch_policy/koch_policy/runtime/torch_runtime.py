# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The torch engine: folded batch norm, channels-last images, optional bfloat16 and compile."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.memory import keep_freed_memory
from koch_policy.models.registry import IterativeModel, iterative_model, policy_model
from koch_policy.models.resnet import fold_batch_norm


def prepare_image(image: Tensor, device: torch.device) -> Tensor:
    """Return (1, 3, H, W) float32 in 0..1 of uint8 (H, W, 3) or of float32 (3, H, W).

    A uint8 image is moved first, which is a quarter of the bytes, and stays channels-last.
    """
    moved = image.to(device)
    if moved.dtype == torch.uint8:
        return moved.permute(2, 0, 1).unsqueeze(0).float().div_(255.0)
    return moved.unsqueeze(0)


class TorchEngine:
    """Runs a copy of the checkpoint's network on the CPU or a GPU.

    Args:
        checkpoint: What to run.
        device: Where.
        precision: "f32" or "bf16" (autocast).
        compiles: Use torch.compile; the first call then takes minutes.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        device: torch.device,
        precision: str = "f32",
        compiles: bool = False,
    ) -> None:
        if device.type == "cpu":
            keep_freed_memory()  # each chunk would wait for the kernel's zeros
        self.name = f"torch-{device.type}-{precision}" + ("-compiled" if compiles else "")
        self._device = device
        self._amp = precision == "bf16"
        model = copy.deepcopy(checkpoint.model).eval().requires_grad_(requires_grad=False)
        fold_batch_norm(model)
        self._model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._iterative = iterative_model(self._model)
        self._cameras = list(checkpoint.config.cameras)
        self._normalizer = checkpoint.normalizer
        self._maps = {
            key: affine.to(device)
            for key, affine in checkpoint.normalizer.maps.items()
            if key in self._cameras
        }
        if compiles:
            self._compile()

    def _compile(self) -> None:
        mode = "reduce-overhead" if self._device.type == "cuda" else "default"
        if self._iterative is None:
            self._model = cast("nn.Module", torch.compile(self._model, mode=mode))
        else:
            for name in ("camera_features", "condition_from", "evaluate"):
                function = getattr(self._model, name)
                setattr(self._model, name, torch.compile(function, mode=mode))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._amp)

    def _moved(self, vectors: dict[str, Tensor]) -> dict[str, Tensor]:
        return {key: value.to(self._device) for key, value in vectors.items()}

    def _image(self, index: int, image: Tensor) -> Tensor:
        key = self._cameras[index]
        image = prepare_image(image, self._device)
        affine = self._maps.get(key)
        return image if affine is None else image * affine.scale + affine.shift

    def chunk(self, vectors: dict[str, Tensor], images: list[Tensor]) -> Tensor:
        """Run a single-shot policy: normalised horizon (1, T, A)."""
        return self.chunks(vectors, [images])

    def chunks(self, vectors: dict[str, Tensor], images: Sequence[Sequence[Tensor]]) -> Tensor:
        """Run a single-shot policy on B observations: normalised horizons (B, T, A)."""
        batch = self._moved(vectors)
        for index, key in enumerate(self._cameras):
            batch[key] = torch.cat([self._image(index, each[index]) for each in images])
        with self._autocast():
            return policy_model(self._model)(batch).float().cpu()

    @property
    def iterative(self) -> IterativeModel:
        """The network of an iterative policy, for callers that differentiate through it."""
        assert self._iterative is not None  # asked of iterative policies only
        return self._iterative

    def cameras(self, images: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """Encode some (camera, image) pairs."""
        with self._autocast():
            return [
                self.iterative.camera_features(index, self._image(index, image))
                for index, image in images
            ]

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return an iterative policy's condition, on the device."""
        with self._autocast():
            return self.iterative.condition_from(self._moved(vectors), features)

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Evaluate an iterative policy's network; the result is where `noisy` is."""
        with self._autocast():
            out = self.iterative.evaluate(noisy.to(self._device), time.to(self._device), condition)
        return out.float().to(noisy.device)
