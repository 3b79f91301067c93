# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints travel to and from LeRobot itself, with other sizes and options than the goldens.

Runs where KOCH_LEROBOT_PYTHON names a Python with lerobot (several, separated by a colon).
What was trained here is compared in test_lerobot_training.py.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from koch_policy.checkpoint import load_checkpoint, save_checkpoint
from koch_policy.configs import ACTION
from koch_policy.runtime import load_policy

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

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
    "act_odd_width_without_images": {
        "type": "act", "action": 6,
        "inputs": {**STATE, "observation.environment_state": ["ENV", [2]]},
        "options": {**SMALL, "dim_model": 18, "n_heads": 3, "chunk_size": 1, "n_action_steps": 1},
    },
    "diffusion_sigmoid_uneven_widths": {
        "type": "diffusion", "action": 1,
        "inputs": {**STATE, "observation.environment_state": ["ENV", [2]]},
        "options": {**UNET, "beta_schedule": "sigmoid", "noise_scheduler_type": "DDPM",
                    "down_dims": [24, 20], "num_inference_steps": 9},
    },
    "act_images_of_two_sizes": {
        "type": "act", "action": 6,
        "inputs": {**STATE,
                   "observation.images.low": ["VISUAL", [3, 64, 96]],
                   "observation.images.high": ["VISUAL", [3, 96, 64]]},
        "options": {**SMALL, "chunk_size": 9, "n_action_steps": 9, "n_encoder_layers": 2,
                    "n_vae_encoder_layers": 1, "dim_model": 24, "n_heads": 3},
    },
    "act_quantiles": {
        "type": "act", "inputs": {**STATE, **IMAGE}, "action": 12, "since": (0, 4),
        "options": {**SMALL, "chunk_size": 4, "n_action_steps": 4, "normalization_mapping": {
            "VISUAL": "IDENTITY", "STATE": "QUANTILES", "ACTION": "QUANTILE10"}},
    },
    "diffusion_defaults_of_this_version": {
        "type": "diffusion", "inputs": {**STATE, **IMAGE}, "action": 2,
        "options": {"down_dims": [32, 64], "num_train_timesteps": 12},
    },
    "diffusion_scaled_linear_resnet34": {
        "type": "diffusion", "inputs": {**IMAGE, **STATE,
                                        "observation.environment_state": ["ENV", [3]]},
        "action": 7,
        "options": {**UNET, "vision_backbone": "resnet34", "beta_schedule": "scaled_linear",
                    "n_obs_steps": 4, "horizon": 12, "n_action_steps": 9, "kernel_size": 7,
                    "crop_shape": [60, 90], "crop_is_random": False, "num_inference_steps": 13,
                    "use_separate_rgb_encoder_per_camera": True, "beta_end": 0.05},
    },
    "diffusion_resize": {
        "type": "diffusion", "inputs": {**STATE, **IMAGE}, "action": 6, "since": (0, 4, 4),
        "options": {**UNET, "resize_shape": [40, 60], "crop_ratio": 0.8,
                    "noise_scheduler_type": "DDIM", "num_inference_steps": 4},
    },
}  # fmt: skip


NORMALISED = {"act": 1e-5, "diffusion": 1e-4}
"""How far actions may differ, in normalised units."""


def _ours(path: Path, recorded: dict[str, torch.Tensor]) -> Any:
    policy = load_policy(path, "torch", device="cpu")
    observation = {k: v[0].numpy() for k, v in recorded.items() if k.startswith("observation")}
    noise = recorded["noise"].numpy() if "noise" in recorded else None
    torch.manual_seed(0)
    return policy.predict(observation, noise=noise)


def test_checkpoints_of_lerobot_give_its_actions_here_and_back(
    lerobot: Any, tmp_path: Path
) -> None:
    version = lerobot.version
    cases = {k: v for k, v in CASES.items() if version >= v.get("since", (0,))}
    (tmp_path / "specs.json").write_text(json.dumps(cases))
    lerobot.side("make", tmp_path / "specs.json", tmp_path / "theirs")
    written = []
    for name, spec in cases.items():
        folder = tmp_path / "theirs" / name
        recorded = load_file(folder / "io.safetensors")
        loaded = load_checkpoint(folder)
        scale = loaded.normalizer.maps[ACTION].scale.numpy()
        error = (_ours(folder, recorded) - recorded["expected"][0].numpy()) * scale
        assert np.abs(error).max() < NORMALISED[spec["type"]], name
        written.append(tmp_path / "ours" / name)
        save_checkpoint(written[-1], loaded.config, loaded.model, loaded.statistics)
        shutil.copy(folder / "io.safetensors", written[-1])
    if version < (0, 4):
        return  # 0.3 cannot read checkpoints whose statistics lie in processor files
    lerobot.side("run", *written)
    for folder in written:
        answer = load_file(folder / "lerobot_answer.safetensors")["chunk"]
        expected = load_file(folder / "io.safetensors")["expected"]
        assert (answer - expected).abs().max() < 1e-5, folder.name  # LeRobot with itself


def test_lerobot_refuses_a_policy_that_is_told_its_task_by_name(
    lerobot: Any, make: Any, tmp_path: Path
) -> None:
    """Its ACT reads no sentence: it must not run one and leave the sentence out."""
    plain = make.checkpoint("act", tmp_path / "plain")
    told = make.checkpoint("act", tmp_path / "told", task_encoder="learned")
    load = "from lerobot.policies.act.modeling_act import ACTPolicy; import sys; "
    load += "ACTPolicy.from_pretrained(sys.argv[1])"
    lerobot.run("-c", load, plain)
    with pytest.raises(AssertionError, match="task_encoder"):
        lerobot.run("-c", load, told)
