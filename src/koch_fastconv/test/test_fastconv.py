# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The door of the package, the weights that kernels take, and what they refuse."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
import torch

import koch_fastconv
from koch_fastconv.layers import Block, Convolution, GroupNorm
from koch_fastconv.library import open_library
from koch_fastconv.weights import paired, rounded
from koch_policy.runtime.backbones import widened


def _convolution(outputs: int = 64, inputs: int = 3, side: int = 7, norm: GroupNorm | None = None):
    draw = np.random.default_rng(0)
    weight = draw.standard_normal((outputs, inputs, side, side), np.float32)
    return Convolution(weight, None, 2 if side == 7 else 1, side // 2, norm)


def _norm(channels_of_group: int = 16, epsilon: float = 1e-5) -> GroupNorm:
    return GroupNorm(np.ones(64, np.float32), np.zeros(64, np.float32), channels_of_group, epsilon)


def _flags() -> set[str]:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split())
    return set()


def test_policies_find_it_by_its_entry_point() -> None:
    entries = metadata.entry_points(group="koch_policy.backbones")
    assert koch_fastconv.load in [entry.load() for entry in entries]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names are those of x86-64")
def test_kernels_are_those_of_this_processor() -> None:
    flags = _flags()
    wide = {"avx512f", "avx512bw", "avx512vl", "avx512dq"} <= flags
    half = wide and {"avx512_bf16", "avx512_vnni"} <= flags and "amx_bf16" not in flags
    expected = ["avx512_bf16"] if half else []
    if wide or {"avx2", "fma"} <= flags:
        expected.append("avx512_f32" if wide else "avx2_f32")
    assert str(koch_fastconv.load()) == (
        ", ".join(expected) or "no kernels: OpenVINO is faster on this processor"
    )


def test_header_is_the_one_of_the_sources() -> None:
    """Structures come from the installed header; it must not be an old copy."""
    library = open_library()
    header = Path(__file__).parents[1] / "kernels" / "koch_fastconv.h"
    text = header.read_text(encoding="utf-8")
    for name, field in library.ffi.typeof("Layer").fields:
        assert name in text, field
    assert library.lib.BYTES == 10


def test_layers_that_no_kernel_knows_are_refused() -> None:
    fast = koch_fastconv.load()
    wrong = [
        _convolution(outputs=40),  # no whole panel
        _convolution(norm=_norm(channels_of_group=8)),
        _convolution(norm=_norm(epsilon=1e-3)),
    ]
    right = _convolution()
    options = {"count": 1, "height": 32, "width": 32, "precision": "f32", "threads": 1}
    for stem in wrong:
        assert fast.resnet(stem, [], **options) is None
    shortcut = _convolution(64, 64, 1, _norm(8))
    block = Block(_convolution(64, 64, 3), _convolution(64, 64, 3), shortcut)
    assert fast.resnet(right, [block], **options) is None
    assert fast.resnet(right, [], **{**options, "precision": "f16"}) is None


def test_bfloat16_is_rounded_and_paired_by_hand() -> None:
    weight = np.arange(6, dtype=np.float32).reshape(3, 2)  # (L, panel)
    assert widened(paired(weight)).tolist() == [[[0, 2], [1, 3]], [[4, 0], [5, 0]]]
    values = np.array([1.0, 1.0 + 2**-8, 1.0 + 3 * 2**-8, -3.14159], np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(widened(rounded(values)), expected)
