# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How much faster than time one core runs the lockstep simulation.

    python benchmarks/bench_lockstep.py [--quick] [--json FILE]

Three cases, each over several seeds: a policy's run without cameras (a command every frame), the
same with two cameras at a policy's resolution drawn in every frame, and a demonstration.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy as np

from koch_rig.load import load_rig
from koch_rig.model import share_folder
from koch_sim.lockstep import Lockstep

FRAME_S = 1.0 / 30.0
SECONDS = 4.0
SIZE = (192, 256)  # twice 96x128, then averaged, as the Gymnasium environment draws
SEEDS = range(5)


def policy(lockstep: Lockstep, seed: int, cameras: tuple[str, ...]) -> float:
    """Run a slow wave for some seconds; return simulated seconds."""
    lockstep.restart(seed)
    begin = lockstep.world.time_s
    home = lockstep.joints()
    for frame in range(round(SECONDS / FRAME_S)):
        goal = home.copy()
        goal[:3] += 0.2 * np.sin(0.05 * frame)
        lockstep.command("policy", goal.tolist(), lockstep.time_ns)
        lockstep.run(FRAME_S)
        for camera in cameras:
            lockstep.image(camera).rgb(*SIZE)
    return lockstep.world.time_s - begin


def expert(lockstep: Lockstep, seed: int) -> float:
    """Demonstrate once; return simulated seconds."""
    lockstep.restart(seed)
    lockstep.demonstrate()
    return lockstep.world.time_s


def main() -> None:
    """Print a table; write the same as JSON where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two seeds instead of five")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    lockstep = Lockstep(load_rig(share_folder() / "config/rig.sim.yaml"))
    cases = {
        "policy, no cameras": lambda seed: policy(lockstep, seed, ()),
        "policy, two cameras": lambda seed: policy(lockstep, seed, ("above", "wrist")),
        "expert": lambda seed: expert(lockstep, seed),
    }
    rows = []
    for name, run in cases.items():
        run(99)  # warm up: renderers, caches
        factors = []
        for seed in SEEDS[:2] if options.quick else SEEDS:
            begin = time.process_time()
            simulated = run(seed)
            factors.append(simulated / (time.process_time() - begin))
        median = float(np.median(factors))
        rows.append({"case": name, "times_real_time": median, "least": min(factors)})
        print(f"{name:22} {median:5.1f} times real time (least {min(factors):.1f})")
    lockstep.close()
    machine = f"{platform.processor() or platform.machine()}, one core"
    print(machine)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
