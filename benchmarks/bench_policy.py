# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk latency and training speed of the policies, beside LeRobot's own classes on equal weights.

    python benchmarks/bench_policy.py [--lerobot-python PYTHON] [--quick] [--out FILE.json]

Rows: ACT (LeRobot's default size, 2 x 640x480), Diffusion (DDIM, 10 steps, default U-Net, 2
cameras x 2 observation steps) and Flow, per runtime and precision. `max diff` is the largest
difference of an action from this project's torch f32 result, in standard deviations of the action
(the lerobot row compares LeRobot's result with it).

Both sides are measured in turn within one run, because these machines are noisy: every round
times each runtime once, and figures are taken over the rounds. Diffusion is timed as it runs on an
arm: each tick brings one new picture per camera, and the other step's features are known. The row
`cold` has nothing to reuse.

Fixed seed, two threads, warm-up, no accelerator (a GPU would be synchronised by the copy of its
result). Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(path) for path in sorted((HERE.parent / "src").glob("koch_*"))]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from koch_policy.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from koch_policy.config_json import config_from_dict  # noqa: E402
from koch_policy.configs import ACTION, ACTION_IS_PAD, FeatureType, PolicyConfig  # noqa: E402
from koch_policy.models.registry import build_model, policy_model  # noqa: E402
from koch_policy.normalize import IMAGENET  # noqa: E402
from koch_policy.runtime import load_policy  # noqa: E402
from koch_policy.runtime.base import example_observation  # noqa: E402
from koch_policy.train.config import TrainConfig  # noqa: E402
from koch_policy.train.optim import make_optimizer  # noqa: E402

THREADS = 2
SIDE = HERE / "lerobot_policy_side.py"
CAMERAS = ("observation.images.above", "observation.images.wrist")
SIZES: dict[str, dict[str, Any]] = {
    "act": {"type": "act"},
    "diffusion": {
        "type": "diffusion", "noise_scheduler_type": "DDIM", "num_inference_steps": 10,
        "horizon": 16, "n_action_steps": 8, "use_group_norm": True, "crop_shape": None,
        "use_separate_rgb_encoder_per_camera": False,
    },
    "flow": {"type": "flow"},
}  # fmt: skip
VARIANTS = (
    ("torch", "f32"), ("torch", "bf16"), ("openvino", "f32"), ("openvino", "bf16"),
    ("openvino", "int8"),
)  # fmt: skip


@dataclass
class Row:
    """Figures of one policy on one runtime."""

    policy: str
    runtime: str
    seconds: list[float] = field(default_factory=list)
    difference: float = float("nan")
    samples_per_s: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Return plain figures in milliseconds."""
        result: dict[str, Any] = {"policy": self.policy, "runtime": self.runtime}
        if self.seconds:
            ms = np.asarray(self.seconds) * 1e3
            result |= {
                "median_ms": float(np.median(ms)),
                "p95_ms": float(np.percentile(ms, 95)),
                "p99_ms": float(np.percentile(ms, 99)),
                "max_ms": float(ms.max()),
                "n": len(ms),
                "max_diff_std": self.difference,
            }
        if np.isfinite(self.samples_per_s):
            result["samples_per_s"] = self.samples_per_s
        return result


def make_config(kind: str, height: int, width: int) -> PolicyConfig:
    """Return the configuration that is measured."""
    inputs: dict[str, Any] = {"observation.state": {"type": "STATE", "shape": [6]}}
    for key in CAMERAS:
        inputs[key] = {"type": "VISUAL", "shape": [3, height, width]}
    action = {ACTION: {"type": "ACTION", "shape": [6]}}
    content = {"input_features": inputs, "output_features": action, **SIZES[kind]}
    return config_from_dict(content, "bench_policy")


def write_checkpoint(config: PolicyConfig, folder: Path) -> Path:
    """Write random weights with statistics of standard deviation one."""
    torch.manual_seed(0)
    model = build_model(config)
    unit = {"mean": torch.zeros(6), "std": torch.ones(6), "min": -torch.ones(6),
            "max": torch.ones(6)}  # fmt: skip
    statistics = {"observation.state": unit, ACTION: unit}
    statistics |= {key: dict(IMAGENET) for key in config.cameras}
    save_checkpoint(folder, config, model, statistics)
    return folder


def start_noise(config: PolicyConfig) -> Any:
    """Return one fixed start of the reverse process."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((config.horizon_steps, config.action_dim)).astype(np.float32)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Return the seconds of a call and its result."""
    begin = time.perf_counter()
    result = call()
    return time.perf_counter() - begin, result


def measure_policies(kind: str, folder: Path, rounds: int, variants: Any) -> list[Row]:
    """Time every runtime in turn, round after round."""
    checkpoint = load_checkpoint(folder)
    config = checkpoint.config
    frames = [example_observation(checkpoint, seed) for seed in range(rounds + 3)]
    noise = start_noise(config)
    policies, rows = [], []
    for runtime, precision in variants:
        print(f"  loading {kind} {runtime} {precision}", file=sys.stderr, flush=True)
        policies.append(
            load_policy(folder, runtime, precision=precision, device="cpu",
                        calibration=frames[:3])
        )  # fmt: skip
        rows.append(Row(kind, f"{runtime} {precision}"))
    exact = None
    for policy, row in zip(policies, rows, strict=True):
        policy.predict(frames[1])
        chunk = policy.predict(frames[0], noise=noise)
        exact = chunk if exact is None else exact
        row.difference = float(np.abs(chunk - exact).max())
    for frame in frames[-rounds:]:
        for policy, row in zip(policies, rows, strict=True):
            row.seconds.append(timed(lambda p=policy, f=frame: p.predict(f))[0])
    if config.n_obs_steps > 1:
        rows += cold_rows(kind, policies, rows, frames[-rounds:], config)
    return rows


def cold_rows(kind: str, policies: Any, rows: Any, frames: Any, config: PolicyConfig) -> list[Row]:
    """Time predictions whose two observation steps are both new."""
    result = []
    for policy, row in zip(policies, rows, strict=True):
        cold = Row(kind, f"{row.runtime} cold", difference=row.difference)
        for first, second in pairwise(frames):
            policy.reset()
            pair = {key: np.stack((first[key], second[key])) for key in config.input_features}
            cold.seconds.append(timed(lambda p=policy, o=pair: p.predict(o))[0])
        result.append(cold)
    return result


def measure_training(kind: str, config: PolicyConfig, batch: int, steps: int) -> list[Row]:
    """Return samples/s of training in float32 and in bfloat16 autocast."""
    rows = []
    for amp in (False, True):
        torch.manual_seed(0)
        model = build_model(config).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = make_optimizer(model, config, TrainConfig())
        data = training_batch(config, batch)

        def step(m: Any = model, o: Any = optimizer, d: Any = data, a: bool = amp) -> None:
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a):
                loss, _ = policy_model(m).loss(d)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(m.parameters(), 10.0)
            o.step()
            o.zero_grad(set_to_none=True)

        step()
        seconds = [timed(step)[0] for _ in range(steps)]
        name = "train bf16" if amp else "train f32"
        rows.append(Row(kind, name, samples_per_s=batch / float(np.median(seconds))))
    return rows


def training_batch(config: PolicyConfig, size: int) -> dict[str, torch.Tensor]:
    """Return a made-up normalised training batch."""
    steps = (config.n_obs_steps,) if config.n_obs_steps > 1 else ()
    batch = {}
    for key, feature in config.input_features.items():
        value = torch.randn((size, *steps, *feature.shape))
        if feature.type is FeatureType.VISUAL and not steps:
            value = value.contiguous(memory_format=torch.channels_last)
        batch[key] = value
    batch[ACTION] = torch.randn((size, config.horizon_steps, config.action_dim))
    batch[ACTION_IS_PAD] = torch.zeros((size, config.horizon_steps), dtype=torch.bool)
    return batch


def measure_lerobot(python: str, kind: str, folder: Path, rounds: int, batch: int) -> list[Row]:
    """Time LeRobot's own class with the same weights, in its own process."""

    def run(*arguments: object) -> Any:
        command = [python, str(SIDE), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    row = Row(kind, "lerobot", seconds=run("time", folder, rounds)["seconds"])
    row.difference = lerobot_difference(python, folder)
    speed = run("train", folder, 2, batch)["samples_per_s"]
    return [row, Row(kind, "lerobot train f32", samples_per_s=speed)]


def lerobot_difference(python: str, folder: Path) -> float:
    """Return the largest difference between LeRobot's actions and torch f32 here."""
    from safetensors.torch import load_file, save_file

    checkpoint = load_checkpoint(folder)
    config = checkpoint.config
    frame = example_observation(checkpoint, 0)
    steps = config.n_obs_steps
    observation: dict[str, Any] = {}
    for key in config.input_features:
        value = np.asarray(frame[key])
        if key in config.cameras:
            value = value.transpose(2, 0, 1).astype(np.float32) / 255.0
        observation[key] = np.stack([value] * steps) if steps > 1 else value
    noise = start_noise(config)
    content = {key: torch.from_numpy(value[None].copy()) for key, value in observation.items()}
    save_file(content | {"noise": torch.from_numpy(noise[None])}, folder / "io.safetensors")
    subprocess.run([python, str(SIDE), "run", str(folder)], check=True, capture_output=True)
    theirs = load_file(folder / "lerobot_answer.safetensors")["chunk"][0].numpy()
    ours = load_policy(folder, "torch", device="cpu").predict(observation, noise=noise)
    return float(np.abs(ours - theirs).max())


def print_table(rows: list[Row]) -> None:
    """Print the figures; `times` is LeRobot's median by this row's."""
    reference = {r.policy: r for r in rows if r.runtime == "lerobot"}
    trained = {r.policy: r for r in rows if r.runtime == "lerobot train f32"}
    print(
        f"{'policy':10} {'runtime':20} {'median':>9} {'p95':>9} {'n':>4} {'max diff':>10}  times"
    )
    for row in rows:
        if row.seconds:
            ms = np.asarray(row.seconds) * 1e3
            base = reference.get(row.policy)
            ratio = np.median(base.seconds) * 1e3 / np.median(ms) if base else float("nan")
            print(f"{row.policy:10} {row.runtime:20} {np.median(ms):7.1f}ms "
                  f"{np.percentile(ms, 95):7.1f}ms {len(ms):4d} {row.difference:10.2e} "
                  f"{ratio:6.2f}")  # fmt: skip
        else:
            base = trained.get(row.policy)
            ratio = row.samples_per_s / base.samples_per_s if base else float("nan")
            print(f"{row.policy:10} {row.runtime:20} {row.samples_per_s:7.2f} samples/s "
                  f"{'':18} {ratio:6.2f}")  # fmt: skip


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Policy latency and training speed.")
    parser.add_argument("--lerobot-python", default=os.environ.get("KOCH_LEROBOT_PYTHON"))
    parser.add_argument("--policies", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=8, help="training batch")
    parser.add_argument("--train-steps", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small pictures, few rounds")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.size, options.rounds, options.batch, options.train_steps = (96, 128), 3, 2, 1
    torch.set_num_threads(THREADS)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.policies:
            config = make_config(kind, *options.size)
            folder = write_checkpoint(config, Path(temporary) / kind)
            rows += measure_policies(kind, folder, options.rounds, VARIANTS)
            rows += measure_training(kind, config, options.batch, options.train_steps)
            if options.lerobot_python and kind != "flow":
                python = options.lerobot_python.split(":")[0]
                rows += measure_lerobot(python, kind, folder, options.rounds, options.batch)
    print(f"{platform.machine()} {os.cpu_count()} CPUs, {THREADS} threads, torch "
          f"{torch.__version__}, pictures {options.size[0]}x{options.size[1]}, load "
          f"{os.getloadavg()[0]:.1f}")  # fmt: skip
    print_table(rows)
    if options.out is not None:
        machine = {"cpus": os.cpu_count(), "machine": platform.platform(), "threads": THREADS}
        content = {"machine": machine, "rows": [row.to_dict() for row in rows]}
        options.out.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
