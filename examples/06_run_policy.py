# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Run a policy in the lockstep simulation, and the scripted expert for comparison.

Needs the checkpoint of 05_train_policy.py. The simulation runs in this process and in its own
time: table, servo emulator, guard and the policy's observations are those of the whole rig, and
the same seed gives the same run on every computer.

Output:
    seed 100000: expert   True after ... s (done after 1 grip(s))
    seed 100000: policy   ... after ... s (...)
"""

from pathlib import Path

from koch_sim import ExpertRollouts, LockstepSettings, PolicyRollouts, PolicySettings

ROOT = Path(__file__).resolve().parents[1]
CHECKPOINT = Path("outputs/examples/policy/checkpoints/last/pretrained_model")
SEED = 100_000


def main() -> None:
    """Try one table."""
    # The rig of the sample dataset: a policy is refused by a rig that does not fit it.
    table = LockstepSettings(ROOT / "docs" / "sample" / "rig.yaml", spread=0.3)
    trial = ExpertRollouts(table, timeout_s=30.0)(SEED)
    print(f"seed {SEED}: expert   {trial.success} after {trial.duration_s:.1f} s ({trial.reason})")
    try_policy = PolicyRollouts(table, PolicySettings(CHECKPOINT), timeout_s=8.0)
    trial = try_policy(SEED)
    print(f"seed {SEED}: policy   {trial.success} after {trial.duration_s:.1f} s ({trial.reason})")


if __name__ == "__main__":
    main()
