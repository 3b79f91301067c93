# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's processor files and their statistics: what is followed and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import CheckpointError, StatisticsError
from koch_policy.normalize import ZeroRange
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

_NORMALIZER = "policy_preprocessor_step_3_normalizer_processor.safetensors"
_UNNORMALIZER = "policy_postprocessor_step_0_unnormalizer_processor.safetensors"


@pytest.fixture
def folder(golden_act: Any, tmp_path: Path) -> Path:
    """A copy of the ACT golden checkpoint that a test may break."""
    return Path(shutil.copytree(golden_act.path, tmp_path / "act"))


def _rewrite(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize("key", ["observation.state.mean", "observation.images.left.std"])
def test_missing_statistics_are_refused(key: str, folder: Path) -> None:
    _rewrite(folder / _NORMALIZER, lambda tensors: tensors.pop(key))
    feature, _, name = key.rpartition(".")
    with pytest.raises(StatisticsError, match=f"{feature}.*lack '{name}'"):
        load_checkpoint(folder)


def test_statistics_without_range_are_refused_or_kept_constant(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["observation.state.std"][3] = 0.0

    _rewrite(folder / _NORMALIZER, change)
    with pytest.raises(StatisticsError, match=r"element\(s\) \[3\]"):
        load_checkpoint(folder)
    loaded = load_checkpoint(folder, zero_range=ZeroRange.CONSTANT)
    value = torch.full((1, 6), 50.0)
    assert loaded.normalizer.normalize("observation.state", value)[0, 3] == 0


def test_statistics_of_other_size_or_not_finite_are_refused(folder: Path) -> None:
    _rewrite(folder / _NORMALIZER, lambda t: t.update({"observation.state.mean": torch.zeros(5)}))
    with pytest.raises(StatisticsError, match=r"have shape \(5,\)"):
        load_checkpoint(folder)
    nan = torch.full((J,), torch.nan)
    _rewrite(folder / _NORMALIZER, lambda t: t.update({"observation.state.mean": nan}))
    with pytest.raises(StatisticsError, match="NaN or infinity in 'mean'"):
        load_checkpoint(folder)


def test_processors_that_disagree_are_refused(folder: Path) -> None:
    _rewrite(folder / _UNNORMALIZER, lambda t: t.update({"action.mean": t["action.mean"] + 1}))
    with pytest.raises(StatisticsError, match="differ in 'mean'"):
        load_checkpoint(folder)


def test_foreign_processor_step_is_refused(folder: Path) -> None:
    path = folder / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    content["steps"].append({"registry_name": "tokenizer_processor", "config": {}})
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="'tokenizer_processor' is none of ours"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("file", "step", "changes", "message"),
    [
        ("pre", 3, {"eps": 1e-3}, r"`eps` is 0\.001, expected 1e-08"),
        ("pre", 3, {"normalize_observation_keys": ["observation.state"]}, "normalize_observation"),
        ("pre", 3, {"features": {}}, r"`features\.observation\.\S+\.type` is None, expected"),
        ("pre", 2, {"float_dtype": "bfloat16"}, "`float_dtype` is 'bfloat16', expected float32"),
        ("post", 0, {"norm_map": {"ACTION": "MIN_MAX"}}, r"norm_map\.ACTION` is 'MIN_MAX'"),
        ("post", 0, {"eps": 0.1}, r"policy_postprocessor\.json: `eps` is 0\.1"),
        ("post", 1, {"float_dtype": "float16"}, "`float_dtype` is 'float16'"),
    ],
)
def test_processors_that_scale_in_another_way_are_refused(
    file: str, step: int, changes: dict[str, Any], message: str, folder: Path
) -> None:
    """Read past, each of these would give other actions than LeRobot, without a word."""
    path = folder / f"policy_{file}processor.json"
    content = json.loads(path.read_text())
    content["steps"][step]["config"] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("step", "changes", "message"),
    [
        (3, {"config": [1]}, r"`config` is \[1\]"),
        (3, {"config": {"norm_map": [1]}}, "unknown normalisation"),
        (3, {"config": {"features": [1]}}, r"`features` is \[1\]"),
        (0, {"config": {"rename_map": [1]}}, r"`rename_map` is \[1\]"),
        (0, {"config": {"rename_map": {"a": 1}}}, "`rename_map` is {'a': 1}"),
        (3, {"state_file": 3}, "state file 3"),
        (3, {"state_file": "../x.safetensors"}, "lies outside"),
    ],
)
def test_misshapen_processor_is_named(
    step: int, changes: dict[str, Any], message: str, folder: Path
) -> None:
    path = folder / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    content["steps"][step] |= changes
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(folder)


@pytest.mark.parametrize(("file", "step"), [("pre", 3), ("post", 0)])
def test_scaling_step_must_be_there_once(file: str, step: int, folder: Path) -> None:
    path = folder / f"policy_{file}processor.json"
    content = json.loads(path.read_text())
    scaling = content["steps"][step]
    path.write_text(json.dumps({**content, "steps": [*content["steps"], scaling]}))
    with pytest.raises(CheckpointError, match=r"has 2 steps '\w*normalizer_processor'"):
        load_checkpoint(folder)
    content["steps"].remove(scaling)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"has 0 steps '\w*normalizer_processor'"):
        load_checkpoint(folder)


def test_float32_device_step_and_renames_are_read(folder: Path) -> None:
    path = folder / "policy_preprocessor.json"
    content = json.loads(path.read_text())
    content["steps"][0]["config"] = {"rename_map": {"observation.images.a": "b"}}
    content["steps"][2]["config"]["float_dtype"] = "float32"
    path.write_text(json.dumps(content))
    assert load_checkpoint(folder).rename_map == {"observation.images.a": "b"}
