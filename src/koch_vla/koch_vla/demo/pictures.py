# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: pictures of one recorded episode for the report."""

from __future__ import annotations

from pathlib import Path

import yaml

from koch_vla.demo.record import finished_episodes
from koch_vla.demo.step import DemoContext, Results
from koch_vla.demo.verb import run_verb

PATH_S = 5.0
LATE_FRACTION = 0.6  # of the episode: the block is in the air


def pictures(context: DemoContext) -> Results:
    """Draw the scene in the midst of an episode, and the episode's streams.

    Raises:
        DemoError: A picture could not be drawn.
    """
    settings = context.settings
    episode = finished_episodes(settings.folder / "episodes")[0]
    scene, streams = settings.folder / "scene.png", settings.folder / "episode.png"
    at_s = f"{LATE_FRACTION * length_s(episode):.2f}"
    log = settings.folder / "logs/pictures.log"
    words = ["look", str(episode), "--rig", str(settings.rig), "--at", at_s]
    run_verb([*words, "--seconds", str(PATH_S), "-o", str(scene)], log, context.say)
    run_verb(["inspect", str(episode), "-o", str(streams)], log, context.say)
    context.say(f"      {scene}, {streams}")
    return {"scene": str(scene), "episode": str(streams)}


def length_s(episode: Path) -> float:
    """Length of a bag by its metadata [s]."""
    text = (episode / "metadata.yaml").read_text(encoding="utf-8")
    information = yaml.safe_load(text)["rosbag2_bagfile_information"]
    return float(information["duration"]["nanoseconds"]) / 1e9
