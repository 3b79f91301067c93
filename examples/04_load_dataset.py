# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Load a dataset: columns as arrays, single frames, and a window for training.

LeRobot's own `LeRobotDataset` opens the same folder. This reader needs neither LeRobot nor torch.

Output:
    1 episode(s), 195 frames at 15 per second
    action                            (6,)
    observation.environment_state     (6,)
    observation.images.above          (240, 320, 3)
    observation.state                 (6,)
    frame 100: shoulder_pan -26.8, "Pick up the rectangular block and put it into the cup."
    the next ten actions: (10, 6), 0 of them beyond the end
"""

from pathlib import Path

from koch_episodes import LeRobotDatasetReader

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Look into the sample dataset."""
    dataset = LeRobotDatasetReader(ROOT / "docs" / "sample" / "dataset")
    print(f"{len(dataset.episodes)} episode(s), {len(dataset)} frames at {dataset.fps} per second")
    frame = dataset[100]  # decodes the camera image as well
    for key in sorted(dataset.features):
        if key == "action" or key.startswith("observation."):
            print(f"{key:32}  {frame[key].shape}")
    # Joints are in LeRobot's numbers: -100..100 over the calibrated range, gripper 0..100.
    print(f'frame 100: shoulder_pan {frame["observation.state"][0]:.1f}, "{frame["task"]}"')
    window = dataset.window(100, {"action": range(10)})
    beyond = int(window["action_is_pad"].sum())
    print(f"the next ten actions: {window['action'].shape}, {beyond} of them beyond the end")


if __name__ == "__main__":
    main()
