# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A policy of your own: any function from an observation to a chunk of actions.

This one looks where the block is and moves the finger tips over it with inverse kinematics. It
runs as a trained policy does: same observations, same chunk execution, same guard.

Output:
    the finger tips are ... mm beside the block and ... mm above it, after ... predictions
"""

from pathlib import Path

import numpy as np

from koch_policy import FunctionPolicy
from koch_policy.configs import FeatureType, PolicyFeature
from koch_rig import Kinematics
from koch_sim import LockstepSettings, PolicyRollouts

ROOT = Path(__file__).resolve().parents[1]
HEIGHT_M = 0.08
CHUNK = 30  # actions per prediction: one second at 30 Hz
INPUTS = {
    "observation.state": PolicyFeature(FeatureType.STATE, (6,)),
    "observation.environment_state": PolicyFeature(FeatureType.ENV, (6,)),  # simulation only
}
ARM = Kinematics()


def above_block(call: int, observation: dict[str, np.ndarray]) -> np.ndarray:
    """Chunk of joint angles [rad], float32 (CHUNK, 6), from here to above the block."""
    now = np.asarray(observation["observation.state"], dtype=float)  # rad: FunctionPolicy's units
    target = np.eye(4)
    target[:3, :3] = np.diag([1.0, -1.0, -1.0])  # fingers down
    target[:2, 3] = observation["observation.environment_state"][:2]
    target[2, 3] = HEIGHT_M
    goal = ARM.inverse(target, now).q
    share = np.minimum(np.arange(1, CHUNK + 1) / 25.0, 1.0)[:, None]
    return (now + share * (goal - now)).astype(np.float32)


def main() -> None:
    """Run it for four seconds on one table."""
    policy = FunctionPolicy(above_block, inputs=INPUTS, chunk_size=CHUNK, n_action_steps=CHUNK)
    table = LockstepSettings(ROOT / "config" / "rig.sim.yaml")
    rollouts = PolicyRollouts(table, policy, timeout_s=4.0)
    rollouts(seed=100_000)
    block = rollouts.lockstep.world.environment_state()[:3]
    off = ARM.tcp(rollouts.lockstep.joints())[:3, 3] - block
    print(
        f"the finger tips are {np.linalg.norm(off[:2]) * 1e3:.0f} mm beside the block and "
        f"{off[2] * 1e3:.0f} mm above it, after {policy.calls} predictions"
    )


if __name__ == "__main__":
    main()
