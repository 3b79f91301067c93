# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node on the simulated rig, and the seams of its chunk execution strategies.

graph: `koch up` on config/rig.sim.yaml with a policy process (untrained ACT: joint state and the
camera `above` reduced to 128x96). Figures: camera stamp (the chunk carries it) -> first goal
written that came from that image; deviation of the command period (30 Hz, stamps of arrival) and
of the goal period (100 Hz, stamps of writing); CPU of the policy's process (utime + stime); jerk
at the seams of what was really commanded.

seams: a flow policy whose data are known exactly (one of two smooth paths, drawn again for every
chunk: the multimodal case in which plain switching jumps). The scheduler executes it with a fixed
inference delay, all strategies on the same noise. Figures: third difference of the commands at the
seams (the greatest of the joints and of the three differences that span a seam) and elsewhere, and
the distance to the nearer path (smoothness must not be bought with wrong motion).

bag: the same statistics recomputed from a recorded bag of a running policy.

Run alone: python benchmarks/bench_runtime.py [--quick] [--only seams|graph] [--seconds S]
    [--bag BAG] [--json FILE]
A minute for the seams, half a minute and the seconds for each run on the graph.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from watch import cpu_s

from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

REPO = Path(__file__).resolve().parent.parent
RIG = REPO / "config" / "rig.sim.yaml"
FPS = 30.0
CHUNK = 24
DELAY_S = 0.12
SPEED = 1.5  # of the phase [rad/s]
SCALE = 0.4  # of the action's normalisation [rad]
NOISE = 3e-4  # of the data, normalised
SEED = 0
_PATIENCE_S = 30.0


def quantiles(values: Any, unit: float = 1e3) -> dict[str, float]:
    """Median, p95, p99 and maximum."""
    array = np.asarray(values, dtype=float) * unit
    if not len(array):
        return {
            "median": float("nan"),
            "p95": float("nan"),
            "p99": float("nan"),
            "max": float("nan"),
        }
    found = np.quantile(array, [0.5, 0.95, 0.99, 1.0])
    return dict(zip(("median", "p95", "p99", "max"), (round(float(v), 3) for v in found),
                    strict=True))  # fmt: skip


# -- seams --------------------------------------------------------------------------------------


def path(phase: Any, side: Any) -> Any:
    """A smooth path of six joints [rad], one of two kinds, (..., 6)."""
    phase = np.asarray(phase, dtype=float)[..., None]
    side = np.asarray(side, dtype=float)[..., None]
    joints = np.arange(J)
    return 0.5 * np.sin(phase + 0.4 * joints) + 0.12 * side * np.cos(0.5 * phase + 0.3 * joints)


class ExactField:
    """Engine of a flow policy whose data are known: one of two paths, with a little noise.

    The velocity follows from the posterior mean of a mixture of two Gaussians, so no training
    stands between the strategies and their figures; torch differentiates through it.
    """

    name = "exact"
    iterative = None  # it can be differentiated

    def condition(self, vectors: dict[str, Any], features: list[Any]) -> Any:
        """The phase."""
        half = vectors["observation.environment_state"][0, 2:4]
        return 2.0 * torch.atan2(half[0], half[1])

    def evaluate(self, noisy: Any, moment: Any, condition: Any) -> Any:
        """Velocity of (1, T, 6) at time t: (x - E[a | x]) / t."""
        t = float(moment[0])
        times = float(condition) + np.arange(CHUNK) * SPEED / FPS
        means = [torch.from_numpy(path(times, side) / SCALE).float() for side in (-1.0, 1.0)]
        variance = (1 - t) ** 2 * NOISE**2 + t**2
        gain = (1 - t) * NOISE**2 / variance
        logits = torch.stack([-((noisy - (1 - t) * m) ** 2).sum() / (2 * variance) for m in means])
        shares = torch.softmax(logits, 0)
        data = sum(
            share * (m + gain * (noisy - (1 - t) * m))
            for share, m in zip(shares, means, strict=True)
        )
        return (noisy - data) / max(t, 1e-6)


def exact_flow() -> Any:
    """A flow policy on that engine: environment = (sin, cos) of the phase, not the side."""
    from koch_policy.checkpoint import Checkpoint
    from koch_policy.configs import FeatureType, PolicyFeature
    from koch_policy.metadata import CheckpointMetadata
    from koch_policy.models.registry import build_model
    from koch_policy.normalize import normalizer_for
    from koch_policy.policy_configs import FlowConfig
    from koch_policy.runtime.base import EnginePolicy

    environment = "observation.environment_state"
    config = FlowConfig(
        input_features={environment: PolicyFeature(FeatureType.ENV, (4,))},
        output_features={"action": PolicyFeature(FeatureType.ACTION, (J,))},
        chunk_size=CHUNK, n_action_steps=CHUNK, dim_model=8, dim_expert=8, n_heads=1,
        dim_head=8, n_layers=1, num_inference_steps=10,
    )  # fmt: skip
    statistics = {
        environment: {"mean": torch.zeros(4), "std": torch.ones(4)},
        "action": {"mean": torch.zeros(J), "std": torch.full((J,), SCALE)},
    }
    normalizer = normalizer_for(config, statistics, where="bench")
    model = build_model(config).eval()
    checkpoint = Checkpoint(
        Path("."), config, model, normalizer, statistics, {}, CheckpointMetadata()
    )
    return EnginePolicy(checkpoint, ExactField(), full_horizon=True)  # type: ignore[arg-type]


def phase_features(phase: Any) -> Any:
    """The phase without a jump, float32 (..., 4)."""
    phase = np.asarray(phase)
    parts = [np.sin(phase), np.cos(phase), np.sin(phase / 2), np.cos(phase / 2)]
    return np.stack(parts, axis=-1).astype(np.float32)


def phase_observation(phase: float) -> dict[str, Any]:
    """What the policy sees."""
    return {"observation.environment_state": phase_features(phase)}


def seam_ways() -> list[tuple[str, Any, Any]]:
    """Strategies by name, with the way to call the policy."""
    from functools import partial

    from koch_policy.chunks.guided import predict_continuing
    from koch_policy.chunks.strategies import StrategyKind
    from koch_policy.execution.inference import plain_predict

    pull = partial(predict_continuing, back_propagates=False)
    return [
        ("queue", StrategyKind.QUEUE, plain_predict),
        ("blend", StrategyKind.BLEND, plain_predict),
        ("temporal_ensemble", StrategyKind.TEMPORAL_ENSEMBLE, plain_predict),
        ("rtc (gradient)", StrategyKind.RTC, predict_continuing),
        ("rtc (pull)", StrategyKind.RTC, pull),
    ]


def seam_rows(ticks: int = 1200) -> list[dict[str, Any]]:
    """Jerk at the seams per strategy."""
    from functools import partial

    from koch_policy.chunks.seams import seam_statistics
    from koch_policy.execution.compatibility import PlainActions
    from koch_policy.offline import Tick, replay

    policy = exact_flow()
    phases = np.arange(ticks) * SPEED / FPS
    truths = [path(phases, side) for side in (-1.0, 1.0)]
    rows = []
    for name, kind, predict in seam_ways():
        torch.manual_seed(SEED)
        recording = [Tick(partial(phase_observation, phase), None) for phase in phases]
        actions = PlainActions(lambda raw: raw.astype(np.float64))
        result = replay(
            policy, recording, fps=FPS, actions=actions, kind=kind,
            predict=predict, delay_s=DELAY_S, execution_steps=CHUNK // 2,
        )  # fmt: skip
        found = seam_statistics(result.executed, result.seams[1:], 1.0 / FPS)
        known = np.isfinite(result.executed).all(axis=1)
        offs = [np.abs(result.executed - truth)[known].max(axis=1) for truth in truths]
        distance = np.min(offs, axis=0)
        rows.append(
            {
                "strategy": name,
                "seams": found.seams,
                "seam_jerk_rad_s3_mean": round(found.seam_mean, 1),
                "seam_jerk_rad_s3_p95": round(found.seam_p95, 1),
                "other_jerk_rad_s3_median": round(found.inside_median, 1),
                "distance_to_truth_mrad_median": round(1e3 * float(np.median(distance)), 1),
                "inference_ms_median": round(1e3 * float(np.median(result.delays_s)), 1),
            }
        )
    plain = rows[0]["seam_jerk_rad_s3_mean"]
    for row in rows:
        row["seam_jerk_vs_queue"] = round(row["seam_jerk_rad_s3_mean"] / plain, 3)
    return rows


# -- graph --------------------------------------------------------------------------------------


def save_checkpoint_for_graph(folder: Path) -> None:
    """An untrained ACT that hovers near the home pose."""
    from koch_policy.checkpoint import save_checkpoint
    from koch_policy.configs import FeatureType, PolicyFeature
    from koch_policy.metadata import CheckpointMetadata
    from koch_policy.models.registry import build_model
    from koch_policy.policy_configs import ActConfig

    camera = "observation.images.above"
    config = ActConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (J,)),
            camera: PolicyFeature(FeatureType.VISUAL, (3, 96, 128)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (J,))},
        chunk_size=30, n_action_steps=15, dim_model=128, n_heads=4, dim_feedforward=256,
        use_vae=False, n_encoder_layers=2,
    )  # fmt: skip
    torch.manual_seed(SEED)
    statistics = {
        "observation.state": {"mean": torch.zeros(J), "std": torch.ones(J)},
        "action": {"mean": torch.full((J,), 0.1), "std": torch.full((J,), 0.02)},
        camera: {"mean": torch.full((3, 1, 1), 0.5), "std": torch.full((3, 1, 1), 0.25)},
    }
    extras = CheckpointMetadata(units="radians", fps=FPS, runtime={"resize": True})
    save_checkpoint(folder, config, build_model(config), statistics, extras)


class GoalListener:
    """Stamps and arrivals of what passes between camera, policy and driver."""

    def __init__(self, node: Any) -> None:
        from koch_interfaces.msg import ActionChunk
        from sensor_msgs.msg import CompressedImage, JointState

        self.images: list[int] = []
        self.goals: list[int] = []
        self.commands: list[float] = []
        self.commanded: list[tuple[int, tuple[float, ...]]] = []
        self.chunks: list[tuple[int, int, int, float]] = []
        add = node.create_subscription
        topic = "/cameras/above/image_raw/compressed"
        add(CompressedImage, topic, lambda m: self.images.append(ns(m.header.stamp)), 50)
        add(JointState, "/follower/joint_command",
            lambda m: self.goals.append(ns(m.header.stamp)), 100)  # fmt: skip
        add(JointState, "/follower/command/policy", self._on_command, 100)
        add(ActionChunk, "/policy/action_chunk", self._on_chunk, 50)

    def _on_command(self, message: Any) -> None:
        self.commands.append(time.monotonic())
        self.commanded.append((ns(message.header.stamp), tuple(message.position)))

    def _on_chunk(self, message: Any) -> None:
        first = ns(message.first_step_time)
        self.chunks.append((ns(message.header.stamp), first, message.entry_index, message.step_s))

    def forget(self) -> None:
        """Begin a new run."""
        for messages in (
            self.images, self.goals, self.commands, self.commanded, self.chunks,
        ):  # fmt: skip
            messages.clear()

    def latencies_s(self) -> list[float]:
        """From the oldest sample of each observation, the image, to its chunk's first goal."""
        goals = np.sort(self.goals)
        found = []
        for observed, first, entry, step_s in self.chunks:
            after = goals[goals >= first + entry * step_s * 1e9]
            if len(after):
                found.append((after[0] - observed) * 1e-9)
        return found


def ns(stamp: Any) -> int:
    """A ROS time as nanoseconds."""
    return int(stamp.sec) * 10**9 + int(stamp.nanosec)


def graph_rows(seconds: float) -> list[dict[str, Any]]:
    """Latency, jitter and CPU on the running graph, per strategy."""
    from koch_policy.nodes.run_client import PolicyProcess, RunClient

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "act"
        save_checkpoint_for_graph(checkpoint)
        os.environ["KOCH_RUN_DIR"] = folder
        command = [sys.executable, "-m", "koch_vla", "up", "--rig", str(RIG), "--no-teleop"]
        up = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=REPO
        )
        parameters = {"rig": str(RIG), "checkpoint": str(checkpoint), "runtime": "torch",
                      "stale_abort": 5.0, "overrun_abort": 5.0}  # fmt: skip
        process = PolicyProcess(parameters)
        try:
            with RunClient() as client:
                client.wait_for_node(180.0, process)
                listener = GoalListener(client.session.node)
                end = time.monotonic() + 60.0
                while not (listener.images and listener.goals) and time.monotonic() < end:
                    client.spin(0.2)
                for strategy in ("queue", "blend", "temporal_ensemble"):
                    rows.append(measure(client, listener, process, strategy, seconds))
        finally:
            process.close()
            up.send_signal(signal.SIGINT)
            up.wait(30.0)
    return rows


def measure(
    client: Any, listener: GoalListener, process: Any, strategy: str, seconds: float
) -> dict[str, Any]:
    """One run."""
    from koch_policy.chunks.seams import seams_of_messages

    client.start("", seconds + 2.0, strategy)
    client.spin(2.0)
    listener.forget()
    begin, used = time.monotonic(), cpu_s(process.pid)
    while client.result() is None and time.monotonic() < begin + seconds + _PATIENCE_S:
        client.spin(0.2)
    share = (cpu_s(process.pid) - used) / (time.monotonic() - begin)
    result = client.result()
    if result is None:
        client.cancel()
    gaps = np.diff(listener.commands)
    goals = np.diff(np.sort(listener.goals)) * 1e-9
    row: dict[str, Any] = {
        "run": strategy,
        "ended": "not in time" if result is None else result.reason,
        "commands": len(listener.commands),
    }
    for name, values in (
        ("camera_to_goal_ms", listener.latencies_s()),
        ("command_period_error_ms", np.abs(gaps - 1.0 / FPS)),
        ("goal_period_error_ms", np.abs(goals - 0.01)),
    ):
        row |= {f"{name}_{key}": value for key, value in quantiles(values).items()}
    seams = seams_of_messages(
        listener.commanded, [(first, entry) for _, first, entry, _ in listener.chunks], 1.0 / FPS
    )
    row |= {"seams": seams.seams, "seam_jerk_rad_s3_mean": round(seams.seam_mean, 1),
            "other_jerk_rad_s3_median": round(seams.inside_median, 1)}  # fmt: skip
    return {**row, "policy_cpu_percent": round(100 * share, 1)}


def bag_rows(path: Path) -> list[dict[str, Any]]:
    """Jerk at the seams per strategy, from a bag."""
    from koch_policy.recordings import seams_of_bag

    return [
        {"strategy": name, **{key: round(value, 1) for key, value in asdict(found).items()}}
        for name, found in seams_of_bag(path).items()
    ]


def main() -> None:
    """Run the parts and print their tables."""
    parser = argparse.ArgumentParser(description="Benchmark the policy node.")
    parser.add_argument("--only", choices=("seams", "graph"))
    parser.add_argument("--bag", type=Path, help="recompute the seams of a bag, nothing else")
    parser.add_argument("--seconds", type=float, default=8.0, help="per run on the graph")
    parser.add_argument("--quick", action="store_true", help="shorter: to see that it works")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(2)
    report: dict[str, Any] = {
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
    }
    parts: dict[str, Callable[[], list[dict[str, Any]]]] = {
        "seams": lambda: seam_rows(200 if options.quick else 1200),
        "graph": lambda: graph_rows(3.0 if options.quick else options.seconds),
    }
    if options.bag is not None:
        parts = {"bag": lambda: bag_rows(options.bag)}
    for part, measured in parts.items():
        if options.bag is None and options.only not in (None, part):
            continue
        report[part] = measured()
        for row in report[part]:
            print("  ".join(f"{key} {value}" for key, value in row.items()), flush=True)
    print(f"machine {report['machine']}, {report['cores']} cores, load {report['load_1min']:.1f}")
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
