# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Iterate over a dataset: the episodes that an expression selects, their numbers and images.

Numbers are arrays over all frames, and an episode says which of them are its own. Images are
decoded one at a time, in order, which is the quickest way through a video.

Output:
    an expression may ask for: index, length, duration_s, task, source, outcome
    1 of 1 episode(s) selected
    episode 0: 195 frames, "Pick up the rectangular block and put it into the cup."
      the arm moves in ... % of the frames
      the image is brightest in frame ...
"""

from pathlib import Path

import numpy as np

from koch_episodes import LeRobotDatasetReader

ROOT = Path(__file__).resolve().parents[1]
CAMERA = "observation.images.above"


def main() -> None:
    """Go through the successful episodes of the sample dataset."""
    dataset = LeRobotDatasetReader(ROOT / "docs" / "sample" / "dataset")
    print(f"an expression may ask for: {', '.join(dataset.fields())}")
    chosen = dataset.chosen("outcome == 'success' and length > 100")
    print(f"{len(chosen)} of {len(dataset.episodes)} episode(s) selected")
    for episode in chosen:
        print(f'episode {episode.index}: {episode.length} frames, "{episode.tasks[0]}"')
        frames = slice(episode.from_index, episode.to_index)
        steps = np.abs(np.diff(dataset.column("action")[frames], axis=0)).max(axis=1)
        print(f"  the arm moves in {100 * np.mean(steps > 0.1):.0f} % of the frames")
        shades = [dataset.image(CAMERA, n).mean() for n in range(frames.start, frames.stop)]
        print(f"  the image is brightest in frame {int(np.argmax(shades))}")


if __name__ == "__main__":
    main()
