# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: images of one recorded episode for the report."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from koch_core.stream import NS_PER_S
from koch_episodes.bag import open_bag
from koch_episodes.bag.metadata import read_information
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.clip import FPS, write_clip
from koch_rig.load import load_rig
from koch_rig.stream import camera_stream, topic_of
from koch_vla.demo.step import DemoContext, Results
from koch_vla.learning_steps import finished_episodes
from koch_vla.steps import run_subcommand

PATH_S = 5.0
CAMERA = "left"  # sees arm, block and cup
LATE_FRACTION = 0.6  # of the episode: the block is in the air


def images(context: DemoContext) -> Results:
    """Draw the scene in the midst of an episode, and the episode's streams.

    Raises:
        StepError: An image could not be drawn.
    """
    settings = context.settings
    episode = finished_episodes(settings.folder / "episodes")[0]
    scene, streams = settings.folder / "scene.png", settings.folder / "episode.png"
    at_s = f"{LATE_FRACTION * length_s(episode):.2f}"
    log = settings.folder / "logs/images.log"
    words = ["look", str(episode), "--rig", str(settings.rig), "--at", at_s]
    run_subcommand([*words, "--seconds", str(PATH_S), "-o", str(scene)], log, context.say)
    # inspect ends with 1 where it finds fault with an episode: drawn it is, and worth seeing.
    run_subcommand(["inspect", str(episode), "-o", str(streams)], log, context.say, good=(0, 1))
    film = settings.folder / "demonstration.mp4"
    write_clip(film, images_of(episode, settings.rig))
    context.say(f"      {scene}, {streams}, {film}")
    return {"scene": str(scene), "episode": str(streams), "film": str(film)}


def images_of(episode: Path, rig: Path) -> Iterator[bytes]:
    """JPEG images of one camera of an episode, FPS of them for each second."""
    cameras = load_rig(rig).cameras
    camera = CAMERA if CAMERA in cameras else next(iter(cameras), "")
    topic = topic_of(camera_stream(camera))
    next_ns = 0
    with open_bag(episode) as bag:
        if topic not in bag.topics:
            return
        decoder = TypeDecoder()
        decoder.add(bag.topics[topic])
        for message in bag.messages([topic]):
            if message.log_ns >= next_ns:
                next_ns = message.log_ns + NS_PER_S // FPS
                decoded: Any = decoder.decode(bag.topics[topic].type, message.data)
                yield bytes(decoded.data)


def length_s(episode: Path) -> float:
    """Length of a bag by its metadata [s]."""
    return float(read_information(episode)["duration"]["nanoseconds"]) / 1e9
