# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How OpenVINO compiles a graph for the CPU; to be imported before OpenVINO."""

from __future__ import annotations

import sys
from typing import Any

import torch

# OpenVINO's converter reports each use over the network where this package is importable, and its
# wheel brings it along. A robot's computer must not report: as if it were not installed.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

# OpenVINO 2026.4's code generator ("snippets") takes these in and then fails: it refuses a graph
# with Mish between matrix products, and crashes on group normalisation of small maps at f32.
_NOT_GENERATED = ("Mish", "GroupNormalization")


def compiled(core: Any, model: Any, hint: str) -> Any:
    """Compile a graph for low latency.

    Args:
        core: openvino.Core.
        model: openvino.Model.
        hint: Precision of what is not quantised: "f32" or "bf16".
    """
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    if any(node.get_type_name() in _NOT_GENERATED for node in model.get_ops()):
        options["SNIPPETS_MODE"] = "DISABLE"
    return core.compile_model(model, "CPU", options)
