# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: emulated servos; a hand moves the leader and the follower follows."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from pathlib import Path

from koch_rig.load import load_rig
from koch_ros.session import GraphSession
from koch_vla.background import BackgroundGraph
from koch_vla.demo.step import DemoContext, Results
from koch_vla.errors import DemoError
from koch_vla.graph import GraphOptions, NodeSpec, build_graph
from koch_vla.nodes.arm_watch import ArmWatch
from koch_vla.paths import find_shared

JOINT = "shoulder_pan"
AMPLITUDE_RAD = 0.6
PERIOD_S = 4.0
HAND_RATE_HZ = 25.0
SETTLE_S = 6.0
MOTION_S = 6.0
START_TIMEOUT_S = 30.0


def hand_script(path: Path) -> Path:
    """Write the emulator script of a hand that swings the leader's first joint."""
    events = []
    for tick in range(int(HAND_RATE_HZ * (SETTLE_S + 5 * MOTION_S))):
        time_s = tick / HAND_RATE_HZ
        angle = AMPLITUDE_RAD * math.sin(2.0 * math.pi * time_s / PERIOD_S)
        events.append(
            {"at_s": time_s, "arm": "leader", "do": "hold", "with": [JOINT, round(angle, 5)]}
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(events), encoding="utf-8")
    return path


def _with_hand(spec: NodeSpec, script: Path) -> NodeSpec:
    if spec.executable != "emulator":
        return spec
    return replace(spec, arguments=(*spec.arguments, "--faults", str(script)))


def drive(context: DemoContext) -> Results:
    """Run the emulated pair for a few seconds and measure it.

    Raises:
        DemoError: The follower did not move with the leader.
    """
    folder = context.settings.folder
    path = find_shared("config/rig.emulated.yaml")
    if path is None:
        raise DemoError("config/rig.emulated.yaml is missing. Run ./koch setup again.")
    rig = load_rig(path)
    script = hand_script(folder / "hand.json")
    specs = [_with_hand(s, script) for s in build_graph(rig, GraphOptions())]
    with (
        BackgroundGraph(specs, folder / "logs/drive.log") as graph,
        GraphSession("demo") as opened,
    ):
        watch = ArmWatch(opened.node, ("leader", "follower"))
        deadline = time.monotonic() + START_TIMEOUT_S
        while watch.span("follower", JOINT) < AMPLITUDE_RAD:
            graph.check()
            opened.spin(0.2)
            if time.monotonic() > deadline:
                raise DemoError(
                    f"the follower did not follow within {START_TIMEOUT_S:.0f} s. "
                    f"Look into {folder / 'logs/drive.log'}."
                )
        watch.begin()
        opened.spin(MOTION_S)
        results: Results = {
            f"{arm}_rate_hz": round(watch.rate_hz(arm), 1) for arm in ("leader", "follower")
        }
        lag_s, error_rad = watch.lag_and_error("leader", "follower", JOINT)
        results["lag_ms"] = round(1e3 * lag_s, 1)
        results["worst_error_deg"] = round(math.degrees(error_rad), 2)
    context.say(
        "      leader {leader_rate_hz:.0f} Hz, follower {follower_rate_hz:.0f} Hz; the follower "
        "is {lag_ms:.0f} ms behind, then within {worst_error_deg:.1f} deg".format(**results)
    )
    return results
