# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The OpenVINO engine for CPUs: networks are exported once and kept next to the checkpoint.

Where there is an accelerator it computes the ResNets, and the graphs begin with their features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from koch_policy.checkpoint import Checkpoint
from koch_policy.errors import RuntimeChoiceError
from koch_policy.files import write_folder
from koch_policy.models.diffusion import modulated_unet
from koch_policy.policy import Observation
from koch_policy.runtime.backbones import Backbones, fast_backbones
from koch_policy.runtime.cache import cache_root, export_key
from koch_policy.runtime.calibration import (
    Calibration,
    measure_action_error,
    read_action_error,
    sample_observations,
)
from koch_policy.runtime.openvino_graph import compiled

try:
    import openvino as ov
except ImportError as exc:
    raise RuntimeChoiceError(
        "openvino", "the package is not installed", "Run `pip install openvino`."
    ) from exc

from koch_policy.runtime.openvino_export import export, image_values
from koch_policy.runtime.quantize import has_wide_sums

_EXPORT = "10"  # raise it when the exported graphs change


class OpenVinoEngine:
    """Runs a checkpoint's network with OpenVINO on the CPU.

    Args:
        checkpoint: What to run.
        precision: "f32", "bf16", or "int8" (large matrix products and convolutions).
        calibration: For int8, when it was not exported before: observations of the dataset, or
            its folder.
        accelerates: False leaves an installed accelerator out, to measure what it gains.

    Attributes:
        action_error: Of int8: what it costs, None for the others.

    Raises:
        RuntimeChoiceError: int8 was asked for without calibration observations, or on a processor
            whose sums of byte products saturate.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        precision: str = "f32",
        calibration: Calibration = None,
        accelerates: bool = True,
    ) -> None:
        if precision == "int8" and not has_wide_sums():
            raise RuntimeChoiceError(
                "openvino int8",
                "would move actions on this processor: it adds products of bytes in 16 bits, "
                "which saturates (no VNNI, AMX or asimddp)",
                "Take f32 or bf16, or let another computer run the policy.",
            )
        self.name = f"openvino-{precision}"
        self._checkpoint = checkpoint
        self._precision = precision
        self._core = ov.Core()
        self._backbones = self._accelerated() if accelerates else None
        self._has_steps = modulated_unet(checkpoint.model) is not None
        self._steps: dict[int, Tensor] = {}  # each denoising step's share of the modulation
        self._graphs: dict[str, Any] = {}
        self._folder = self._exported(calibration)
        self.action_error = read_action_error(self._folder) if precision == "int8" else None

    def _accelerated(self) -> Backbones | None:
        return fast_backbones(
            self._checkpoint,
            "f32" if self._precision == "f32" else "bf16",
            torch.get_num_threads(),
            int8=self._precision == "int8",
        )

    # -- export ---------------------------------------------------------------------------------

    def _exported(self, calibration: Calibration) -> Path:
        """Return the folder of the exported graphs, making it if needed."""
        kind = "int8" if self._precision == "int8" else "float"
        start = "images" if self._backbones is None else "features"
        key = export_key(self._checkpoint, _EXPORT, kind, start, str(ov.__version__))
        folder = cache_root(self._checkpoint) / key
        if not (folder / "whole").is_file():
            frames = self._frames(calibration) if kind == "int8" else []
            models = export(self._checkpoint, self._backbones, frames)
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

    # -- running --------------------------------------------------------------------------------

    def _graph(self, name: str) -> Any:
        """Return a compiled part, compiling it at the first use (which warm-up is)."""
        if name not in self._graphs:
            model = self._core.read_model(self._folder / f"{name}.xml")
            if self._backbones is not None and self._precision != "f32":
                _take_bfloat16(model)
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
            array = np.ascontiguousarray(value)
            is_half = array.dtype == np.uint16  # bfloat16, which numpy does not know
            shape = array.shape
            tensor = ov.Tensor(array, shape, ov.Type.bf16) if is_half else ov.Tensor(array)
            request.set_input_tensor(index, tensor)
        request.infer()
        return torch.from_numpy(np.array(request.get_output_tensor(0).data))

    def chunk(self, vectors: dict[str, Tensor], images: list[Tensor]) -> Tensor:
        """Run a single-shot policy: normalised horizon (1, T, A)."""
        seen = self._inputs(list(enumerate(images)))
        return self._run("chunk", [*(value.numpy() for value in vectors.values()), *seen])

    def _inputs(self, images: Sequence[tuple[int, Tensor]]) -> Sequence[NDArray[Any]]:
        """Return what the graphs take for (camera, image) pairs: features where they can."""
        if self._backbones is None:
            return [image_values(image) for _, image in images]
        raw = [(i, p.numpy() if p.dtype == torch.uint8 else image_values(p)[0])
               for i, p in images]  # fmt: skip
        return self._backbones(raw)

    def cameras(self, images: Sequence[tuple[int, Tensor]]) -> list[Tensor]:
        """Encode some (camera, image) pairs."""
        values = self._inputs(images)
        return [
            self._run(f"camera_{index}", [value])
            for (index, _), value in zip(images, values, strict=True)
        ]

    def condition(self, vectors: dict[str, Tensor], features: list[Tensor]) -> Tensor:
        """Return an iterative policy's condition, of a U-Net its share of the modulation."""
        return self._run("condition", [v.numpy() for v in (*vectors.values(), *features)])

    def evaluate(self, noisy: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Evaluate an iterative policy's network."""
        if not self._has_steps:
            return self._run("evaluate", [noisy.numpy(), time.numpy(), condition.numpy()])
        step = int(time[0])
        if step not in self._steps:
            self._steps[step] = self._run("step", [time.numpy()])
        return self._run("evaluate", [noisy.numpy(), (condition + self._steps[step]).numpy()])


def _take_bfloat16(model: Any) -> None:
    """Let a graph take features (1, h, w, C) as an accelerator hands them out."""
    changed = ov.preprocess.PrePostProcessor(model)
    for index, port in enumerate(model.inputs):
        if len(port.shape) == 4:
            changed.input(index).tensor().set_element_type(ov.Type.bf16)
    changed.build()
