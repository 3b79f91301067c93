# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From camera to bus on the simulated graph, with a policy that computes next to nothing.

Starts `koch up` on config/rig.sim.yaml with a recorder, runs a policy that holds the pose it sees
and looks at every image, records an episode, and prints what `koch inspect --latency` says of it.

Run alone: python benchmarks/bench_latency.py [--seconds S] [--rig RIG]
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

REPO = Path(__file__).resolve().parent.parent
RIG = REPO / "config" / "rig.sim.yaml"


def hold(call: int, observation: Any) -> Any:
    """The pose that is seen, with a motion of the wrist that no other chunk continues."""
    chunk = np.repeat(np.asarray(observation["observation.state"], np.float32)[None], 30, axis=0)
    chunk[:, 4] += 0.01 * np.sin(0.2 * (call + np.arange(30)))
    return chunk


def policy_node(rig: Path) -> int:
    """The policy node with that function in place of a checkpoint."""
    from functools import partial

    from rclpy.parameter import Parameter

    from koch_policy.configs import FeatureType, PolicyFeature
    from koch_policy.execution.synthetic import FunctionPolicy
    from koch_policy.nodes.policy import PolicyNode
    from koch_rig.load import load_rig
    from koch_ros.node import run_node

    camera = load_rig(rig).cameras["above"]
    inputs = {
        "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
        "observation.images.above": PolicyFeature(
            FeatureType.VISUAL, (3, camera.height, camera.width)
        ),
    }
    policy = FunctionPolicy(hold, inputs=inputs, n_action_steps=1)
    values = {"rig": str(rig), "checkpoint": "none", "strategy": "queue"}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    return run_node(partial(PolicyNode, lambda _: policy, parameter_overrides=overrides), [])


def record(seconds: float) -> str:
    """Run the policy on a graph that is up; the episode's folder."""
    from koch_policy.nodes.run_client import RunClient

    with RunClient() as client:
        client.wait_for_node(120.0)
        for _ in range(30):
            try:
                path = client.start_episode("")
                break
            except Exception as exc:  # streams that do not live yet
                print(exc)
                client.spin(1.0)
        client.start("", seconds, "queue")
        while (result := client.result()) is None:
            client.spin(0.5)
        print(result.reason)
        client.stop_episode("")
    return path.removesuffix(".partial")


def main() -> None:
    """Start everything, measure, end everything."""
    parser = argparse.ArgumentParser(description="Measure the way from camera to bus.")
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--rig", type=Path, default=RIG)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--node", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.node:
        sys.exit(policy_node(options.rig))
    from koch_episodes.goal_trace import latency_lines, read_traces

    with tempfile.TemporaryDirectory() as folder:
        os.environ["KOCH_RUN_DIR"] = folder
        root, rig = f"{folder}/episodes", str(options.rig)
        up = [sys.executable, "-m", "koch_vla", "up", "--rig", rig, "--no-teleop", "--record"]
        node = [sys.executable, __file__, "--node", "--rig", rig]
        processes = [
            subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=REPO)
            for command in ([*up, "--record-root", root], node)
        ]
        try:
            time.sleep(8.0)
            bag = record(options.seconds)
        finally:
            for process in processes:
                process.send_signal(signal.SIGINT)
            for process in processes:
                process.wait(30.0)
        rows = []
        for traces in read_traces(Path(bag)).values():
            print("\n".join(latency_lines(traces, None)))
            print(f"N = {len(traces.total_s())}, load {os.getloadavg()[0]:.1f}")
            rows += [
                {"way": "camera to bus", **_figures(traces.total_s())},
                {"way": "period, bus", **_figures(traces.period_errors_s())},
            ]
    if options.json is not None:
        options.json.write_text(json.dumps({"rows": rows}, indent=2))


def _figures(values_s: np.ndarray[Any, Any]) -> dict[str, float]:
    p50, p95, p99 = (1e3 * np.quantile(values_s, [0.5, 0.95, 0.99])).tolist()
    return {"p50_ms": p50, "p95_ms": p95, "p99_ms": p99, "n": len(values_s)}


if __name__ == "__main__":
    main()
