# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs small policies of LeRobot by our server's half and by LeRobot's own control loop.

    PYTHONPATH=FOLDER_WITH_koch_core_koch_policy_msgpack PYTHON lerobot_runtime_side.py FOLDER

PYTHON has lerobot. FOLDER/found.json then holds {policy: {way of calling: largest difference}}.
Images come under the name that the rig has for them; the pre-processors rename them.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from koch_policy.server.lerobot import LeRobotPolicy

STATE, ENVIRONMENT = "observation.state", "observation.environment_state"
CAMERA, ABOVE = "observation.images.camera1", "observation.images.above"
TICKS = 13
MAKE: dict[str, dict[str, Any]] = {
    "act": {"inputs": {STATE: 6, CAMERA: 0}, "class": "ACT", "options": {
        "dim_model": 32, "n_heads": 2, "dim_feedforward": 48, "chunk_size": 7,
        "n_action_steps": 7, "pretrained_backbone_weights": None}},
    "diffusion": {"inputs": {STATE: 6, CAMERA: 0}, "class": "Diffusion", "options": {
        "down_dims": (16, 32), "n_groups": 4, "horizon": 16, "n_action_steps": 5,
        "num_train_timesteps": 6, "crop_shape": None, "n_obs_steps": 3, "use_group_norm": True,
        "pretrained_backbone_weights": None}},
    "vqbet": {"inputs": {STATE: 6, CAMERA: 0}, "class": "VQBeT", "options": {
        "gpt_n_layer": 1, "gpt_n_head": 2, "gpt_hidden_dim": 32, "gpt_input_dim": 32,
        "gpt_output_dim": 32, "crop_shape": (40, 40), "n_obs_steps": 4, "action_chunk_size": 4,
        "use_group_norm": True, "pretrained_backbone_weights": None}},
    "tdmpc": {"inputs": {STATE: 6, ENVIRONMENT: 3}, "class": "TDMPC", "options": {
        "n_action_repeats": 1, "n_action_steps": 3, "mlp_dim": 32, "n_gaussian_samples": 32,
        "n_pi_samples": 8, "n_elites": 8, "cem_iterations": 2}},
}  # fmt: skip


def make(name: str, folder: Path) -> None:
    """Save an untrained policy with both pipelines, as training would."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_pre_post_processors

    spec = MAKE[name]
    where = f"lerobot.policies.{name}"
    config_class = getattr(
        importlib.import_module(f"{where}.configuration_{name}"), f"{spec['class']}Config"
    )
    policy_class = getattr(
        importlib.import_module(f"{where}.modeling_{name}"), f"{spec['class']}Policy"
    )
    kinds = {STATE: FeatureType.STATE, CAMERA: FeatureType.VISUAL, ENVIRONMENT: FeatureType.ENV}
    shapes = {key: (size,) if size else (3, 48, 48) for key, size in spec["inputs"].items()}
    config = config_class(
        input_features={key: PolicyFeature(kinds[key], shape) for key, shape in shapes.items()},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu",
        push_to_hub=False,
        **spec["options"],
    )
    torch.manual_seed(1)
    statistics = {}
    for key, shape in {**shapes, "action": (6,)}.items():
        size = (3, 1, 1) if key == CAMERA else shape
        low, high = torch.full(size, 0.2), torch.full(size, 0.9)
        statistics[key] = {"mean": low, "std": high, "min": low, "max": high}
    policy = policy_class(config)
    policy.save_pretrained(folder)
    before, after = make_pre_post_processors(config, dataset_stats=statistics)
    before.save_pretrained(folder)
    after.save_pretrained(folder)
    file = folder / "policy_preprocessor.json"
    content = json.loads(file.read_text())
    content["steps"][0]["config"]["rename_map"] = {ABOVE: CAMERA}
    file.write_text(json.dumps(content))


def recording(name: str) -> list[dict[str, Any]]:
    """Observations as they come from a rig: uint8 images, float vectors."""
    draw = np.random.default_rng(4)
    return [
        {
            ABOVE if key == CAMERA else key: draw.random(size).astype(np.float32)
            if size
            else draw.integers(0, 256, (48, 48, 3), dtype=np.uint8)
            for key, size in MAKE[name]["inputs"].items()
        }
        | {"task": "push"}
        for _ in range(TICKS)
    ]


def theirs(name: str, folder: Path, ticks: list[dict[str, Any]], every: int) -> Any:
    """Actions (N, 6) of LeRobot's own loop."""
    from lerobot.policies.factory import get_policy_class, make_pre_post_processors

    policy = get_policy_class(name).from_pretrained(str(folder)).eval()
    before, after = make_pre_post_processors(policy.config, pretrained_path=str(folder))
    policy.reset()
    actions = []
    for number, tick in enumerate(ticks):
        batch: dict[str, Any] = {}
        for key, value in tick.items():
            if key == "task":
                batch[key] = value
            elif value.dtype == np.uint8:
                batch[key] = torch.from_numpy(value).permute(2, 0, 1).float()[None] / 255.0
            else:
                batch[key] = torch.from_numpy(value)[None]
        if number % every == 0:
            torch.manual_seed(number)
        with torch.inference_mode():
            actions.append(after(policy.select_action(before(batch)))[0].numpy())
    return np.array(actions)


def ours(
    folder: Path, ticks: list[dict[str, Any]], steps: int, every: int, *, stacked: bool
) -> Any:
    """The same by the server: history kept by it, or handed over as the node does."""
    policy = LeRobotPolicy(folder, device="cpu")
    policy.reset()
    actions: list[Any] = []
    for number, tick in enumerate(ticks):
        if number % every:
            if not stacked:
                policy.observe(tick)
            continue
        seen = tick
        if stacked and steps > 1:
            past = [ticks[max(number - back, 0)] for back in range(steps - 1, -1, -1)]
            seen = {key: np.stack([step[key] for step in past]) for key in tick if key != "task"}
            seen["task"] = tick["task"]
        torch.manual_seed(number)
        chunk = policy.predict(seen)
        assert chunk.dtype == np.float32
        actions.extend(chunk[:every])
    return np.array(actions[: len(ticks)])


def main(folder: Path) -> None:
    """Compare."""
    torch.set_num_threads(1)
    found = {}
    for name in MAKE:
        path = folder / name
        make(name, path)
        ticks = recording(name)
        about = LeRobotPolicy(path, device="cpu").describe()
        assert about["runtime"] == "lerobot-cpu"
        assert about["rename"] == {ABOVE: CAMERA}
        content = about["config"]
        every = content.get("n_action_steps") or content["action_chunk_size"]
        steps = content["n_obs_steps"]
        expected = theirs(name, path, ticks, every)
        kept = ours(path, ticks, steps, every, stacked=False)
        given = ours(path, ticks, steps, every, stacked=True)
        found[name] = {
            "history kept": float(np.abs(kept - expected).max()),
            "history given": float(np.abs(given - expected).max()),
            "spread": float(np.ptp(expected, axis=0).max()),
        }
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
