# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk latency and training speed of the policies, beside LeRobot's own classes on equal weights.

    python benchmarks/bench_policy.py [--lerobot-python PYTHON] [--quick] [--json FILE.json]

Rows: ACT (LeRobot's default size, 2 x 640x480), Diffusion (DDIM, 10 steps, default U-Net, 2
cameras x 2 observation steps) and Flow, per runtime and precision; "alone" is OpenVINO without
koch_fastconv, where that is there. `max diff` is the largest
difference of an action from this project's torch f32 result, in standard deviations of the action
(the lerobot row compares LeRobot's result with it). `times` is LeRobot's median by the row's.

These machines are noisy, so both sides are measured in turn within one run: every round times each
runtime once, LeRobot in a process of its own, and figures are taken over the rounds, as many as
fit into `--seconds` per table (three at least). Before each call all rest for 50 ms. Diffusion is
timed as it runs on an arm: each tick brings one new image per camera, and the other step's
features are known; `cold` has nothing to reuse. Training: forward, backward, clipping and
optimiser on one batch in memory.

Fixed seed, two threads, warm-up, CPU only. Run it on an idle machine; it takes ten minutes.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(path) for path in sorted((HERE.parent / "src").glob("koch_*"))]

import numpy as np  # noqa: E402
import torch  # noqa: E402

from koch_policy.checkpoint import Checkpoint, load_checkpoint, save_checkpoint  # noqa: E402
from koch_policy.config_json import config_from_dict  # noqa: E402
from koch_policy.configs import ACTION, ACTION_IS_PAD, FeatureType, PolicyConfig  # noqa: E402
from koch_policy.memory import keep_freed_memory  # noqa: E402
from koch_policy.models.registry import build_model  # noqa: E402
from koch_policy.normalize import IMAGENET  # noqa: E402
from koch_policy.runtime.base import EnginePolicy, example_observation  # noqa: E402
from koch_policy.runtime.openvino_runtime import OpenVinoEngine  # noqa: E402
from koch_policy.runtime.torch_runtime import TorchEngine  # noqa: E402
from koch_policy.train.config import TrainConfig  # noqa: E402
from koch_policy.train.optim import make_optimizer, optimize  # noqa: E402
from koch_rig.arm_model import KOCH_V1_1  # noqa: E402

J = len(KOCH_V1_1.joints)

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
    ("torch", "f32"), ("torch", "bf16"), ("openvino", "f32"), ("alone", "f32"),
    ("openvino", "bf16"), ("alone", "bf16"), ("openvino", "int8"), ("alone", "int8"),
)  # fmt: skip
COLD = ("openvino", "f32")  # the runtime that is also timed with nothing to reuse
LEAST, MOST = 3, 60  # rounds
# Before each call: the threads of the one before still spin for some milliseconds, in case that
# more work comes. An arm asks for a chunk once or twice a second.
REST_S = 0.05
CALIBRATION = 4  # frames


@dataclass
class Row:
    """Figures of one policy on one runtime: per chunk, or per step of training."""

    policy: str
    name: str
    call: Callable[[], float] = field(repr=False)  # does it once; seconds
    seconds: list[float] = field(default_factory=list)
    difference: float = float("nan")
    samples: int = 0  # per step of training, 0 for a chunk

    @property
    def median_s(self) -> float:
        """Median time [s]."""
        return float(np.median(self.seconds))

    def to_dict(self, reference: Row | None) -> dict[str, Any]:
        """Return plain figures."""
        ms = np.asarray(self.seconds) * 1e3
        result: dict[str, Any] = {
            "policy": self.policy, "runtime": self.name, "n": len(ms),
            "median_ms": float(np.median(ms)), "p95_ms": float(np.percentile(ms, 95)),
            "max_ms": float(ms.max()),
        }  # fmt: skip
        if self.samples:
            result["samples_per_s"] = self.samples / self.median_s
        else:
            result["max_diff_std"] = self.difference
        if reference is not None:
            result["times"] = reference.median_s / self.median_s
        return result


class LeRobotSide:
    """LeRobot with one checkpoint in a process of its own, asked line by line."""

    def __init__(self, python: str, folder: Path, batch: int) -> None:
        command = [python, str(SIDE), "serve", str(folder), str(batch)]
        environment = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._line()

    def _line(self) -> str:
        """The next answer; LeRobot prints lines of its own between them."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:].strip()
        raise SystemExit(f"LeRobot's process ended with code {self._process.wait()}")

    def ask(self, what: str) -> float:
        """Let it do something; the seconds it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(what + "\n")
        self._process.stdin.flush()
        return float(self._line())

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


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
    unit = {"mean": torch.zeros(J), "std": torch.ones(J), "min": -torch.ones(J),
            "max": torch.ones(J)}  # fmt: skip
    statistics = {"observation.state": unit, ACTION: unit}
    statistics |= {key: dict(IMAGENET) for key in config.cameras}
    save_checkpoint(folder, config, model, statistics)
    return folder


def start_noise(config: PolicyConfig) -> Any:
    """Return one fixed start of the reverse process."""
    draw = np.random.default_rng(0)
    return draw.standard_normal((config.horizon_steps, config.action_dim)).astype(np.float32)


def timed(call: Callable[[], Any]) -> float:
    """Return the seconds of a call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def in_turn(rows: Sequence[Row], seconds: float) -> None:
    """Time every row once per round, as long as the time lasts."""
    for row in rows:
        row.call()
    end = time.monotonic() + seconds
    for done in range(MOST):
        if done >= LEAST and time.monotonic() > end:
            return
        for row in rows:
            time.sleep(REST_S)
            row.seconds.append(row.call())


def chunk_rows(
    kind: str, checkpoint: Checkpoint, side: LeRobotSide | None, wanted: Sequence[str]
) -> list[Row]:
    """Load the wanted runtimes and compare their actions with the first one's."""
    config = checkpoint.config
    frames = [example_observation(checkpoint, seed) for seed in range(CALIBRATION + 2)]
    noise = start_noise(config)
    rows: list[Row] = []
    exact: Any = None
    for runtime, precision in VARIANTS:
        if f"{runtime}-{precision}" not in wanted:
            continue
        begin = time.monotonic()
        engine: Any
        if runtime == "torch":
            engine = TorchEngine(checkpoint, device=torch.device("cpu"), precision=precision)
        else:
            engine = OpenVinoEngine(
                checkpoint, precision=precision, calibration=frames[:CALIBRATION],
                accelerates=runtime == "openvino",
            )  # fmt: skip
        policy = EnginePolicy(checkpoint, engine)
        policy.predict(frames[1])
        row = Row(kind, f"{runtime} {precision}", on_an_arm(policy, checkpoint))
        policy.reset()
        chunk = policy.predict(frames[0], noise=noise)
        exact = chunk if exact is None else exact
        row.difference = float(np.abs(chunk - exact).max())
        rows.append(row)
        if config.n_obs_steps > 1 and (runtime, precision) == COLD:
            both = frames[2:4]
            call = cold(EnginePolicy(checkpoint, engine), both, config)
            rows.append(Row(kind, f"{row.name} cold", call, difference=row.difference))
        note(f"{kind} {row.name} loaded in {time.monotonic() - begin:.0f} s")
    if side is not None:
        difference = lerobot_difference(side, checkpoint, frames[0], exact)
        rows.append(Row(kind, "lerobot", lambda: side.ask("chunk"), difference=difference))
    return rows


def on_an_arm(policy: EnginePolicy, checkpoint: Checkpoint) -> Callable[[], float]:
    """A call that predicts on one new image per camera; making the images is not timed."""
    seeds = iter(range(10_000, 1_000_000))

    def call() -> float:
        frame = example_observation(checkpoint, next(seeds))
        return timed(lambda: policy.predict(frame))

    return call


def cold(policy: EnginePolicy, frames: Any, config: PolicyConfig) -> Callable[[], float]:
    """A call that predicts on observation steps that are all new."""
    pair = {key: np.stack([frame[key] for frame in frames]) for key in config.input_features}

    def call() -> float:
        policy.reset()
        return timed(lambda: policy.predict(pair))

    return call


def lerobot_difference(side: LeRobotSide, checkpoint: Checkpoint, frame: Any, ours: Any) -> float:
    """Return the largest difference between LeRobot's actions and ours."""
    from safetensors.torch import load_file, save_file

    config, folder = checkpoint.config, checkpoint.path
    content = {"noise": torch.from_numpy(start_noise(config)[None])}
    for key in config.input_features:
        value = np.asarray(frame[key])
        if key in config.cameras:
            value = value.transpose(2, 0, 1).astype(np.float32) / 255.0
        steps = config.n_obs_steps
        value = np.stack([value] * steps) if steps > 1 else value
        content[key] = torch.from_numpy(value[None].copy())
    save_file(content, folder / "io.safetensors")
    side.ask("answer")
    theirs = load_file(folder / "lerobot_answer.safetensors")["chunk"][0].numpy()
    return float(np.abs(ours - theirs).max())


def training_rows(
    kind: str, config: PolicyConfig, batch: int, side: LeRobotSide | None
) -> list[Row]:
    """Training in float32, in bfloat16 where that is safe, and LeRobot's."""
    rows = []
    data = training_batch(config, batch)
    for amp in (False, True):
        torch.manual_seed(0)
        model = build_model(config).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
        optimizer = make_optimizer(model, config, TrainConfig())

        def step(m: Any = model, o: Any = optimizer, a: bool = amp) -> float:
            return timed(lambda: optimize(m, o, [data], amp=a, clip_norm=10.0))

        rows.append(Row(kind, "train bf16" if amp else "train f32", step, samples=batch))
    if side is not None:
        rows.append(Row(kind, "lerobot train", lambda: side.ask("train"), samples=batch))
    return rows


def training_batch(config: PolicyConfig, size: int) -> dict[str, torch.Tensor]:
    """Return a made-up normalised training batch; images lie as the data loader gives them."""
    steps = (config.n_obs_steps,) if config.n_obs_steps > 1 else ()
    batch = {}
    for key, feature in config.input_features.items():
        if feature.type is FeatureType.VISUAL:
            channels, height, width = feature.shape
            batch[key] = torch.randn((size, *steps, height, width, channels)).movedim(-1, -3)
        else:
            batch[key] = torch.randn((size, *steps, *feature.shape))
    batch[ACTION] = torch.randn((size, config.horizon_steps, config.action_dim))
    batch[ACTION_IS_PAD] = torch.zeros((size, config.horizon_steps), dtype=torch.bool)
    return batch


def note(text: str) -> None:
    """Say what goes on."""
    print(f"  {text}", file=sys.stderr, flush=True)


def print_rows(rows: Sequence[Row], reference: Row | None) -> None:
    """Print figures; `times` is the reference's median by this row's."""
    for row in rows:
        ms = np.asarray(row.seconds) * 1e3
        ratio = reference.median_s / row.median_s if reference else float("nan")
        speed = f"{row.samples / row.median_s:.2f}/s"
        last = speed if row.samples else f"{row.difference:.1e}"
        print(
            f"{row.policy:10} {row.name:19} {np.median(ms):8.1f}ms {np.percentile(ms, 95):8.1f}ms "
            f"{len(ms):3d} {last:>9} {ratio:6.2f}",
            flush=True,
        )


def measure(kind: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one policy; print its rows as they are known."""
    config = make_config(kind, *options.size)
    checkpoint = load_checkpoint(write_checkpoint(config, folder))
    python = options.lerobot_python
    side = LeRobotSide(python, folder, options.batch) if python and kind != "flow" else None
    found = []
    try:
        makers = [lambda: chunk_rows(kind, checkpoint, side, options.runtimes)]
        if options.batch:
            makers.append(lambda: training_rows(kind, config, options.batch, side))
        for make in makers:
            rows = make()
            in_turn(rows, options.seconds)
            reference = rows[-1] if side is not None else None
            print_rows(rows, reference)
            found += [row.to_dict(reference) for row in rows]
            del rows
    finally:
        if side is not None:
            side.close()
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description="Policy latency and training speed.")
    named = os.environ.get("KOCH_LEROBOT_PYTHON", "").split(os.pathsep)
    parser.add_argument("--lerobot-python", default=named[0], help="the first named by default")
    parser.add_argument("--policies", nargs="+", choices=list(SIZES), default=list(SIZES))
    names = [f"{runtime}-{precision}" for runtime, precision in VARIANTS]
    parser.add_argument(
        "--runtimes", nargs="+", choices=names, default=names,
        help="differences are counted from the first",
    )  # fmt: skip
    parser.add_argument("--seconds", type=float, default=60.0, help="of timing, per table")
    parser.add_argument("--size", type=int, nargs=2, default=(480, 640), metavar=("H", "W"))
    parser.add_argument("--batch", type=int, default=4, help="of training; 0 leaves it out")
    parser.add_argument("--quick", action="store_true", help="small images, three rounds")
    parser.add_argument("--json", type=Path, dest="out", help="write the figures as JSON")
    options = parser.parse_args()
    if options.quick:
        options.size, options.seconds, options.batch = (96, 128), 0.0, 2
    torch.set_num_threads(THREADS)
    keep_freed_memory()  # as `koch train` and the policy node do
    machine = {
        "cpus": os.cpu_count(), "machine": platform.platform(), "threads": THREADS,
        "torch": torch.__version__, "size": list(options.size), "batch": options.batch,
        "load_1min": os.getloadavg()[0],
    }  # fmt: skip
    print("  ".join(f"{key} {value}" for key, value in machine.items()))
    print(
        f"{'policy':10} {'runtime':19} {'median':>10} {'p95':>10} {'n':>3} {'max diff':>9}  times"
    )
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as temporary:
        for kind in options.policies:
            rows += measure(kind, Path(temporary) / kind, options)
            if options.out is not None:  # what is there survives an interruption
                content = {"machine": machine, "rows": rows}
                options.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
