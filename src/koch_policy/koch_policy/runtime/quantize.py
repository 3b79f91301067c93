# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Post-training int8 quantisation of an OpenVINO graph, by fake-quantise nodes.

Convolutions and matrix products with constant weights get their weights quantised per output
channel (symmetric, 255 levels) and their input per tensor (256 levels) over the range seen on
calibration data; OpenVINO's CPU plug-in then runs them in int8. Reference: Jacob et al. 2017,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference".

Small products, on which little time is spent and much of the actions' precision hangs (state
projections, the action head), stay in float.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import opset13 as ops

from koch_policy.runtime.openvino_graph import compiled

_SMALLEST_WEIGHT = 64 * 64
_CLIPPED = 1e-4  # part of the values that may lie outside the range
_WIDE_SUMS = {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp"}  # as Linux names them


@functools.cache
def has_wide_sums() -> bool:
    """Whether this processor adds products of bytes in 32 bits; False where it does not say.

    Others add two of them in 16 bits, which saturates (vpmaddubsw): 2 * 255 * 127 > 32767. Weights
    of 7 bits cannot saturate, but are too coarse: untrained ACT networks 512 wide erred by 0.18 of
    the actions' spread with them, by 0.22 without.
    """
    info = Path("/proc/cpuinfo")
    return info.is_file() and bool(_WIDE_SUMS & set(info.read_text(encoding="utf-8").split()))


def quantize(model: Any, calls: Sequence[Sequence[NDArray[Any]]]) -> int:
    """Quantise a graph in place; return the number of layers.

    Args:
        model: openvino.Model in float32.
        calls: Input arrays of some calls.
    """
    layers = [node for node in model.get_ordered_ops() if _constant_weight(node) is not None]
    ranges = _activation_ranges(model, layers, calls)
    shared: dict[tuple[str, int], Any] = {}
    names = [_source_name(node) for node in layers]
    for node, name, (low, high) in zip(layers, names, ranges, strict=True):
        if name not in shared:
            shared[name] = _fake_quantize(node.input_value(0), low, high, 256)
        node.input(0).replace_source_output(shared[name].output(0))
        weight = _constant_weight(node)
        assert weight is not None
        limit = _weight_limit(node, weight.data)
        node.input(1).replace_source_output(
            _fake_quantize(weight.output(0), -limit, limit, 255).output(0)
        )
    model.validate_nodes_and_infer_types()
    return len(layers)


def _constant_weight(node: Any) -> Any | None:
    """Return the constant weight of a layer that is worth quantising, else None."""
    if node.get_type_name() not in ("Convolution", "MatMul"):
        return None
    weight = node.input_value(1).get_node()
    if weight.get_type_name() != "Constant" or weight.data.size < _SMALLEST_WEIGHT:
        return None
    if weight.data.ndim < 2 or min(weight.data.shape[:2]) < 16:  # stem, state and action layers
        return None
    return weight


def _weight_limit(node: Any, weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the largest magnitude per output channel, shaped to broadcast over the weight."""
    if node.get_type_name() == "Convolution":
        axis = 0
    else:
        axis = -2 if node.get_attributes()["transpose_b"] else -1
    other = tuple(i for i in range(weight.ndim) if i != axis % weight.ndim)
    limit: NDArray[np.float32] = np.abs(weight).max(axis=other, keepdims=True)
    return np.maximum(limit, 1e-8).astype(np.float32)


def _fake_quantize(source: Any, low: Any, high: Any, levels: int) -> Any:
    bounds = [ops.constant(np.asarray(bound, np.float32)) for bound in (low, high, low, high)]
    return ops.fake_quantize(source, *bounds, levels)


def _activation_ranges(
    model: Any, layers: Sequence[Any], calls: Sequence[Sequence[NDArray[Any]]]
) -> list[tuple[float, float]]:
    """Run the float graph on the calibration calls and return each layer's input range."""
    probe = model.clone()
    by_name = {node.get_friendly_name(): node for node in probe.get_ordered_ops()}
    sources = [_source_name(node) for node in layers]
    unique = list(dict.fromkeys(sources))
    place = {source: index for index, source in enumerate(unique)}
    first = len(model.outputs)
    probe.add_outputs([by_name[name].output(index) for name, index in unique])
    graph = compiled(ov.Core(), probe, "f32")
    lows, highs = np.zeros(len(unique)), np.zeros(len(unique))
    for call in calls:
        result = graph([np.ascontiguousarray(value) for value in call])
        for index in range(len(unique)):
            low, high = np.quantile(result[first + index], (_CLIPPED, 1 - _CLIPPED))
            lows[index] = min(lows[index], float(low))
            highs[index] = max(highs[index], float(high))
    chosen = [place[source] for source in sources]
    return [(lows[i], max(highs[i], lows[i] + 1e-6)) for i in chosen]


def _source_name(node: Any) -> tuple[str, int]:
    """Name the output that feeds a layer."""
    source = node.input_value(0)
    return (source.get_node().get_friendly_name(), source.get_index())
