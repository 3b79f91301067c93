# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The OpenVINO engine for CPUs: networks are exported once and kept next to the checkpoint.

Exported parts: `chunk` of single-shot policies; `camera_<i>`, `condition` and `evaluate` of
iterative ones, so that the observation is encoded once for all denoising steps. In f32 and bf16
ACT's backbone is computed by `native` where that can be, and `chunk` begins with its features.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from koch_policy.checkpoint import Checkpoint
from koch_policy.errors import RuntimeChoiceError
from koch_policy.files import write_folder
from koch_policy.models.registry import iterative_model, policy_model
from koch_policy.models.resnet import fold_batch_norm
from koch_policy.normalize import Affine
from koch_policy.policy import Observation
from koch_policy.runtime.cache import cache_root, export_key
from koch_policy.runtime.calibration import (
    Calibration,
    measure_action_error,
    read_action_error,
    sample_observations,
)
from koch_policy.runtime.native import native_backbone
from koch_policy.runtime.openvino_graph import compiled

try:
    import openvino as ov
except ImportError as exc:
    raise RuntimeChoiceError(
        "openvino", "the package is not installed", "Run `pip install openvino`."
    ) from exc

_EXPORT = "6"  # raise it when the exported graphs change


class _Picture(nn.Module):
    """(1, H, W, 3) in 0..255 to the network's normalised (1, 3, H, W)."""

    def __init__(self, affine: Affine | None) -> None:
        super().__init__()
        one, zero = torch.ones(3, 1, 1), torch.zeros(3, 1, 1)
        self.register_buffer("scale", (affine.scale if affine else one) / 255.0)
        self.register_buffer("shift", affine.shift if affine else zero)

    scale: Tensor
    shift: Tensor

    def forward(self, picture: Tensor) -> Tensor:
        return picture.permute(0, 3, 1, 2) * self.scale + self.shift


class _Chunk(nn.Module):
    """A single-shot policy with its pictures' scaling; arguments are vectors, then pictures."""

    def __init__(
        self, model: nn.Module, keys: Sequence[str], pictures: Sequence[nn.Module]
    ) -> None:
        super().__init__()
        self.model = model
        self.keys = list(keys)
        self.pictures = nn.ModuleList(pictures)

    def forward(self, *values: Tensor) -> Tensor:
        batch = dict(zip(self.keys, values, strict=True))
        first = len(self.keys) - len(self.pictures)
        for key, scale in zip(self.keys[first:], self.pictures, strict=True):
            batch[key] = scale(batch[key])
        return policy_model(self.model)(batch)


class _Camera(nn.Module):
    """One camera's encoder with its scaling."""

    def __init__(self, model: nn.Module, index: int, picture: _Picture) -> None:
        super().__init__()
        self.model = model
        self.index = index
        self.picture = picture

    def forward(self, picture: Tensor) -> Tensor:
        network = iterative_model(self.model)
        assert network is not None
        return network.camera_features(self.index, self.picture(picture))


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


class OpenVinoEngine:
    """Runs a checkpoint's network with OpenVINO on the CPU.

    Args:
        checkpoint: What to run.
        precision: "f32", "bf16", or "int8" (convolutions and large matrix products).
        calibration: For int8, when it was not exported before: observations of the dataset, or
            its folder.

    Attributes:
        action_error: Of int8: what it costs, None for the others.

    Raises:
        RuntimeChoiceError: int8 was asked for without calibration observations.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        precision: str = "f32",
        calibration: Calibration = None,
    ) -> None:
        self.name = f"openvino-{precision}"
        self._checkpoint = checkpoint
        self._precision = precision
        self._cameras = list(checkpoint.config.cameras)
        self._iterative = iterative_model(checkpoint.model)
        self._keys: list[str] = []
        self._core = ov.Core()
        self._backbone = None
        if self._iterative is None and precision != "int8":
            self._backbone = native_backbone(checkpoint, precision, torch.get_num_threads())
        self._graphs: dict[str, Any] = {}
        self._folder = self._exported(calibration)
        self.action_error = read_action_error(self._folder) if precision == "int8" else None

    # -- export ---------------------------------------------------------------------------------

    def _exported(self, calibration: Calibration) -> Path:
        """Return the folder of the exported graphs, making it if needed."""
        kind = "int8" if self._precision == "int8" else "float"
        start = "pictures" if self._backbone is None else "features"
        key = export_key(self._checkpoint, _EXPORT, kind, start, str(ov.__version__))
        folder = cache_root(self._checkpoint) / key
        if not (folder / "whole").is_file():
            frames = self._frames(calibration) if kind == "int8" else []
            models = self._export()
            if kind == "int8":
                self._quantize(models, frames)
            with write_folder(folder) as temporary:
                for name, model in models.items():
                    ov.save_model(model, temporary / f"{name}.xml", compress_to_fp16=False)
                if kind == "int8":
                    self._folder = temporary
                    measure_action_error(self._checkpoint, self, frames).write(temporary)
                    self._graphs.clear()  # they read from the folder that is renamed now
                (temporary / "whole").write_text("")
        return folder

    def _frames(self, calibration: Calibration) -> Sequence[Observation]:
        """Return the observations to calibrate with, read from the dataset where it is named."""
        if isinstance(calibration, str | Path):
            calibration = sample_observations(Path(calibration), self._checkpoint)
        if not calibration:
            raise RuntimeChoiceError(
                "openvino int8",
                "needs observations of the dataset to find the value ranges",
                "Name the dataset's folder in `calibration`, or take f32 or bf16.",
            )
        return calibration

    def _export(self) -> dict[str, Any]:
        """Convert every part of the network, for one observation at a time."""
        from koch_policy.runtime.base import EnginePolicy, example_observation
        from koch_policy.runtime.torch_runtime import TorchEngine

        checkpoint = self._checkpoint
        recorder = _Recorder(TorchEngine(checkpoint, device=torch.device("cpu")))
        policy = EnginePolicy(checkpoint, recorder)
        policy.set_steps(1)
        policy.predict(example_observation(checkpoint))
        model = copy.deepcopy(checkpoint.model).eval().requires_grad_(requires_grad=False)
        fold_batch_norm(model)
        maps = checkpoint.normalizer.maps
        pictures = [_Picture(maps.get(key)) for key in self._cameras]
        samples = recorder.samples
        modules: dict[str, nn.Module] = {}
        if self._iterative is None:
            keys = [*recorder.vector_keys, *self._cameras]
            scales: list[nn.Module] = [*pictures]
            if self._backbone is not None:
                samples["chunk"] = self._after_backbone(samples["chunk"])
                scales = [nn.Identity() for _ in pictures]
                model.backbone = nn.Identity()
            modules["chunk"] = _Chunk(model, keys, scales)
        else:
            for index, picture in enumerate(pictures):
                modules[f"camera_{index}"] = _Camera(model, index, picture)
            modules["condition"] = _Condition(model, recorder.vector_keys)
            modules["evaluate"] = _Evaluate(model)
        with torch.no_grad():
            return {name: _converted(module, samples[name]) for name, module in modules.items()}

    def _quantize(self, models: dict[str, Any], calibration: Sequence[Observation]) -> None:
        """Replace the graphs by int8 ones, with ranges measured on the calibration data."""
        from koch_policy.runtime.base import EnginePolicy
        from koch_policy.runtime.quantize import quantize
        from koch_policy.runtime.torch_runtime import TorchEngine

        recorder = _Recorder(TorchEngine(self._checkpoint, device=torch.device("cpu")), keep=True)
        policy = EnginePolicy(self._checkpoint, recorder)
        for observation in calibration:
            policy.predict(observation)
        for name, model in models.items():
            quantize(model, recorder.calls[name])

    # -- running --------------------------------------------------------------------------------

    def _graph(self, name: str) -> Any:
        """Return a compiled part, compiling it at the first use (which warm-up is)."""
        if name not in self._graphs:
            model = self._core.read_model(self._folder / f"{name}.xml")
            graph = compiled(self._core, model, self._hint())
            self._graphs[name] = graph.create_infer_request()
        return self._graphs[name]

    def _hint(self) -> str:
        """Precision of what is not quantised."""
        able = self._core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return "bf16" if self._precision != "f32" and "BF16" in able else "f32"

    def _run(self, name: str, values: Sequence[NDArray[Any]]) -> Tensor:
        request = self._graph(name)
        for index, value in enumerate(values):
            request.set_input_tensor(index, ov.Tensor(np.ascontiguousarray(value)))
        request.infer()
        return torch.from_numpy(np.array(request.get_output_tensor(0).data))

    def chunk(self, vectors: dict[str, Tensor], pictures: list[Tensor]) -> Tensor:
        """Run a single-shot policy: normalised horizon (1, T, A)."""
        values = [value.numpy() for value in vectors.values()]
        if self._backbone is None:
            return self._run("chunk", [*values, *(picture_values(p) for p in pictures)])
        uint8 = torch.uint8
        raw = [p.numpy() if p.dtype == uint8 else picture_values(p)[0] for p in pictures]
        return self._run("chunk", [*values, *self._features(raw)])

    def _features(self, pictures: Sequence[NDArray[Any]]) -> list[NDArray[np.float32]]:
        """Return the backbone's features, (1, C, h, w) each, of pictures (H, W, 3) in 0..255."""
        assert self._backbone is not None  # callers checked
        features = self._backbone(pictures)  # (N, h, w, C)
        return [np.ascontiguousarray(each.transpose(2, 0, 1)[None]) for each in features]

    def _after_backbone(self, values: list[NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the arguments of `chunk` with features for pictures (1, H, W, 3)."""
        first = len(values) - len(self._cameras)
        return [*values[:first], *self._features([value[0] for value in values[first:]])]

    def camera(self, index: int, picture: Tensor) -> Tensor:
        """Encode one picture of one camera."""
        return self._run(f"camera_{index}", [picture_values(picture)])

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return an iterative policy's condition."""
        return self._run("condition", [v.numpy() for v in (*vectors.values(), *features)])

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Evaluate an iterative policy's network."""
        return self._run("evaluate", [noisy.numpy(), time.numpy(), condition.numpy()])


def picture_values(picture: Tensor) -> NDArray[np.float32]:
    """Return (1, H, W, 3) float32 in 0..255 of uint8 (H, W, 3) or of float32 (3, H, W) in 0..1."""
    if picture.dtype == torch.uint8:
        return picture.numpy().astype(np.float32)[None]
    values: NDArray[np.float32] = picture.permute(1, 2, 0).mul(255.0).numpy()[None]
    return values


def _converted(module: nn.Module, example: Sequence[NDArray[Any]]) -> Any:
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


class _Recorder:
    """Passes calls on to an engine and keeps the arguments that each exported part would get."""

    def __init__(self, inner: Any, *, keep: bool = False) -> None:
        self.name = "recorder"
        self._inner = inner
        self._keep = keep
        self.samples: dict[str, list[NDArray[Any]]] = {}
        self.calls: dict[str, list[list[NDArray[Any]]]] = {}
        self.vector_keys: list[str] = []

    def _note(self, name: str, values: list[NDArray[Any]]) -> None:
        self.samples.setdefault(name, values)
        if self._keep:
            self.calls.setdefault(name, []).append(values)

    def chunk(self, vectors: dict[str, Tensor], pictures: list[Tensor]) -> Tensor:
        self.vector_keys = list(vectors)
        values = [value.numpy() for value in vectors.values()]
        self._note("chunk", [*values, *(picture_values(p) for p in pictures)])
        out: Tensor = self._inner.chunk(vectors, pictures)
        return out

    def camera(self, index: int, picture: Tensor) -> Tensor:
        self._note(f"camera_{index}", [picture_values(picture)])
        out: Tensor = self._inner.camera(index, picture)
        return out

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        self.vector_keys = list(vectors)
        self._note("condition", [value.numpy() for value in (*vectors.values(), *features)])
        out: Tensor = self._inner.condition(vectors, features)
        return out

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        self._note("evaluate", [noisy.numpy(), time.numpy(), condition.numpy()])
        out: Tensor = self._inner.evaluate(noisy, time, condition)
        return out
