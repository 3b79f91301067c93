# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Elements of vectors: each has one name, one meaning, and a sign that does not flip."""

from __future__ import annotations

import copy
import itertools
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

from koch_core.errors import DecodeError
from koch_core.image import decode_image, image_size
from koch_episodes.convert import ConvertOptions, convert
from koch_episodes.convert.mapping import FeatureSource, MappedFeature, element_names
from koch_episodes.convert.options import ActionFrom
from koch_episodes.dataset import (
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    validate_dataset,
)
from koch_episodes.decode import continuous, joint_vector, quaternions
from koch_episodes.errors import MappingError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import Units

CALIBRATION = {
    name: {"id": k + 1, "drive_mode": 0, "homing_offset": 0, "range_min": 0, "range_max": 4095}
    for k, name in enumerate(KOCH_V1_1.joints)
}
STATES = "/follower/joint_states"
MAP = "fps: 30\ntask: t\nfeatures: {{observation.state: {state}, action: {action}}}\n"


def feature(*sources: FeatureSource) -> MappedFeature:
    kinds = MappedFeature.__dataclass_fields__
    return MappedFeature(
        "observation.state", sources, **({"rule": None} if "rule" in kinds else {})
    )


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        ((FeatureSource("/a", names=("x", "y")), FeatureSource("/b", names=("z",))), "x y z"),
        (
            (
                FeatureSource("/left/joint_states", names=("j1",)),
                FeatureSource("/right/joint_states", names=("j1",)),
            ),
            "left_j1 right_j1",
        ),
        (
            (
                FeatureSource("/js", names=("j1", "j2")),
                FeatureSource("/js", names=("j1", "j2"), field="velocity"),
            ),
            "j1.pos j2.pos j1.vel j2.vel",
        ),
        (
            (
                FeatureSource("/arm", names=("value_0",)),
                FeatureSource("/hand/s", names=("value_0",)),
            ),
            "arm_value_0 hand_s_value_0",
        ),
        (
            (
                FeatureSource("/robot/l/s", names=("a",), arm="l"),
                FeatureSource("/robot/r/s", names=("a",), arm="r"),
            ),
            "l_a.pos r_a.pos",
        ),
        ((FeatureSource("/s", names=("a",)), FeatureSource("/x/s", names=("a",))), "a x_a"),
    ],
)
def test_every_element_has_one_name(sources: tuple[FeatureSource, ...], names: str) -> None:
    assert element_names(feature(*sources), "map.yaml") == tuple(names.split())


@pytest.mark.parametrize(
    "sources",
    [
        (FeatureSource("/js", names=("j1", "j2", "j2", "j3")),),
        (FeatureSource("/js", names=("j1",)), FeatureSource("/js", names=("j1",), max_age_s=1.0)),
    ],
)
def test_elements_named_twice_are_refused(sources: tuple[FeatureSource, ...]) -> None:
    with pytest.raises(MappingError, match=r"map.yaml: observation.state.*element j\d.* twice"):
        element_names(feature(*sources), "map.yaml")


def test_joint_named_twice_in_a_message_is_refused() -> None:
    names, values = ["j1", "j2", "j2", "j3"], [1.0, 2.0, 3.0, 4.0]
    with pytest.raises(DecodeError, match="j2 named twice"):
        joint_vector(names, values, ("j1", "j2"))
    assert joint_vector(names, values, ("j3", "j1")).tolist() == [4.0, 1.0]


@pytest.mark.parametrize("kind", [np.uint16, np.uint8])
def test_png_of_16_bits_is_no_image(kind: Any) -> None:
    """image_transport packs depth images of 16UC1 so; raw ones were refused already."""
    data = bytes(cv2.imencode(".png", np.full((6, 8), 77, kind))[1])
    if kind is np.uint8:
        assert decode_image(data).shape == (6, 8, 3)
        return
    for read in (image_size, decode_image):
        with pytest.raises(DecodeError, match="16 bits per channel, expected 8"):
            read(data)


def test_png_of_few_bits_is_one() -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    rows = zlib.compress(b"\0\xaa" * 4)  # 8x4 px of one bit
    head = struct.pack(">IIBBBBB", 8, 4, 1, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    assert image_size(data) == (4, 8)


def turning(count: int, start: float, axis: int) -> np.ndarray[Any, Any]:
    """A turn about one axis as x, y, z, qx, qy, qz, qw."""
    half = (start + np.linspace(0.0, 3.0, count)) / 2
    table = np.zeros((count, 7))
    table[:, :3] = np.arange(3 * count).reshape(count, 3)
    table[:, 3 + axis], table[:, 6] = np.sin(half), np.cos(half)
    return table


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("start", [0.0, 1.0, 2.5, 3.1, 6.0])
@pytest.mark.parametrize("pattern", ["each", "every third", "random", "none"])
def test_quaternion_is_made_continuous(axis: int, start: float, pattern: str) -> None:
    wanted = turning(90, start, axis)
    steps = np.arange(90)
    flips = {
        "each": steps % 2,
        "every third": steps % 3 == 0,
        "random": np.random.default_rng(axis).integers(0, 2, 90),
        "none": steps < 0,
    }[pattern]
    stored = wanted.copy()
    stored[:, 3:] *= np.where(flips, -1.0, 1.0)[:, None]
    found = continuous(stored, [3, 4, 5, 6])
    np.testing.assert_array_equal(found[:, :3], wanted[:, :3])
    sign = np.sign(wanted[0, 3:][np.abs(wanted[0, 3:]).argmax()])
    np.testing.assert_allclose(found[:, 3:], sign * wanted[:, 3:])
    assert np.abs(np.diff(found[:, 3:], axis=0)).max() < 0.05


POSES = [
    np.array(signs) * size
    for kinds, size in (("1000", 1.0), ("1100", 0.5**0.5), ("1111", 0.5))
    for places in sorted(set(itertools.permutations(map(int, kinds))))
    for signs in itertools.product(*((1, -1) if place else (0,) for place in places))
]


@pytest.mark.parametrize("pose", POSES, ids=str)
def test_episodes_that_begin_alike_have_the_same_sign(pose: np.ndarray[Any, Any]) -> None:
    """All 48 quaternions of turns by multiples of 90 degrees, 2 degrees off in any direction."""
    draw = np.random.default_rng(0)
    first = []
    for _ in range(50):
        near = pose + draw.normal(0.0, 0.01, 4)
        table = (near / np.linalg.norm(near))[None] * draw.choice([-1.0, 1.0])
        first.append(continuous(table, [0, 1, 2, 3])[0])
    assert np.ptp(first, axis=0).max() < 0.1


def test_quaternions_are_told_by_their_names() -> None:
    assert quaternions(("x", "y", "qx", "qy", "qz", "qw")) == [[2, 3, 4, 5]]
    assert quaternions(("l_qz", "r_qz", "l_qw", "r_qw")) == [[0, 2], [1, 3]]
    assert quaternions(("qz", "j1.pos", "gripper")) == []


@pytest.mark.parametrize("flipped", [True, False])
def test_validator_knows_a_quaternion_that_flips(tmp_path: Path, flipped: bool) -> None:
    names = ("tool.x", "tool.y", "tool.z", "tool.qx", "tool.qy", "tool.qz", "tool.qw")
    table = turning(30, 0.3, 1)
    table[:, 3:] *= np.where(flipped & (np.arange(30) % 10 == 4), -1.0, 1.0)[:, None]
    with DatasetWriter(
        tmp_path / "d", {"action": FeatureSpec("float32", (7,), names)}, fps=30
    ) as writer:
        for sign in (1.0, -1.0):  # between episodes the sign may change
            writer.add_episode({"action": table * sign}, {}, "t")
    found = validate_dataset(tmp_path / "d")
    assert found.ok
    assert [str(line) for line in found.findings] == (
        []
        if not flipped
        else [
            "warning: episode 0: 'action' ['tool.qx', 'tool.qy', 'tool.qz', 'tool.qw'] changes "
            "its sign 6 time(s), first behind frame 3; q and -q are the same turn, a policy "
            "takes it for a motion (and 1 more like it)"
        ]
    )


def with_poses(topic: str, poses: np.ndarray[Any, Any]) -> Callable[[list[Any]], list[Any]]:
    """Add a topic of poses that flip between q and -q, one with each joint state."""

    def change(messages: list[Any]) -> list[Any]:
        kinds, found = get_typestore(Stores.ROS2_JAZZY).types, []
        for number, message in enumerate(m for m in messages if m[0] == STATES):
            sign = -1.0 if number % 3 == 1 else 1.0
            point = kinds["geometry_msgs/msg/Point"](*poses[number, :3])
            turn = kinds["geometry_msgs/msg/Quaternion"](*(sign * poses[number, 3:]))
            pose = kinds["geometry_msgs/msg/Pose"](point, turn)
            name = "geometry_msgs/msg/PoseStamped"
            found.append((topic, name, *message[2:4], kinds[name](message[4].header, pose)))
        return sorted([*messages, *found], key=lambda message: message[2])

    return change


def test_difference_of_poses_is_small_on_either_side_of_the_first_sign(
    write_bag: Callable[..., Path],
) -> None:
    """An episode that begins where the sum that gives the first sign is about zero."""
    border = np.arctan2(-4.0, 8.0)  # there 4 qz + 8 qw = 0 with (qz, qw) = (cos, sin)
    state, ahead = (np.zeros((200, 7)) for _ in range(2))
    for table, offset in ((state, -0.01), (ahead, 0.01)):
        turn = border + offset + 0.001 * np.sin(np.arange(200))
        table[:, 5], table[:, 6] = np.cos(turn), np.sin(turn)
    opposite = [continuous(t, [3, 4, 5, 6])[0, 3:] for t in (state, ahead)]
    assert np.dot(*opposite) < -0.9  # each by itself gets another sign

    def change(messages: list[Any]) -> list[Any]:
        return with_poses("/goal", ahead)(with_poses("/tool", state)(messages))

    bag = write_bag(change=change)
    mapping = bag.parent / "map.yaml"
    mapping.write_text(MAP.format(state="/tool", action="/goal"))
    convert([bag], bag.parent / "out", ConvertOptions(map=mapping, delta_actions=True))
    action = LeRobotDatasetReader(bag.parent / "out").column("action")
    assert np.abs(action[:, 3:]).max() < 0.03
    assert not validate_dataset(bag.parent / "out").findings


def test_pose_of_a_bag_that_flips(write_bag: Callable[..., Path]) -> None:
    bag = write_bag(change=with_poses("/tool", turning(200, 0.4, 2)))
    mapping = bag.parent / "map.yaml"
    mapping.write_text(MAP.format(state="/tool", action="/follower/joint_command"))
    convert([bag], bag.parent / "out", ConvertOptions(map=mapping))
    reader = LeRobotDatasetReader(bag.parent / "out")
    assert np.abs(np.diff(reader.column("observation.state")[:, 3:], axis=0)).max() < 0.06
    assert not validate_dataset(bag.parent / "out").findings


BIMANUAL = """
rig: bimanual
fps: 30
task: "Fold the towel."
robot_type: bi_koch_follower
arms:
  left: {role: follower, port: /dev/null, calibration: left.json}
  right: {role: follower, port: /dev/null, calibration: right.json}
  leader_left: {role: leader, drives: left, port: /dev/null, calibration: l.json}
  leader_right: {role: leader, drives: right, port: /dev/null, calibration: r.json}
streams: {left/joint_states: {max_age_ms: 50}, right/joint_states: {max_age_ms: 50}}
features:
  observation.state: {streams: [ORDER_STATES]}
  action: {stream: [ORDER_COMMAND]}
"""


def both_arms(messages: list[Any]) -> list[Any]:
    """Two arms and their leaders; the right one is 0.1 rad ahead of the left one."""
    found = []
    for topic, *rest, message in messages:
        leader, name = topic.startswith("/leader"), topic.rpartition("/")[2]
        for arm, ahead in (("left", 0.0), ("right", 0.1)) if "joint" in name else ():
            copied = copy.deepcopy(message)
            copied.position = message.position + ahead
            found.append((f"/{'leader_' * leader}{arm}/{name}", *rest, copied))
    return found


@pytest.mark.parametrize("order", ["left right", "right left"])
@pytest.mark.parametrize("action_from", list(ActionFrom))
def test_two_arms_in_one_feature(
    write_bag: Callable[..., Path], order: str, action_from: ActionFrom
) -> None:
    """As LeRobot's bi_koch_follower names them: left_shoulder_pan.pos, ..., right_gripper.pos."""
    arms, text = order.split(), BIMANUAL
    for kind in ("states", "command"):
        streams = ", ".join(f"{arm}/joint_{kind}" for arm in arms)
        text = text.replace(f"ORDER_{kind.upper()}", streams)
    calibrations = {
        f"koch.calibration.{arm}": json.dumps(CALIBRATION) for arm in ("left", "right")
    }
    custom = {"koch.rig": text, **calibrations}
    bag = write_bag(change=both_arms, custom=custom, leader=True)
    out = bag.parent / "out"
    options = ConvertOptions(units=Units.RADIANS, action_from=action_from)
    convert([bag], out, options)
    reader = LeRobotDatasetReader(out)
    names = tuple(f"{arm}_{joint}.pos" for arm in arms for joint in KOCH_V1_1.joints)
    assert reader.features["observation.state"].names == names
    assert reader.features["action"].names == names
    for key in ("observation.state", "action"):
        table = reader.column(key)
        ahead = (
            table[:, names.index("right_gripper.pos")] - table[:, names.index("left_gripper.pos")]
        )
        np.testing.assert_allclose(ahead, 0.1, atol=1e-5)
    assert not validate_dataset(out).findings
    with pytest.raises(MappingError, match="several"):
        convert([bag], bag.parent / "other", ConvertOptions(tcp_pose=True))


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("first", [150, 60])
def test_array_that_grows_is_not_cut(
    write_bag: Callable[..., Path], first: int, named: bool
) -> None:
    """A gripper was added in front: what was element 0 is element 2 now."""

    def grown(messages: list[Any]) -> list[Any]:
        states = [message for message in messages if message[0] == STATES]
        for number, (*_, message) in enumerate(states):
            message.name = [] if not named else ["e0", "e1", "e2"]
            message.position = np.array([number, 1.0, 2.0])
            if number >= first:
                message.name = [] if not named else ["g0", "g1", "e0", "e1", "e2"]
                message.position = np.array([7.0, 8.0, number, 1.0, 2.0])
        return messages

    bag = write_bag(change=grown)
    mapping = bag.parent / "map.yaml"
    mapping.write_text(MAP.format(state=STATES, action="/follower/joint_command"))
    result = convert([bag], bag.parent / "out", ConvertOptions(map=mapping))
    reader = LeRobotDatasetReader(bag.parent / "out")
    table, names = reader.column("observation.state"), reader.features["observation.state"].names
    if named:  # by name nothing is lost
        assert len(reader) > (55 if first > 100 else 38)  # most messages have five
        assert names is not None
        assert np.ptp(table[:, names.index("e1")]) == 0
        return
    longest = max(first, 200 - first)
    assert len(table[0]) == (3 if first == longest else 5)
    assert np.ptp(table[:, -1]) == 0
    assert np.ptp(table[:, -3]) > longest - 20
    assert f"elements without names, most have {len(table[0])}" in str(result.reports)


def test_elements_chosen_of_an_array_may_be_few(write_bag: Callable[..., Path]) -> None:
    def nameless(messages: list[Any]) -> list[Any]:
        for topic, *_, message in messages:
            if topic == STATES:
                message.name = []
        return messages

    bag = write_bag(change=nameless)
    mapping = bag.parent / "map.yaml"
    chosen = f"{{topic: {STATES}, names: [value_4, value_0]}}"
    mapping.write_text(MAP.format(state=chosen, action="/follower/joint_command"))
    convert([bag], bag.parent / "out", ConvertOptions(map=mapping))
    reader = LeRobotDatasetReader(bag.parent / "out")
    off = reader.column("observation.state") - reader.column("action")[:, [4, 0]]
    assert np.abs(off).max() < 0.03
