# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch look`: the scene, the snapshot from a bag and from live topics, the image."""

from __future__ import annotations

import struct
import threading
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.kinematics import Kinematics
from koch_rig.load import load_rig
from koch_vla.errors import BagMomentError, EmptyBagError, NothingHeardError, OutputFileError
from koch_vla.look import main
from koch_vla.look.from_bag import snapshot_at
from koch_vla.look.scene import ROUND_SIDES, ArmScene, block_faces, cup_faces
from koch_vla.look.snapshot import GraphSnapshot
from koch_vla.look.space import View, contents_of, draw_space, place_boxes, tcp_path

JOINTS = KOCH_V1_1.joints
POSE = dict(zip(JOINTS, (0.3, -0.4, 0.5, 0.2, -0.1, -0.6), strict=True))
START_NS = 1_700_000_000_000_000_000
RED = simplejpeg.encode_jpeg(np.full((48, 64, 3), (200, 30, 30), dtype=np.uint8))


@pytest.fixture
def rig(write_rig):
    return load_rig(write_rig())


def write_bag(path: Path, seconds: float, cameras=("above", "wrist")) -> Path:
    """A bag with both arms at 20 Hz, the follower turning by 0.1 rad/s, and cameras at 10 Hz."""
    store = get_typestore(Stores.LATEST)
    types = store.types
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as bag:
        connections = {
            f"/{arm}/joint_states": bag.add_connection(
                f"/{arm}/joint_states", "sensor_msgs/msg/JointState", typestore=store
            )
            for arm in ("follower", "leader")
        } | {
            f"/cameras/{name}/image_raw/compressed": bag.add_connection(
                f"/cameras/{name}/image_raw/compressed",
                "sensor_msgs/msg/CompressedImage",
                typestore=store,
            )
            for name in cameras
        }
        for tick in range(int(seconds * 20) + 1):
            stamp_ns = START_NS + tick * 50_000_000
            time = types["builtin_interfaces/msg/Time"](stamp_ns // 10**9, stamp_ns % 10**9)
            header = types["std_msgs/msg/Header"](time, "")
            for topic, connection in connections.items():
                if "joint" in topic:
                    turned = {**POSE, "shoulder_pan": 0.1 * tick / 20}
                    message = types["sensor_msgs/msg/JointState"](
                        header,
                        list(turned),
                        np.array(list(turned.values())),
                        np.zeros(0),
                        np.zeros(0),
                    )
                elif tick % 2:
                    continue
                else:
                    message = types["sensor_msgs/msg/CompressedImage"](
                        header, "jpeg", np.frombuffer(RED, dtype=np.uint8)
                    )
                data = store.serialize_cdr(message, connection.msgtype)
                bag.write(connection, stamp_ns, data)
    return path


def test_the_scene_puts_the_tool_where_the_kinematics_do(rig):
    scene = ArmScene(rig, "leader")
    scene.place(POSE)
    T_base_tcp = Kinematics.for_arm().tcp(np.array([POSE[name] for name in JOINTS]))
    base = rig.arm("leader").base.xyz
    np.testing.assert_allclose(scene.tcp(), T_base_tcp[:3, 3] + base, atol=1e-9)


def test_every_polygon_is_flat_and_looks_outward(rig):
    scene = ArmScene(rig, "follower")
    scene.place(POSE)
    faces = scene.faces(links_of="follower")
    assert len(faces) > 40
    boxes = [faces[i : i + 6] for i in range(0, len(faces), 6)]  # every shape of ours is a box
    for box in boxes:
        centre = np.mean([face.corners.mean(axis=0) for face in box], axis=0)
        for face in box:
            assert np.linalg.norm(face.normal) == pytest.approx(1.0)
            heights = (face.corners - face.corners[0]) @ face.normal
            np.testing.assert_allclose(heights, 0.0, atol=1e-9)
            assert (face.corners.mean(axis=0) - centre) @ face.normal > 0.0


def test_a_snapshot_holds_what_was_newest_at_its_moment(rig, tmp_path):
    bag = write_bag(tmp_path / "bag", 4.0)
    snapshot = snapshot_at(rig, bag, 3.0, 1.0)
    assert snapshot.joints["follower"]["shoulder_pan"] == pytest.approx(0.3)
    assert snapshot.joint_stamps_ns["leader"] == START_NS + 3 * 10**9
    assert np.abs(snapshot.images["wrist"][24, 32].astype(int) - (200, 30, 30)).max() < 8
    end = snapshot_at(rig, bag, None, 1.0)
    assert end.joints["follower"]["shoulder_pan"] == pytest.approx(0.4)
    trail = tcp_path(ArmScene(rig, "follower"), end, "follower")
    radii = np.linalg.norm(trail[:, :2] - (-0.012, 0.0), axis=1)
    np.testing.assert_allclose(radii, radii[0], atol=1e-6)  # it turns about the pan axis


def test_the_ghost_of_each_of_two_arms_is_its_own(repository):
    rig = load_rig(repository / "config" / "rig.two_arms.yaml")
    shown = GraphSnapshot("live", ghost={f"left_{joint}": 0.5 for joint in KOCH_V1_1.joints})
    assert shown.ghost_of(rig.arms["left"]) == dict.fromkeys(KOCH_V1_1.joints, 0.5)
    assert shown.ghost_of(rig.arms["right"]) == {}
    shown.ghost = dict.fromkeys(KOCH_V1_1.joints, 0.1)  # a policy of one arm
    assert shown.ghost_of(rig.arms["right"]) == shown.ghost


def test_moments_outside_and_foreign_bags_are_refused(rig, tmp_path):
    bag = write_bag(tmp_path / "bag", 1.0)
    for at_s in (-0.1, 1.1):
        with pytest.raises(BagMomentError, match=r"1\.00 s long"):
            snapshot_at(rig, bag, at_s, 1.0)
    other = tmp_path / "other"
    with Writer(other, version=9, storage_plugin=StoragePlugin.MCAP):
        pass
    with pytest.raises(EmptyBagError, match="/follower/joint_states"):
        snapshot_at(rig, other, None, 1.0)


@pytest.mark.parametrize("seed", range(5))
def test_labels_collide_neither_with_each_other_nor_with_the_edge(seed):
    """Also where everything stands at one place, or in a corner."""
    random = np.random.default_rng(seed)
    spread_px = (0.0, 5.0, 40.0, 200.0, 400.0)[seed]
    anchors = np.clip(random.normal((700.0, 560.0), spread_px, (8, 2)), 2.0, (990.0, 590.0))
    sizes = np.column_stack([random.uniform(30.0, 180.0, 8), np.full(8, 14.0)])
    room = np.array([0.0, 0.0, 1000.0, 600.0])
    boxes = place_boxes(anchors, sizes, random.uniform(0.0, 600.0, (200, 2)), room)
    for index, box in enumerate(boxes):
        assert np.all(box[:2] >= room[:2])
        assert np.all(box[2:] <= room[2:])
        np.testing.assert_allclose(box[2:] - box[:2], sizes[index])
        for other in boxes[:index]:
            assert np.any(box[:2] >= other[2:]) or np.any(other[:2] >= box[2:])


def test_the_arms_fill_the_room_beside_the_cameras(rig, tmp_path):
    snapshot = snapshot_at(rig, write_bag(tmp_path / "bag", 1.0), None, 1.0)
    figure = Figure(figsize=(16, 10), dpi=100)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.0, 0.3, 1.0, 0.6))
    draw_space(axes, rig, snapshot, 0.7)
    points = contents_of(rig, snapshot).points
    pixels = axes.transData.transform(View(points).flat(points)) - (0.0, 300.0)
    assert np.all(pixels >= 0.0)
    assert np.all(pixels <= (0.7 * 1600.0, 600.0))
    assert np.max(np.ptp(pixels, axis=0) / (0.7 * 1600.0, 600.0)) > 0.75


@pytest.mark.parametrize("turn_rad", [0.0, 0.7, -2.0])
def test_things_are_closed_shapes_at_their_pose(turn_rad):
    pose = np.eye(4)
    pose[:2, :2] = [[np.cos(turn_rad), -np.sin(turn_rad)], [np.sin(turn_rad), np.cos(turn_rad)]]
    pose[:3, 3] = (0.2, -0.1, 0.03)
    for faces, height in ((block_faces(pose), (0.0175, 0.0425)), (cup_faces(pose), (0.03, 0.07))):
        corners = np.vstack([face.corners for face in faces])
        assert (corners[:, 2].min(), corners[:, 2].max()) == pytest.approx(height)
        for face in faces:
            heights = (face.corners - face.corners[0]) @ face.normal
            np.testing.assert_allclose(heights, 0.0, atol=1e-9)
    assert all(
        face.normal[2] > 0.99 for face in cup_faces(pose)[-ROUND_SIDES:]
    )  # the rim looks up


def size_of(png: Path) -> tuple[int, int]:
    data = png.read_bytes()
    assert data.startswith(b"\x89PNG")
    return struct.unpack(">II", data[16:24])


def test_the_verb_draws_a_bag(rig, tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", 1.0)
    png = tmp_path / "deep/look.png"
    assert main([str(bag), "--rig", str(rig.path), "-o", str(png)]) == 0
    assert size_of(png) == (1600, 1000)
    assert capsys.readouterr().out.strip() == str(png)


def test_a_silent_camera_is_named_and_the_rest_is_drawn(rig, tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", 1.0, cameras=("above",))
    png = tmp_path / "look.png"
    assert main([str(bag), "--rig", str(rig.path), "-o", str(png)]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert "/cameras/wrist" in said
    assert f"Is {rig.path} the rig with which {bag} was recorded?" in said
    assert size_of(png) == (1600, 1000)


@pytest.mark.parametrize(
    ("name", "said"), [("a.xyz", r"\.jpeg.*\.png"), ("a", r"\.png"), (".", "folder|ending")]
)
def test_a_file_that_cannot_be_drawn_is_refused_at_once(rig, tmp_path, name, said):
    with pytest.raises(OutputFileError, match=said):
        main(["--rig", str(rig.path), "-o", str(tmp_path / name)])


@pytest.mark.ros
def test_where_nothing_is_heard_no_empty_image_is_written(rig, tmp_path):
    target = tmp_path / "look.png"
    words = ["--rig", str(rig.path), "--seconds", "0.1", "--timeout", "0.2", "-o", str(target)]
    with pytest.raises(NothingHeardError, match=r"/follower/joint_states, .*koch up"):
        main(words)
    assert not target.exists()


@pytest.mark.ros
def test_live_topics_make_a_snapshot(rig):
    from sensor_msgs.msg import CompressedImage, JointState

    from koch_ros.session import GraphSession
    from koch_vla.nodes.listen import listen

    over = threading.Event()

    def talk():
        with GraphSession("talker") as opened:
            node = opened.node
            states = [node.create_publisher(JointState, f"/{a}/joint_states", 5) for a in rig.arms]
            cameras = [
                node.create_publisher(CompressedImage, f"/cameras/{c}/image_raw/compressed", 5)
                for c in rig.cameras
            ]
            while not over.wait(0.05):
                stamp = node.get_clock().now().to_msg()
                state = JointState(name=list(POSE), position=list(POSE.values()))
                image = CompressedImage(format="jpeg", data=RED)
                state.header.stamp = image.header.stamp = stamp
                for publisher in states:
                    publisher.publish(state)
                for publisher in cameras:
                    publisher.publish(image)

    talker = threading.Thread(target=talk)
    talker.start()
    try:
        snapshot = listen(rig, duration_s=0.5, timeout_s=15.0)
    finally:
        over.set()
        talker.join()
    assert snapshot.joints["leader"] == POSE
    assert set(snapshot.images) == {"above", "wrist"}
    assert 0 <= snapshot.now_ns - snapshot.joint_stamps_ns["follower"] < 2e9


def test_a_bag_need_not_hold_arms_that_are_no_stream_of_its_rig(repository, tmp_path, capsys):
    sample = repository / "docs/sample"  # its leader was not recorded
    words = [str(sample / "episode_000000"), "--rig", str(sample / "rig.yaml"), "--at", "8"]
    assert main([*words, "-o", str(tmp_path / "look.png")]) == 0
    assert "nothing was heard" not in capsys.readouterr().err
