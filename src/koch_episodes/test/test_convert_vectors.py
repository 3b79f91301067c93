# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Joint states and arrays of other robots: names, lengths, several features of one topic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.dataset import LeRobotDatasetReader
from koch_episodes.errors import EpisodeError, MappingError
from koch_rig.arm_model import KOCH_V1_1

WriteBag = Callable[..., Path]
STATES, CAMERA = "/follower/joint_states", "/cameras/above/image_raw/compressed"
JOINTS = KOCH_V1_1.joints
HEAD = "fps: 30\ntask: t\nmax_age_ms: 100\nfeatures:\n"
WHOLE = HEAD + f"  observation.state: {STATES}\n  action: /follower/joint_command\n"
Change = Callable[[int, Any], None]


def changed(topic: str, change: Change) -> Any:
    """Change the messages of one topic in their place: (number, message)."""

    def apply(messages: list[Any]) -> list[Any]:
        found = [message for message in messages if message[0] == topic]
        for number, message in enumerate(found):
            change(number, message[4])
        return messages

    return apply


def read(bag: Path, text: str) -> LeRobotDatasetReader:
    mapping = bag.parent / "map.yaml"
    mapping.write_text(text)
    convert([bag], bag.parent / "out", ConvertOptions(map=mapping))
    return LeRobotDatasetReader(bag.parent / "out")


def test_features_of_one_topic_have_names_of_their_own(write_bag: WriteBag) -> None:
    """A feature without names takes all elements, whatever another one takes of the topic."""
    few = f"  observation.wrist: {{topic: {STATES}, names: [gripper]}}\n"
    reader = read(write_bag(), HEAD + few + WHOLE.removeprefix(HEAD))
    assert reader.features["observation.wrist"].names == ("gripper",)
    assert reader.features["observation.state"].names == JOINTS
    np.testing.assert_array_equal(
        reader[5]["observation.wrist"], reader[5]["observation.state"][5]
    )


def test_first_message_that_is_unlike_the_others_decides_nothing(write_bag: WriteBag) -> None:
    def cut(number: int, message: Any) -> None:
        if number == 0:
            message.name, message.position = message.name[5:], message.position[5:]
        if number == 1:
            message.name, message.position = [], np.zeros(0)

    reader = read(write_bag(change=changed(STATES, cut)), WHOLE)
    assert reader.features["observation.state"].names == JOINTS
    assert len(reader) > 50


def test_first_image_of_another_size_decides_nothing(write_bag: WriteBag) -> None:
    def bigger(number: int, message: Any) -> None:
        if number == 0:
            black = np.zeros((96, 128, 3), np.uint8)
            message.data = np.frombuffer(simplejpeg.encode_jpeg(black), np.uint8)

    bag = write_bag(change=changed(CAMERA, bigger))
    reader = read(bag, WHOLE + f"  observation.images.above: {CAMERA}\n")
    assert reader.features["observation.images.above"].shape == (48, 64, 3)
    assert len(reader) > 50


def test_joint_states_without_names_are_taken_in_their_order(write_bag: WriteBag) -> None:
    def nameless(_: int, message: Any) -> None:
        message.name = []

    reader = read(write_bag(change=changed(STATES, nameless)), WHOLE)
    names = reader.features["observation.state"].names
    assert names == ("value_0", "value_1", "value_2", "value_3", "value_4", "value_5")
    off = np.abs(reader.column("observation.state") - reader.column("action") + 0.01)
    assert off.max() < 0.02


@pytest.mark.parametrize(
    ("text", "error", "why"),
    [
        (
            WHOLE.replace(STATES, f"{{topic: {STATES}, field: effort}}"),
            EpisodeError,
            "no values of effort",
        ),
        (
            WHOLE.replace(STATES, f"{{topic: {STATES}, names: [j7]}}"),
            EpisodeError,
            "j7 missing among",
        ),
        (
            WHOLE.replace("observation.state", "observation.images.front"),
            MappingError,
            "got 'numbers', expected a topic of images",
        ),
        (WHOLE.replace(STATES, CAMERA), MappingError, "got 'images', expected a topic of num"),
    ],
    ids=["empty field", "unknown joint", "numbers for images", "images for numbers"],
)
def test_what_cannot_fill_a_feature_is_named(
    write_bag: WriteBag, text: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        read(write_bag(), text)


def test_difference_of_unlike_elements_is_refused(write_bag: WriteBag) -> None:
    def permuted(_: int, message: Any) -> None:
        message.name, message.position = message.name[::-1], message.position[::-1].copy()

    bag = write_bag(change=changed("/follower/joint_command", permuted))
    mapping = bag.parent / "map.yaml"
    mapping.write_text(WHOLE)
    with pytest.raises(MappingError, match=r"--delta-actions.*the same elements in one order"):
        convert([bag], bag.parent / "out", ConvertOptions(map=mapping, delta_actions=True))
    ordered = f"{{topic: /follower/joint_command, names: [{', '.join(JOINTS)}]}}"
    mapping.write_text(WHOLE.replace("/follower/joint_command", ordered))
    convert([bag], bag.parent / "out", ConvertOptions(map=mapping, delta_actions=True))
    actions = LeRobotDatasetReader(bag.parent / "out").column("action")
    assert np.abs(actions).max() < 0.05
