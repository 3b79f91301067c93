# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Write a dataset: iterate over the episodes of one, keep every third frame, add a column.

The new dataset appears when it is whole. LeRobot opens it, and so do `koch train` and
`koch dataset`. Give your own arrays and images in the place of those that are read here.

Output:
    episode 0: 195 frames, success
    65 frames at 5 per second, valid: True
    speed            float32  up to 126 per second
"""

import shutil
from pathlib import Path

import numpy as np

from koch_episodes import DatasetWriter, LeRobotDatasetReader, validate_dataset
from koch_episodes.dataset import FeatureSpec

ROOT = Path(__file__).resolve().parents[1]
OUT = Path("outputs/examples/small")
EVERY, CAMERA = 3, "observation.images.above"


def main() -> None:
    """Make a slower copy of the sample dataset."""
    shutil.rmtree(OUT, ignore_errors=True)
    source = LeRobotDatasetReader(ROOT / "docs" / "sample" / "dataset")
    copied = ("action", "observation.state")
    features = {key: source.features[key] for key in (*copied, CAMERA)}
    features["speed"] = FeatureSpec("float32", (1,))
    fps = source.fps // EVERY
    with DatasetWriter(OUT, features, fps=fps, robot_type="koch_follower") as writer:
        for episode in source.episodes:
            print(f"episode {episode.index}: {episode.length} frames, {episode.outcome}")
            frames = range(episode.from_index, episode.to_index, EVERY)
            columns = {
                key: source.column(key)[frames.start : frames.stop : EVERY] for key in copied
            }
            steps = np.diff(columns["observation.state"], axis=0, prepend=0.0)
            steps[0] = 0.0
            columns["speed"] = np.abs(steps).max(axis=1) * fps
            # One image at a time: a generator will do.
            images = (source.image(CAMERA, number) for number in frames)
            writer.add_episode(columns, {CAMERA: images}, episode.tasks[0], episode.outcome)
    written = LeRobotDatasetReader(OUT)
    valid = not validate_dataset(OUT).errors
    print(f"{len(written)} frames at {written.fps} per second, valid: {valid}")
    speed = written.column("speed")
    print(f"speed            {speed.dtype}  up to {speed.max():.0f} per second")


if __name__ == "__main__":
    main()
