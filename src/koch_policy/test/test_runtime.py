# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runtimes: the same actions everywhere, observations checked, features reused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION
from koch_policy.errors import (
    DatasetError,
    LayoutError,
    NotFiniteError,
    ObservationError,
    RuntimeChoiceError,
)
from koch_policy.models.registry import known_policies, policy_kind
from koch_policy.runtime import accelerator, load_policy, openvino_runtime
from koch_policy.runtime.base import EnginePolicy, example_observation
from koch_policy.runtime.cache import read_choice
from koch_policy.runtime.calibration import sample_observations
from koch_policy.runtime.quantize import has_wide_sums
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

_TASK = {"task_encoder": "learned", "task_dim": 2}


def _overrides(policy: str) -> dict[str, Any]:
    return _TASK if policy == "flow" else {}


def _golden_inputs(golden: Any) -> tuple[dict[str, Any], Any]:
    arrays = {key: value.numpy() for key, value in golden.recorded.items()}
    observation = {key: value for key, value in arrays.items() if key.startswith("observation")}
    return observation, arrays.get("noise")


def test_torch_runtime_gives_lerobots_actions(golden: Any) -> None:
    policy = load_policy(golden.path, "torch", device="cpu")
    observation, noise = _golden_inputs(golden)
    chunk = policy.predict(observation, noise=noise)
    expected = golden.recorded["expected.action_chunk"][0].numpy()
    assert chunk.shape == expected.shape
    assert np.abs(chunk - expected).max() < (1e-4 if noise is None else 5e-3)


def test_openvino_gives_lerobots_actions(golden: Any) -> None:
    """The bound is 1e-5 (ACT) and 1e-4 (Diffusion) of what one unit of the network's output is."""
    policy: Any = load_policy(golden.path, "openvino")
    observation, noise = _golden_inputs(golden)
    chunk = policy.predict(observation, noise=noise)
    expected = golden.recorded["expected.action_chunk"][0].numpy()
    affine = policy.normalizer.maps[ACTION]
    error = np.abs(chunk - expected) * affine.scale.abs().numpy()
    assert error.max() < (1e-5 if noise is None else 1e-4)


@pytest.mark.parametrize(
    "kind",
    [name for name in known_policies() if "openvino" in policy_kind(name, "test").runtimes],
)
@pytest.mark.parametrize("images", [False, True])
def test_openvino_agrees_with_torch(kind: str, images: bool, make: Any, tmp_path: Path) -> None:
    path = make.checkpoint(kind, tmp_path, images=images, **_overrides(kind))
    checkpoint = load_checkpoint(path)
    observation = example_observation(checkpoint, 3)
    config = checkpoint.config
    noise = np.random.default_rng(1).normal(size=(config.horizon_steps, config.action_dim))
    chunks = [
        load_policy(path, runtime, device="cpu").predict(
            observation, noise=noise.astype(np.float32)
        )
        for runtime in ("torch", "openvino")
    ]
    scale = np.abs(chunks[0]).max()
    assert np.abs(chunks[0] - chunks[1]).max() < 1e-4 * max(scale, 1.0)


def test_export_is_kept_and_made_anew_when_weights_change(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("act", tmp_path)
    load_policy(path, "openvino")
    folders = {p.name for p in (path / ".koch_cache").iterdir() if p.is_dir()}
    load_policy(path, "openvino")
    assert {p.name for p in (path / ".koch_cache").iterdir() if p.is_dir()} == folders
    checkpoint = load_checkpoint(path)
    from koch_policy.runtime.cache import export_key

    key = export_key(checkpoint, "x")
    with torch.no_grad():
        next(checkpoint.model.parameters()).add_(1.0)
    from koch_policy.checkpoint import save_checkpoint

    save_checkpoint(tmp_path / "b", checkpoint.config, checkpoint.model, checkpoint.statistics)
    assert export_key(load_checkpoint(tmp_path / "b"), "x") != key


def test_int8_is_refused_where_sums_of_bytes_saturate(
    make: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    path = make.checkpoint("act", tmp_path)
    frames = [example_observation(load_checkpoint(path))]
    monkeypatch.setattr(openvino_runtime, "has_wide_sums", lambda: False)
    with pytest.raises(RuntimeChoiceError, match=r"saturates.*Take f32 or bf16"):
        load_policy(path, "openvino", precision="int8", calibration=frames)
    assert not (path / ".koch_cache").exists()


@pytest.mark.parametrize("is_fast", [True, False])
def test_int8_stays_near_and_needs_calibration(
    is_fast: bool, make: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    if not is_fast:
        monkeypatch.setattr(accelerator, "find", lambda: None)
    path = make.checkpoint("act", tmp_path, images=True, dim_model=64, dim_feedforward=128)
    checkpoint = load_checkpoint(path)
    if not has_wide_sums():
        with pytest.raises(RuntimeChoiceError, match="adds products of bytes in 16 bits"):
            load_policy(
                path, "openvino", precision="int8", calibration=[example_observation(checkpoint)]
            )
        return
    with pytest.raises(RuntimeChoiceError, match="observations of the dataset"):
        load_policy(path, "openvino", precision="int8")
    frames = [example_observation(checkpoint, seed) for seed in range(4)]
    int8 = load_policy(path, "openvino", precision="int8", calibration=frames)
    exact = load_policy(path, "torch", device="cpu")
    error = np.abs(int8.predict(frames[0]) - exact.predict(frames[0]))
    span = float((checkpoint.statistics["action"]["std"]).max())
    assert 0 < error.max() < 0.3 * span
    again = load_policy(path, "openvino", precision="int8")  # from the cache, no frames needed
    assert np.array_equal(again.predict(frames[0]), int8.predict(frames[0]))
    cost: Any = again.engine.action_error  # type: ignore[attr-defined]
    assert cost.frames == 4
    errors = np.concatenate(
        [np.abs(int8.predict(frame) - exact.predict(frame)) for frame in frames]
    )
    np.testing.assert_allclose(cost.mean_units, errors.mean(axis=0), rtol=1e-4)
    assert 0 < cost.mean < cost.largest < 0.3
    assert "int8 moves actions by" in str(cost)


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_int8_is_calibrated_from_a_dataset(kind: str, make: Any, tmp_path: Path) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    wide = {"dim_model": 64, "dim_feedforward": 128} if kind == "act" else {"down_dims": [64, 64]}
    path = make.checkpoint(kind, tmp_path / "run", images=True, **wide)
    if not has_wide_sums():
        with pytest.raises(RuntimeChoiceError, match="adds products of bytes in 16 bits"):
            load_policy(path, "openvino", precision="int8", calibration=root)
        return
    with pytest.raises(RuntimeChoiceError, match="Name the dataset's folder"):
        load_policy(path, "openvino", precision="int8")
    policy: Any = load_policy(path, "openvino", precision="int8", calibration=root)
    assert policy.engine.action_error.frames == 32
    assert 0 < policy.engine.action_error.mean < 0.1
    blind = make.dataset(tmp_path / "blind")
    with pytest.raises(DatasetError, match=r"has no observation\.images\.above, which the policy"):
        sample_observations(blind, load_checkpoint(path))


def test_auto_measures_once(make: Any, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = make.checkpoint("act", tmp_path)
    first = load_policy(path)
    choice = read_choice(load_checkpoint(path), "f32")
    assert choice is not None
    assert first.runtime.startswith(choice)

    def refuse(*_: Any) -> float:
        raise AssertionError("measured twice")

    monkeypatch.setattr("koch_policy.runtime.choose._measure", refuse)
    assert load_policy(path).runtime == first.runtime


def test_unknown_runtime_and_missing_hardware_are_named(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("act", tmp_path)
    with pytest.raises(RuntimeChoiceError, match="Known: auto, torch, openvino, lerobot"):
        load_policy(path, "onnx")
    with pytest.raises(RuntimeChoiceError, match="Known: f32, bf16, int8"):
        load_policy(path, precision="fp4")
    with pytest.raises(RuntimeChoiceError, match="openvino"):
        load_policy(path, "torch", precision="int8", device="cpu")


@pytest.fixture(scope="module")
def act(make: Any, tmp_path_factory: Any) -> Any:
    """A tiny ACT policy with one camera, and an observation for it."""
    path = make.checkpoint("act", tmp_path_factory.mktemp("act"), images=True)
    return load_policy(path, "torch", device="cpu"), example_observation(load_checkpoint(path))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("observation.state", np.zeros(5, np.float32), r"float32 \(5,\); expected numbers of"),
        ("observation.state", np.full(J, np.nan), "NaN or infinity"),
        ("observation.state", np.array(["a"] * J), "expected numbers"),
        ("observation.images.above", np.zeros((64, 48, 3), np.uint8), r"uint8 \(48, 64, 3\)"),
        ("observation.images.above", np.zeros((48, 64, 3), np.float64), "float64"),
        ("observation.images.above", np.zeros((2, 48, 64, 3), np.uint8), "2 steps"),
    ],
)
def test_wrong_observation_is_named(act: Any, key: str, value: Any, message: str) -> None:
    policy, observation = act
    with pytest.raises(ObservationError, match=message) as caught:
        policy.predict({**observation, key: value})
    assert key in str(caught.value)


@pytest.mark.parametrize("key", ["observation.state", "observation.images.above"])
def test_missing_feature_is_named(act: Any, key: str) -> None:
    policy, observation = act
    rest = {name: value for name, value in observation.items() if name != key}
    with pytest.raises(ObservationError, match=rf"'{key}': got nothing \(given: "):
        policy.predict(rest)


def test_other_joint_order_is_refused(act: Any) -> None:
    policy, _ = act
    names = list(policy.extras.names["action"])
    policy.require_names({"action": names})
    swapped = [names[1], names[0], *names[2:]]
    with pytest.raises(LayoutError, match=r"shoulder_lift\.pos, shoulder_pan\.pos"):
        policy.require_names({"action": swapped})


def test_network_that_returns_nan_is_not_obeyed(make: Any, tmp_path: Path) -> None:
    checkpoint = load_checkpoint(make.checkpoint("act", tmp_path))

    class Broken:
        name = "broken"

        def chunk(self, *_: Any) -> torch.Tensor:
            return torch.full((1, 8, 6), torch.nan)

    policy = EnginePolicy(checkpoint, Broken())  # type: ignore[arg-type]
    with pytest.raises(NotFiniteError, match="48 value"):
        policy.predict(example_observation(checkpoint))


def test_diffusion_encodes_each_image_once(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("diffusion", tmp_path, images=True)
    checkpoint = load_checkpoint(path)
    policy: Any = load_policy(path, "torch", device="cpu")
    ticks = [example_observation(checkpoint, seed) for seed in range(4)]
    noise = np.zeros((8, J), np.float32)
    begin = policy.encoded
    chunks = [policy.predict(tick, noise=noise) for tick in ticks]
    assert policy.encoded - begin == 4  # one per tick, though each prediction sees two

    def stacked(first: int, second: int) -> dict[str, Any]:
        keys = checkpoint.config.input_features
        return {key: np.stack((ticks[first][key], ticks[second][key])) for key in keys}

    fresh: Any = load_policy(path, "torch", device="cpu")
    assert np.allclose(fresh.predict(stacked(0, 0), noise=noise), chunks[0], atol=1e-5)
    assert np.allclose(fresh.predict(stacked(2, 3), noise=noise), chunks[3], atol=1e-5)
    policy.reset()
    assert np.allclose(policy.predict(ticks[3], noise=noise),
                       fresh.predict(stacked(3, 3), noise=noise), atol=1e-5)  # fmt: skip


@pytest.mark.parametrize("kind", ["act", "diffusion"])
def test_one_step_with_its_dimension_is_that_step(kind: str, make: Any, tmp_path: Path) -> None:
    options = {} if kind == "act" else {"n_obs_steps": 1}
    path = make.checkpoint(kind, tmp_path, images=True, **options)
    policy: Any = load_policy(path, "torch", device="cpu")
    frame = example_observation(load_checkpoint(path))
    noise = np.zeros((8, J), np.float32)
    with_steps = {
        key: value[None] if isinstance(value, np.ndarray) else value
        for key, value in frame.items()
    }
    one = policy.predict(frame, noise=noise)
    policy.reset()
    assert np.array_equal(one, policy.predict(with_steps, noise=noise))


def test_observing_ahead_changes_no_action(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("diffusion", tmp_path, images=True)
    checkpoint = load_checkpoint(path)
    ticks = [example_observation(checkpoint, seed) for seed in range(3)]
    noise = np.zeros((8, J), np.float32)
    results = []
    for _ in range(2):
        policy: Any = load_policy(path, "torch", device="cpu")
        for tick in ticks[:-1]:
            policy.observe(tick)
        results.append(policy.predict(ticks[-1], noise=noise))
    assert np.array_equal(*results)


def test_task_text_chooses_what_a_language_policy_does(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("flow", tmp_path, **_TASK)
    checkpoint = load_checkpoint(path)
    policy = load_policy(path, "torch", device="cpu")
    observation = example_observation(checkpoint)
    noise = np.zeros((8, J), np.float32)
    left, right = (
        policy.predict({**observation, "task": task}, noise=noise)
        for task in ("reach left", "reach right")
    )
    assert not np.allclose(left, right)
    with pytest.raises(ObservationError, match=r"one of \['reach left', 'reach right'\]"):
        policy.predict({**observation, "task": "dance"})
    with pytest.raises(ObservationError, match="the task as text"):
        policy.predict({key: value for key, value in observation.items() if key != "task"})


def test_renamed_and_resized_images_are_accepted(make: Any, tmp_path: Path) -> None:
    import json

    from koch_core.image import resize_rgb

    path = make.checkpoint("act", tmp_path, images=True)
    steps = json.loads((path / "policy_preprocessor.json").read_text())
    steps["steps"][0]["config"]["rename_map"] = {"observation.images.top": make.camera}
    (path / "policy_preprocessor.json").write_text(json.dumps(steps))
    extras = json.loads((path / "koch.json").read_text())
    extras["runtime"] = {"resize": True}
    (path / "koch.json").write_text(json.dumps(extras))
    policy = load_policy(path, "torch", device="cpu")
    observation = example_observation(load_checkpoint(path))
    del observation[make.camera]
    large = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    small = resize_rgb(large, 48, 64)
    one = policy.predict({**observation, "observation.images.top": large})
    two = policy.predict({**observation, "observation.images.top": small})
    assert np.array_equal(one, two)


def test_openvino_reports_to_nobody() -> None:
    """Its wheel brings a package that sends usage over the network."""
    import koch_policy.runtime.openvino_runtime  # noqa: F401

    assert sys.modules["openvino_telemetry"] is None
