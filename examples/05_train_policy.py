# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Train a policy: a small ACT that sees the joints and where block and cup are.

One demonstration and 150 steps make no robot that can do anything; they show the calls.
`./koch demo --quick` records 20 demonstrations and trains 2500 steps.

Output:
    wrote .../checkpoints/last/pretrained_model
    learned: {'action': (6,)} from ['observation.state', 'observation.environment_state']
    one prediction: 30 actions of 6 joints, the first moves no joint by more than ... units
"""

from pathlib import Path

import numpy as np

from koch_episodes import LeRobotDatasetReader
from koch_policy import load_policy, load_recipe, train_policy

ROOT = Path(__file__).resolve().parents[1]
DATASET = ROOT / "docs" / "sample" / "dataset"
OUT = Path("outputs/examples/policy")


def main() -> None:
    """Train, load and ask once."""
    # A preset, then single settings; `koch train` takes the same words. One episode leaves none
    # to hold out for validation.
    recipe = load_recipe(
        "act",
        "tiny",
        settings=["train.steps=150", "train.batch_size=32", "train.validation_fraction=0"],
    )
    checkpoint = train_policy(DATASET, OUT, recipe, show_progress=False)
    print(f"wrote {checkpoint}")

    policy = load_policy(checkpoint, "torch")
    outputs = {key: feature.shape for key, feature in policy.config.output_features.items()}
    print(f"learned: {outputs} from {list(policy.config.input_features)}")

    frame = LeRobotDatasetReader(DATASET)[0]
    actions = policy.predict({key: frame[key] for key in policy.config.input_features})
    change = np.abs(actions[0] - frame["observation.state"]).max()
    print(
        f"one prediction: {len(actions)} actions of {actions.shape[1]} joints, "
        f"the first moves no joint by more than {change:.0f} units"
    )


if __name__ == "__main__":
    main()
