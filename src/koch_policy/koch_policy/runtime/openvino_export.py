# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Conversion of a policy's network into OpenVINO graphs.

Parts: `chunk` of single-shot policies; `camera_<i>`, `condition` and `evaluate` of iterative ones,
so that the observation is encoded once for all denoising steps. What modulates a U-Net is a sum:
`condition` has the observation's share, `step` that of the denoising step, `evaluate` takes both.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.models.diffusion import Unet, modulated_unet
from koch_policy.models.positions import diffusion_step_embedding
from koch_policy.models.registry import iterative_model, policy_model
from koch_policy.models.resnet import fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.policy import Observation
from koch_policy.runtime.backbones import Backbones, leave_out_backbones, widened
from koch_policy.runtime.base import Engine, EnginePolicy, example_observation
from koch_policy.runtime.quantize import quantize
from koch_policy.runtime.torch_runtime import TorchEngine

Values = list[NDArray[Any]]
"""Arguments of one call of a part."""


class _Image(nn.Module):
    """(1, H, W, 3) in 0..255 to the network's normalised (1, 3, H, W)."""

    def __init__(self, affine: Affine | None) -> None:
        super().__init__()
        one, zero = torch.ones(3, 1, 1), torch.zeros(3, 1, 1)
        self.register_buffer("scale", (affine.scale if affine else one) / 255.0)
        self.register_buffer("shift", affine.shift if affine else zero)

    scale: Tensor
    shift: Tensor

    def forward(self, image: Tensor) -> Tensor:
        return image.permute(0, 3, 1, 2) * self.scale + self.shift


class _Chunk(nn.Module):
    """A single-shot policy with its images' scaling; arguments are vectors, then images."""

    def __init__(self, model: nn.Module, keys: Sequence[str], images: Sequence[nn.Module]) -> None:
        super().__init__()
        self.model = model
        self.keys = list(keys)
        self.images = nn.ModuleList(images)

    def forward(self, *values: Tensor) -> Tensor:
        batch = dict(zip(self.keys, values, strict=True))
        first = len(self.keys) - len(self.images)
        for key, scale in zip(self.keys[first:], self.images, strict=True):
            batch[key] = scale(batch[key])
        return policy_model(self.model)(batch)


class _CameraEncoder(nn.Module):
    """One camera's encoder with its scaling."""

    def __init__(self, model: nn.Module, index: int, image: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.index = index
        self.image = image

    def forward(self, image: Tensor) -> Tensor:
        network = iterative_model(self.model)
        assert network is not None
        return network.camera_features(self.index, self.image(image))


class _Condition(nn.Module):
    """Vectors, then camera features, to the condition."""

    def __init__(self, model: nn.Module, keys: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.keys = list(keys)

    def forward(self, *values: Tensor) -> Tensor:
        network = iterative_model(self.model)
        assert network is not None
        count = len(self.keys)
        batch = dict(zip(self.keys, values[:count], strict=True))
        return network.condition_from(batch, list(values[count:]))


class _Evaluate(nn.Module):
    """One evaluation of the denoiser or velocity field."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        network = iterative_model(self.model)
        assert network is not None
        return network.evaluate(noisy, time, condition)


class _Films(nn.Module):
    """What modulates the blocks of a U-Net, side by side (B, W): one product less per step.

    cond_encoder(step, condition) = weight_step mish(step) + (weight_condition mish(condition) + b)
    """

    def __init__(self, unet: Unet) -> None:
        super().__init__()
        layers: list[Any] = [block.cond_encoder[1] for block in unet.blocks()]
        weight = torch.cat([layer.weight for layer in layers])  # (W, step_dim + C)
        size = unet.step_dim
        self.widths = [int(layer.out_features) for layer in layers]
        self.unet = unet
        self.step_weight = nn.Parameter(weight[:, :size].contiguous())
        self.condition_weight = nn.Parameter(weight[:, size:].contiguous())
        self.bias = nn.Parameter(torch.cat([layer.bias for layer in layers]))

    def of_step(self, time: Tensor) -> Tensor:
        embedding = diffusion_step_embedding(time, self.unet.step_dim)
        return F.linear(F.mish(self.unet.diffusion_step_encoder(embedding)), self.step_weight)

    def of_condition(self, condition: Tensor) -> Tensor:
        return F.linear(F.mish(condition), self.condition_weight, self.bias)

    def forward(self, noisy: Tensor, films: Tensor) -> Tensor:
        """Evaluate the U-Net with the sum of both."""
        parts = torch.split(films.unsqueeze(-1), self.widths, dim=1)  # (B, width, 1) each
        return self.unet.denoise(noisy, list(parts))


class _FilmsOfCondition(nn.Module):
    """A function of a module's output."""

    def __init__(self, first: nn.Module, films: _Films) -> None:
        super().__init__()
        self.first = first
        self.films = films

    def forward(self, *values: Tensor) -> Tensor:
        return self.films.of_condition(self.first(*values))


class _FilmsOfStep(nn.Module):
    """A denoising step's share of the films."""

    def __init__(self, films: _Films) -> None:
        super().__init__()
        self.films = films

    def forward(self, time: Tensor) -> Tensor:
        return self.films.of_step(time)


@dataclass(frozen=True)
class _Part:
    """A network to convert, and arguments that it is called with."""

    module: nn.Module
    calls: list[Values]
    can_be_int8: bool = True


def export(
    checkpoint: Checkpoint, backbones: Backbones | None, frames: Sequence[Observation] = ()
) -> dict[str, Any]:
    """Convert every part of a policy's network, for one observation at a time.

    Args:
        checkpoint: The policy.
        backbones: Its parts then take their features for images.
        frames: Observations to quantise with; without any, the graphs are float32.
    """
    recorder = CallTracer(TorchEngine(checkpoint, device=torch.device("cpu")))
    policy = EnginePolicy(checkpoint, recorder)
    if not frames:
        policy.set_steps(1)
    for observation in frames or [example_observation(checkpoint)]:
        policy.predict(observation)
    graphs = {}
    with torch.no_grad():
        for name, part in _parts(checkpoint, backbones, recorder).items():
            graphs[name] = _converted(part.module, part.calls[0])
            if frames and part.can_be_int8:
                quantize(graphs[name], part.calls)
    return graphs


def _parts(
    checkpoint: Checkpoint, backbones: Backbones | None, recorder: CallTracer
) -> dict[str, _Part]:
    model = copy.deepcopy(checkpoint.model).eval().requires_grad_(requires_grad=False)
    fold_batch_norm(model)
    cameras, calls = list(checkpoint.config.cameras), recorder.calls
    scales: list[nn.Module] = [_Image(checkpoint.normalizer.maps.get(key)) for key in cameras]
    if backbones is not None:
        leave_out_backbones(model)
        scales = [nn.Identity() for _ in cameras]
        calls = _after_backbones(calls, backbones)
    if iterative_model(model) is None:
        module = _Chunk(model, [*recorder.vector_keys, *cameras], scales)
        return {"chunk": _Part(module, calls["chunk"])}
    parts = {
        name: _Part(_CameraEncoder(model, index, scale), calls[name])
        for index, scale in enumerate(scales)
        for name in [f"camera_{index}"]
    }
    condition = _Condition(model, recorder.vector_keys)
    unet = modulated_unet(model)
    if unet is None:
        return parts | {
            "condition": _Part(condition, calls["condition"]),
            "evaluate": _Part(_Evaluate(model), calls["evaluate"]),
        }
    films = _Films(unet)
    evaluations = []
    for noisy, time, known in calls["evaluate"]:
        both = films.of_step(torch.from_numpy(time)) + films.of_condition(torch.from_numpy(known))
        evaluations.append([noisy, both.numpy()])
    times = [[time] for _, time, _ in calls["evaluate"]]
    return parts | {  # films are computed once, so that precision costs nothing there
        "condition": _Part(
            _FilmsOfCondition(condition, films), calls["condition"], can_be_int8=False
        ),
        "step": _Part(_FilmsOfStep(films), times, can_be_int8=False),
        "evaluate": _Part(films, evaluations),
    }


def _after_backbones(
    calls: dict[str, list[Values]], backbones: Backbones
) -> dict[str, list[Values]]:
    """Return calls with features (1, h, w, C) for images (1, H, W, 3)."""

    def features(pairs: list[tuple[int, NDArray[Any]]]) -> Values:
        found = backbones([(camera, image[0]) for camera, image in pairs])
        return [widened(each) if each.dtype == np.uint16 else each for each in found]

    count = len(backbones.places)
    result = dict(calls)
    for name, values in calls.items():
        if name == "chunk":
            result[name] = [
                [*call[:-count], *features(list(enumerate(call[-count:])))] for call in values
            ]
        elif name.startswith("camera_"):
            camera = int(name.removeprefix("camera_"))
            result[name] = [features([(camera, call[0])]) for call in values]
    return result


def image_values(image: Tensor) -> NDArray[np.float32]:
    """Return (1, H, W, 3) float32 in 0..255 of uint8 (H, W, 3) or of float32 (3, H, W) in 0..1."""
    if image.dtype == torch.uint8:
        return image.numpy().astype(np.float32)[None]
    values: NDArray[np.float32] = image.permute(1, 2, 0).mul(255.0).numpy()[None]
    return values


def _converted(module: nn.Module, example: Values) -> Any:
    inputs = tuple(torch.from_numpy(value) for value in example)
    module.eval()(*inputs)  # fills the tables of positions, which tracing must find as constants
    with warnings.catch_warnings():
        # shapes become constants on purpose: the graph is for this observation's sizes
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        model = ov.convert_model(module, example_input=inputs)
    for port, value in zip(model.inputs, example, strict=True):
        port.get_node().set_partial_shape(ov.PartialShape(list(value.shape)))
    model.validate_nodes_and_infer_types()
    return model


class CallTracer:
    """Passes calls on to an engine and keeps the arguments that each part would get."""

    def __init__(self, inner: Engine) -> None:
        self.name = "recorder"
        self._inner = inner
        self.calls: dict[str, list[Values]] = {}
        self.vector_keys: list[str] = []

    def _note(self, name: str, *values: NDArray[Any]) -> None:
        self.calls.setdefault(name, []).append(list(values))

    def chunk(self, vectors: dict[str, Tensor], images: list[Tensor]) -> Tensor:
        """Note and pass on."""
        self.vector_keys = list(vectors)
        raw = (image_values(image) for image in images)
        self._note("chunk", *(value.numpy() for value in vectors.values()), *raw)
        return self._inner.chunk(vectors, images)

    def cameras(self, images: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """Note and pass on."""
        for index, image in images:
            self._note(f"camera_{index}", image_values(image))
        return self._inner.cameras(images)

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Note and pass on."""
        self.vector_keys = list(vectors)
        self._note("condition", *(value.numpy() for value in (*vectors.values(), *features)))
        return self._inner.condition(vectors, features)

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Note and pass on."""
        self._note("evaluate", noisy.numpy(), time.numpy(), condition.numpy())
        return self._inner.evaluate(noisy, time, condition)
