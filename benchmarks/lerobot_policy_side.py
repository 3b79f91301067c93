# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's side of policy comparisons; runs under a Python where lerobot is installed.

    make SPECS.json FOLDER              write checkpoints and what they answer
    run FOLDER...                       answer to io.safetensors in each checkpoint's folder
    again FOLDER...                     load and save into FOLDER/again, as fine-tuning does
    select FOLDER...                    act tick by tick on ticks.safetensors
    serve FOLDER BATCH                  answer lines on stdin: `chunk` and `train` by the seconds
                                        of one chunk or step, `answer` as `run` does
    losses FOLDER BATCHES.safetensors SEED       losses of training on raw batches, as JSON

It uses no code of this project. SPECS: {name: {"type", "inputs", "action", "options", "seed"}}.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file

THREADS = 2
IO = "io.safetensors"


def classes(kind: str) -> tuple[Any, Any]:
    """Return the policy and configuration class of a type, in any LeRobot version."""
    if kind == "act":
        from lerobot.policies.act.configuration_act import ACTConfig
        from lerobot.policies.act.modeling_act import ACTPolicy

        return ACTPolicy, ACTConfig
    from lerobot.policies.diffusion.configuration_diffusion import DiffusionConfig
    from lerobot.policies.diffusion.modeling_diffusion import DiffusionPolicy

    return DiffusionPolicy, DiffusionConfig


def random_statistics(config: Any, seed: int) -> dict[str, dict[str, torch.Tensor]]:
    """Return plausible statistics for every feature."""
    draw = np.random.RandomState(seed)
    result = {}
    for key, feature in {**config.input_features, **config.output_features}.items():
        shape = (3, 1, 1) if feature.type.value == "VISUAL" else tuple(feature.shape)
        scale = 1.0 if feature.type.value == "VISUAL" else 50.0
        mean = draw.uniform(0.3, 0.6, shape) * scale
        std = draw.uniform(0.2, 0.4, shape) * scale
        values = {"mean": mean, "std": std, "min": mean - 2 * std, "max": mean + 2 * std}
        values |= {"q01": mean - 1.9 * std, "q99": mean + 1.8 * std}
        values |= {"q10": mean - 1.2 * std, "q90": mean + 1.1 * std}
        result[key] = {k: torch.tensor(v, dtype=torch.float32) for k, v in values.items()}
    return result


def random_io(config: Any, seed: int) -> dict[str, torch.Tensor]:
    """Return an observation with its batch dimension (and steps), and noise for Diffusion."""
    draw = torch.Generator().manual_seed(seed)
    steps = (config.n_obs_steps,) if config.type == "diffusion" else ()
    content = {}
    for key, feature in config.input_features.items():
        shape = (1, *steps, *feature.shape)
        if feature.type.value == "VISUAL":
            content[key] = torch.randint(0, 256, shape, generator=draw).float() / 255.0
        else:
            content[key] = 20 * torch.randn(shape, generator=draw) + 20
    if config.type == "diffusion":
        size = config.output_features["action"].shape[0]
        content["noise"] = torch.randn((1, config.horizon, size), generator=draw)
    return content


def pipelines(config: Any, **options: Any) -> tuple[Any, Any]:
    """Return LeRobot's pre- and post-processor; identity where the version has none."""
    try:
        from lerobot.policies.factory import make_pre_post_processors
    except ImportError:
        return (lambda batch: batch), (lambda chunk: chunk)
    return make_pre_post_processors(config, **options)


def answer(policy: Any, before: Any, after: Any, content: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return LeRobot's chunk (1, T, A) in dataset units."""
    batch = {k: v.clone() for k, v in content.items() if k.startswith("observation")}
    has_processors = not hasattr(policy, "normalize_inputs")
    batch = before(batch) if has_processors else policy.normalize_inputs(batch)
    torch.manual_seed(0)  # DDPM draws noise at every step
    with torch.no_grad():
        keys = list(policy.config.image_features)
        if policy.config.type == "act":
            if keys:
                batch["observation.images"] = [batch[key] for key in keys]
            chunk = policy.model(batch)[0]
        else:
            if keys:
                batch["observation.images"] = torch.stack([batch[key] for key in keys], dim=-4)
            chunk = generate(policy.diffusion, batch, content["noise"])
    if has_processors:
        return after(chunk)
    return policy.unnormalize_outputs({"action": chunk})["action"]


def save_answer(folder: Path, chunk: torch.Tensor) -> None:
    """Write a chunk beside the checkpoint."""
    save_file({"chunk": chunk.contiguous()}, folder / "lerobot_answer.safetensors")


def generate(diffusion: Any, batch: dict[str, Any], noise: torch.Tensor) -> torch.Tensor:
    """Run the reverse process from given noise; old versions draw it themselves."""
    try:
        return diffusion.generate_actions(batch, noise=noise)
    except TypeError:
        condition = diffusion._prepare_global_conditioning(batch)
        scheduler, sample = diffusion.noise_scheduler, noise
        scheduler.set_timesteps(diffusion.num_inference_steps)
        for t in scheduler.timesteps:
            step = torch.full(sample.shape[:1], t, dtype=torch.long)
            output = diffusion.unet(sample, step, global_cond=condition)
            sample = scheduler.step(output, t, sample).prev_sample
        start = diffusion.config.n_obs_steps - 1
        return sample[:, start : start + diffusion.config.n_action_steps]


def make(spec: dict[str, Any], folder: Path) -> None:
    """Write a checkpoint with random weights, an observation and the actions for it."""
    from lerobot.configs.types import FeatureType, NormalizationMode, PolicyFeature

    kind, config_class = classes(spec["type"])
    inputs = {k: PolicyFeature(FeatureType[t], tuple(s)) for k, (t, s) in spec["inputs"].items()}
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (spec["action"],))}
    options = dict(spec.get("options", {}), device="cpu", push_to_hub=False)
    options.setdefault("pretrained_backbone_weights", None)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}
    if "normalization_mapping" in options:
        modes = options["normalization_mapping"].items()
        options["normalization_mapping"] = {k: NormalizationMode[v] for k, v in modes}
    config = config_class(input_features=inputs, output_features=outputs, **options)
    torch.manual_seed(spec.get("seed", 0))
    statistics = random_statistics(config, spec.get("seed", 0))
    import inspect

    old = "dataset_stats" in inspect.signature(kind.__init__).parameters
    policy = kind(config, dataset_stats=statistics) if old else kind(config)
    randomise(policy, spec.get("seed", 0))
    policy.eval()
    before, after = pipelines(config, dataset_stats=statistics)
    policy.save_pretrained(folder)
    for pipeline in (before, after):
        if hasattr(pipeline, "save_pretrained"):
            pipeline.save_pretrained(folder)
    content = random_io(config, spec.get("seed", 0))
    content["expected"] = answer(policy, before, after, content).contiguous()
    save_file({k: v.contiguous() for k, v in content.items()}, folder / IO)


def randomise(policy: torch.nn.Module, seed: int) -> None:
    """Give norms and biases values that a slip would show in (not ones and zeros)."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in policy.state_dict().items():
        if "buffer_" in name or not value.is_floating_point() or "pos_" in name:
            continue
        if name.endswith("running_var"):
            value.copy_(torch.rand(value.shape, generator=draw) + 0.5)
        elif value.dim() == 1:
            value.add_(0.1 * torch.randn(value.shape, generator=draw))


def load(folder: Path) -> tuple[Any, Any, Any]:
    """Load a checkpoint as LeRobot does."""
    kind, _ = classes(json.loads((folder / "config.json").read_text())["type"])
    policy = kind.from_pretrained(str(folder), strict=True).eval()
    before, after = pipelines(policy.config, pretrained_path=str(folder))
    return policy, before, after


def select(folder: Path) -> dict[str, torch.Tensor]:
    """Return the actions (N, A) of LeRobot's own control loop on N recorded observations.

    `noise` (C, H, A) holds the start of each chunk's reverse process, one per n_action_steps. ACT
    hands out a whole `chunk` (T, A) of the first observation as well.
    """
    policy, before, after = load(folder)
    ticks = load_file(folder / "ticks.safetensors")
    noise = ticks.pop("noise", None)
    found = {}
    if policy.config.type == "act":
        first = before({key: value[0] for key, value in ticks.items()})
        found["chunk"] = after(policy.predict_action_chunk(first))[0].contiguous()
    policy.reset()
    actions = []
    for tick in range(len(next(iter(ticks.values())))):
        batch = before({key: value[tick] for key, value in ticks.items()})
        chunk = tick // policy.config.n_action_steps
        options = {} if noise is None else {"noise": noise[chunk][None]}
        torch.manual_seed(chunk)  # DDPM draws noise at every step
        actions.append(after(policy.select_action(batch, **options))[0])
    return {**found, "actions": torch.stack(actions)}


def losses(folder: Path, batches: dict[str, torch.Tensor], seed: int) -> list[float]:
    """Train on raw batches (K, B, ...) in order with LeRobot's optimiser; return the K losses."""
    policy, before, _ = load(folder)
    policy.train()
    optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
    torch.manual_seed(seed)
    count = len(next(iter(batches.values())))
    return [
        one_step(policy, optimizer, before({key: value[k] for key, value in batches.items()}))
        for k in range(count)
    ]


def training_batch(config: Any, size: int) -> dict[str, torch.Tensor]:
    """Return a made-up normalised training batch."""
    draw = torch.Generator().manual_seed(1)
    steps = (config.n_obs_steps,) if config.type == "diffusion" else ()
    batch = {
        key: torch.randn((size, *steps, *feature.shape), generator=draw)
        for key, feature in config.input_features.items()
    }
    horizon = config.horizon if config.type == "diffusion" else config.chunk_size
    action = config.output_features["action"].shape[0]
    batch["action"] = torch.randn((size, horizon, action), generator=draw)
    batch["action_is_pad"] = torch.zeros((size, horizon), dtype=torch.bool)
    return batch


def one_step(policy: Any, optimizer: Any, batch: dict[str, torch.Tensor]) -> float:
    """Take one optimiser step as lerobot_train does; return the loss."""
    loss, _ = policy.forward(dict(batch))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(policy.parameters(), 10.0)
    optimizer.step()
    optimizer.zero_grad()
    return float(loss)


def serve(folder: Path, size: int) -> None:
    """Do what each line of stdin says and print the seconds it took.

    The optimiser comes with the first step, so that chunks are timed beside a small process.
    """
    policy, before, after = load(folder)
    content = random_io(policy.config, 0)
    optimizer = batch = None
    print("= ready", flush=True)  # LeRobot prints lines of its own
    for line in sys.stdin:
        if line.strip() == "train" and optimizer is None:
            policy.train()
            optimizer = policy.config.get_optimizer_preset().build(policy.get_optim_params())
            batch = training_batch(policy.config, size)
        begin = time.perf_counter()
        if line.strip() == "train":
            assert batch is not None
            one_step(policy, optimizer, batch)
        elif line.strip() == "answer":
            save_answer(folder, answer(policy, before, after, load_file(folder / IO)))
        else:
            answer(policy, before, after, content)
        print("=", time.perf_counter() - begin, flush=True)


def main(arguments: list[str]) -> None:
    """Dispatch."""
    torch.set_num_threads(THREADS)
    command, folder = arguments[0], Path(arguments[1])
    if command == "make":
        for name, spec in json.loads(folder.read_text()).items():
            make(spec, Path(arguments[2]) / name)
        return
    if command == "run":
        for folder in map(Path, arguments[1:]):
            save_answer(folder, answer(*load(folder), load_file(folder / IO)))
        return
    if command == "again":
        for folder in map(Path, arguments[1:]):
            for part in load(folder):
                part.save_pretrained(folder / "again")
        return
    if command == "select":
        for folder in map(Path, arguments[1:]):
            save_file(select(folder), folder / "lerobot_actions.safetensors")
        return
    if command == "losses":
        print(json.dumps(losses(folder, load_file(arguments[2]), int(arguments[3]))))
        return
    assert command == "serve", __doc__
    serve(folder, int(arguments[2]))


if __name__ == "__main__":
    main(sys.argv[1:])
