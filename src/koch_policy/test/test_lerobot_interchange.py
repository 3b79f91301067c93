# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints travel to and from LeRobot itself, with other sizes and options than the goldens.

Runs where KOCH_LEROBOT_PYTHON names a Python with lerobot (several, separated by a colon).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from koch_policy.checkpoint import load_checkpoint, save_checkpoint
from koch_policy.models.registry import policy_model
from koch_policy.runtime import load_policy

PYTHONS = [path for path in os.environ.get("KOCH_LEROBOT_PYTHON", "").split(":") if path]
SIDE = Path(__file__).parents[3] / "benchmarks" / "lerobot_policy_side.py"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not PYTHONS, reason="KOCH_LEROBOT_PYTHON names no Python with lerobot"),
]

IMAGE = {
    "observation.images.a_b": ["VISUAL", [3, 64, 96]],
    "observation.images.c": ["VISUAL", [3, 64, 96]],
}
STATE = {"observation.state": ["STATE", [7]]}
SMALL = {"dim_model": 32, "n_heads": 2, "dim_feedforward": 48, "latent_dim": 8}
UNET = {
    "horizon": 16, "n_action_steps": 8, "down_dims": [16, 32], "n_groups": 4, "crop_shape": None,
    "diffusion_step_embed_dim": 16, "spatial_softmax_num_keypoints": 6, "num_train_timesteps": 40,
    "use_group_norm": True, "use_separate_rgb_encoder_per_camera": False,
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "act_resnet34_gelu": {
        "type": "act", "inputs": {**IMAGE, **STATE}, "action": 8,
        "options": {**SMALL, "vision_backbone": "resnet34", "feedforward_activation": "gelu",
                    "n_decoder_layers": 3, "chunk_size": 13, "n_action_steps": 5,
                    "pre_norm": True},
    },
    "act_resnet50_dilated": {
        "type": "act", "inputs": {**IMAGE, **STATE}, "action": 3,
        "options": {**SMALL, "vision_backbone": "resnet50", "use_vae": False, "chunk_size": 10,
                    "n_action_steps": 10, "replace_final_stride_with_dilation": True},
    },
    "act_vectors_min_max": {
        "type": "act", "action": 14,
        "inputs": {**STATE, "observation.environment_state": ["ENV", [5]]},
        "options": {**SMALL, "chunk_size": 6, "n_action_steps": 6, "normalization_mapping": {
            "VISUAL": "MEAN_STD", "STATE": "MIN_MAX", "ENV": "MEAN_STD", "ACTION": "MIN_MAX"}},
    },
    "diffusion_ddpm_batch_norm": {
        "type": "diffusion", "inputs": {**IMAGE, **STATE}, "action": 5,
        "options": {**UNET, "use_group_norm": False, "noise_scheduler_type": "DDPM",
                    "num_inference_steps": 7, "use_separate_rgb_encoder_per_camera": True,
                    "n_obs_steps": 3, "use_film_scale_modulation": False},
    },
    "diffusion_linear_environment": {
        "type": "diffusion", "action": 4,
        "inputs": {**STATE, "observation.environment_state": ["ENV", [2]]},
        "options": {**UNET, "beta_schedule": "linear", "noise_scheduler_type": "DDIM",
                    "clip_sample_range": 1.5, "n_obs_steps": 1, "kernel_size": 3},
    },
    "diffusion_crop_sample_no_clip": {
        "type": "diffusion", "inputs": {**STATE, **IMAGE}, "action": 6,
        "options": {**UNET, "crop_shape": [51, 77], "prediction_type": "sample",
                    "clip_sample": False, "noise_scheduler_type": "DDIM",
                    "num_inference_steps": 5, "down_dims": [16, 32, 48], "horizon": 24},
    },
    "diffusion_resize": {
        "type": "diffusion", "inputs": {**STATE, **IMAGE}, "action": 6, "since": (0, 4, 4),
        "options": {**UNET, "resize_shape": [40, 60], "crop_ratio": 0.8,
                    "noise_scheduler_type": "DDIM", "num_inference_steps": 4},
    },
}  # fmt: skip


def _lerobot(python: str, *arguments: object) -> str:
    done = subprocess.run(
        [python, str(SIDE), *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _version(python: str) -> tuple[int, ...]:
    code = "import importlib.metadata as m; print(m.version('lerobot'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in done.stdout.strip().split(".")[:3])


def _ours(path: Path, recorded: dict[str, torch.Tensor]) -> Any:
    policy = load_policy(path, "torch", device="cpu")
    observation = {k: v[0].numpy() for k, v in recorded.items() if k.startswith("observation")}
    noise = recorded["noise"].numpy() if "noise" in recorded else None
    torch.manual_seed(0)
    return policy.predict(observation, noise=noise)


@pytest.mark.parametrize("python", PYTHONS)
def test_checkpoints_of_lerobot_give_its_actions_here_and_back(
    python: str, tmp_path: Path
) -> None:
    version = _version(python)
    cases = {k: v for k, v in CASES.items() if version >= v.get("since", (0,))}
    (tmp_path / "specs.json").write_text(json.dumps(cases))
    _lerobot(python, "make", tmp_path / "specs.json", tmp_path / "theirs")
    written = []
    for name, spec in cases.items():
        folder = tmp_path / "theirs" / name
        recorded = load_file(folder / "io.safetensors")
        error = np.abs(_ours(folder, recorded) - recorded["expected"][0].numpy()).max()
        assert error < _tolerance(spec), name
        loaded = load_checkpoint(folder)
        written.append(tmp_path / "ours" / name)
        save_checkpoint(written[-1], loaded.config, loaded.model, loaded.statistics)
        shutil.copy(folder / "io.safetensors", written[-1])
    if version < (0, 4):
        return  # 0.3 cannot read checkpoints whose statistics lie in processor files
    _lerobot(python, "run", *written)
    for folder in written:
        answer = load_file(folder / "lerobot_answer.safetensors")["chunk"]
        expected = load_file(folder / "io.safetensors")["expected"]
        assert (answer - expected).abs().max() < 1e-4, folder.name


def _tolerance(spec: dict[str, Any]) -> float:
    """Rounding of actions around 50 units, through one pass or a denoising loop."""
    return 50.0 * (2e-5 if spec["type"] == "act" else 2e-4)


@pytest.mark.parametrize("python", PYTHONS)
def test_checkpoints_written_here_run_in_lerobot(python: str, make: Any, tmp_path: Path) -> None:
    if _version(python) < (0, 4):
        return
    paths = []
    for kind in ("act", "diffusion"):
        path = make.checkpoint(kind, tmp_path / kind, pictures=True).resolve()
        paths.append(path)
        steps = (2,) if kind == "diffusion" else ()
        draw = torch.Generator().manual_seed(0)
        content = {
            key: torch.rand((1, *steps, *feature.shape), generator=draw)
            for key, feature in load_checkpoint(path).config.input_features.items()
        }
        if kind == "diffusion":
            content["noise"] = torch.randn((1, 8, 6), generator=draw)
        save_file(content, path / "io.safetensors")
    _lerobot(python, "run", *paths)
    for path in paths:
        answer = load_file(path / "lerobot_answer.safetensors")["chunk"][0].numpy()
        found = _ours(path, load_file(path / "io.safetensors"))
        assert np.abs(found - answer).max() < 5e-3, path


@pytest.mark.parametrize("python", PYTHONS[:1])
def test_loss_curve_is_lerobots_on_the_same_data(python: str, make: Any, tmp_path: Path) -> None:
    """Same weights, batch, noise and optimiser: the first steps agree to rounding."""
    path = make.checkpoint("diffusion", tmp_path, pictures=False)
    checkpoint = load_checkpoint(path)
    checkpoint = replace(checkpoint, model=checkpoint.model.train())
    draw = torch.Generator().manual_seed(1)
    batch = {
        "observation.state": torch.randn(8, 2, 6, generator=draw),
        "observation.environment_state": torch.randn(8, 2, 4, generator=draw),
        "action": torch.randn(8, 8, 6, generator=draw),
        "action_is_pad": torch.zeros(8, 8, dtype=torch.bool),
    }
    save_file(batch, tmp_path / "batch.safetensors")
    printed = _lerobot(python, "losses", path, tmp_path / "batch.safetensors", 20, 1e-3)
    theirs = json.loads(printed.splitlines()[-1])
    config: Any = checkpoint.config
    optimizer = torch.optim.Adam(
        checkpoint.model.parameters(), lr=1e-3, betas=config.optimizer_betas,
        eps=config.optimizer_eps, weight_decay=config.optimizer_weight_decay,
    )  # fmt: skip
    torch.manual_seed(0)
    ours = []
    for _ in range(20):
        loss, _ = policy_model(checkpoint.model).loss(batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(checkpoint.model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        ours.append(loss.item())
    assert ours == pytest.approx(theirs, rel=1e-3)
