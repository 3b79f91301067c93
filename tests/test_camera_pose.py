# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch calibrate camera --pose` finds cameras that nobody measured, in rendered images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import mujoco
import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from koch_cameras.calibration import Board, Detection
from koch_cameras.calibration.pose import PoseView, solve_pose
from koch_cameras.errors import CalibrationDataError
from koch_cameras.rig_camera import intrinsics_of
from koch_core.image import encode_jpeg, to_grey
from koch_rig.geometry import matrix_to_rpy, rotation_vector, rpy_to_matrix
from koch_rig.load import WORLD, load_rig
from koch_rig.rig import Mount, Rig
from koch_sim.grasp import HOME_RAD
from koch_sim.scene import build_spec
from koch_vla.camera_pose_cli import main
from koch_vla.look.scene import ArmScene

RIG = Path(__file__).parents[1] / "config/rig.sim.yaml"
HAND = "follower/gripper_link"
BOARD = Board(8, 5, 0.016, 0.012)  # in the hand
MAT = Board(8, 5, 0.028, 0.021)  # on the table
MOST_M, MOST_DEG = 0.003, 0.5
STORE = get_typestore(Stores.ROS2_KILTED)


def towards(eye: np.ndarray, at: np.ndarray, roll: float) -> np.ndarray:
    """Pose of an optical frame: z forward, x right, y down."""
    z = (at - eye) / np.linalg.norm(at - eye)
    x = np.cross(z, [0.0, 0.1, 1.0])
    x /= np.linalg.norm(x)
    pose = np.eye(4)
    turn = cv2.Rodrigues(np.array([0.0, 0.0, roll]))[0]
    pose[:3, :3] = np.column_stack([x, np.cross(z, x), z]) @ turn
    pose[:3, 3] = eye
    return pose


def mount_of(parent: str, pose: np.ndarray) -> Mount:
    return Mount(
        parent=parent, xyz=tuple(pose[:3, 3].tolist()), rpy_rad=matrix_to_rpy(pose[:3, :3])
    )


@dataclass
class Stage:
    """The arm with a board, and a camera of the rig at a place of its own."""

    rig: Rig
    camera: str
    board: Board
    holder: str

    def __post_init__(self) -> None:
        spec = build_spec(self.rig, [])
        pixels = self.board.image(60)
        half = np.array([self.board.columns, self.board.rows]) * self.board.square_m / 2
        # The camera sees the upper side of what lies on the table, the lower one of what is held.
        seen = pixels if self.holder == WORLD else cv2.flip(pixels, 0)
        texture = np.repeat(seen[:, :, None], 3, axis=2)
        spec.add_texture(
            name="board", type=mujoco.mjtTexture.mjTEXTURE_2D, nchannel=3,
            width=texture.shape[1], height=texture.shape[0], data=texture.ravel(),
        )  # fmt: skip
        material = spec.add_material(name="board", texuniform=False, emission=0.8)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "board"
        body = spec.worldbody if self.holder == WORLD else spec.body(self.holder)
        middle = [0.22, 0.02, 0.012] if self.holder == WORLD else [0.0, 0.03, 0.09]
        turn = [1.0, 0.0, 0.0, 0.0] if self.holder == WORLD else [0.7071, -0.7071, 0.0, 0.0]
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=[*half, 0.001], pos=middle, quat=turn,
            material="board", contype=0, conaffinity=0, mass=0.0,
        )  # fmt: skip
        self.model = spec.compile()
        self.data = mujoco.MjData(self.model)
        camera = self.rig.cameras[self.camera]
        self.renderer = mujoco.Renderer(self.model, camera.height, camera.width)

    def image(self, joints: dict[str, float]) -> np.ndarray:
        for name, angle in joints.items():
            self.data.joint(f"follower/{name}").qpos[0] = angle
        mujoco.mj_forward(self.model, self.data)
        self.renderer.update_scene(self.data, self.camera)
        image: np.ndarray = self.renderer.render()
        return image

    def close(self) -> None:
        self.renderer.close()


def rig_with(camera: str, mount: Mount | None) -> Rig:
    rig = load_rig(RIG)
    seen = replace(rig.cameras[camera], mount=mount, width=640, height=480)
    return replace(rig, cameras={camera: seen})


def poses(rng: np.random.Generator, count: int, around: np.ndarray) -> Iterator[dict[str, float]]:
    """Poses with the wrist turned every way."""
    names = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
    reach = np.array([0.35, 0.25, 0.25, 0.5, 0.6])
    for _ in range(count):
        angles = np.array(around[: len(names)]) + reach * rng.uniform(-1.0, 1.0, len(names))
        yield dict(zip(names, angles.tolist(), strict=True))


def solved(stage: Stage, rng: np.random.Generator, holder: str, parent: str) -> np.ndarray:
    """The mount that views at random poses give."""
    scene = ArmScene(stage.rig, "follower")
    views: list[PoseView] = []
    around = HOME_RAD if holder == WORLD else np.zeros(len(HOME_RAD))
    for joints in poses(rng, 40, around):
        found = stage.board.detect(to_grey(stage.image(joints)))
        if found is None or len(found.ids) < 8:
            continue
        scene.place(joints)
        frames = {WORLD: np.eye(4), **scene.frames()}
        views.append(PoseView(found, np.linalg.inv(frames[parent]) @ frames[holder]))
    intrinsics = intrinsics_of(stage.rig.cameras[stage.camera])
    assert intrinsics is not None
    return solve_pose(views, intrinsics).mount_from_camera


def apart(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """How far two poses are apart [m], [degrees]."""
    between = np.linalg.inv(one) @ other
    return (
        float(np.linalg.norm(between[:3, 3])),
        float(np.degrees(np.linalg.norm(rotation_vector(between[:3, :3])))),
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("parent", [WORLD, HAND])
def test_a_mount_is_found_within_three_millimetres(parent: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if parent == WORLD:
        eye = np.array([0.22, 0.36, 0.28]) + rng.uniform(-0.06, 0.06, 3)
        truth = towards(eye, np.array([0.2, 0.03, 0.24]), rng.uniform(-0.5, 0.5))
        camera, board, holder = "left", BOARD, HAND
    else:
        eye = np.array([0.01, 0.003, 0.07]) + rng.uniform(-0.01, 0.01, 3)
        truth = np.eye(4)
        truth[:3, 3] = eye
        turn = np.radians([-124.992, 0.0, 90.0]) + rng.uniform(-0.15, 0.15, 3)
        truth[:3, :3] = rpy_to_matrix(*turn)
        camera, board, holder = "wrist", MAT, WORLD
    stage = Stage(rig_with(camera, mount_of(parent, truth)), camera, board, holder)
    try:
        place_m, turn_deg = apart(truth, solved(stage, rng, holder, parent))
    finally:
        stage.close()
    assert place_m < MOST_M
    assert turn_deg < MOST_DEG


def record(bag: Path, stage: Stage, shots: Sequence[dict[str, float]]) -> None:
    """What `ros2 bag record` writes of an arm that rests at each pose and jumps to the next."""
    image_type, state_type = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState"
    header, stamp = STORE.types["std_msgs/msg/Header"], STORE.types["builtin_interfaces/msg/Time"]

    def head(at_ns: int) -> Any:
        return header(stamp=stamp(sec=at_ns // 10**9, nanosec=at_ns % 10**9), frame_id="")

    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topics = {
            image_type: f"/cameras/{stage.camera}/image_raw/compressed",
            state_type: "/follower/joint_states",
        }
        lines = {
            kind: writer.add_connection(topic, kind, typestore=STORE)
            for kind, topic in topics.items()
        }
        for k in range(100 * len(shots) // 2):  # 100 states/s, half a second at each pose
            at_ns = 10**18 + k * 10**7
            joints = shots[k // 50]
            angles = [*joints.values(), 0.0]
            state = STORE.types[state_type](
                header=head(at_ns), name=[*joints, "gripper"], position=np.array(angles),
                velocity=np.zeros(len(angles)), effort=np.zeros(0),
            )  # fmt: skip
            writer.write(lines[state_type], at_ns, STORE.serialize_cdr(state, state_type))
            if k % 10 == 0:
                jpeg = np.frombuffer(encode_jpeg(stage.image(joints), 90), dtype=np.uint8)
                image = STORE.types[image_type](header=head(at_ns), format="jpeg", data=jpeg)
                writer.write(lines[image_type], at_ns, STORE.serialize_cdr(image, image_type))


def test_the_subcommand_writes_the_mount_into_the_rig(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = towards(np.array([0.25, 0.33, 0.3]), np.array([0.2, 0.03, 0.24]), 0.2)
    stage = Stage(rig_with("left", mount_of(WORLD, truth)), "left", BOARD, HAND)
    rng = np.random.default_rng(3)
    try:
        record(tmp_path / "bag", stage, list(poses(rng, 15, np.zeros(len(HOME_RAD)))))
    finally:
        stage.close()
    rig = tmp_path / "rig.yaml"
    text = RIG.read_text(encoding="utf-8")
    for folder in ("calibration/", "cameras/sim"):
        text = text.replace(folder, f"{RIG.parent}/{folder}")
    before = [line for line in text.splitlines() if "rpy_deg: [-120.964" not in line]
    rig.write_text("\n".join(before) + "\n", encoding="utf-8")
    assert load_rig(rig).cameras["left"].mount is None
    size = ["--square", "16", "--marker", "12"]
    words = ["left", "--pose", str(tmp_path / "bag"), "--rig", str(rig), *size]
    assert main([*words, "--dry-run", "--image", str(tmp_path / "worst.png")]) == 0
    image = cv2.imread(str(tmp_path / "worst.png"))
    assert image is not None
    assert image.shape == (480, 640, 3)
    assert load_rig(rig).cameras["left"].mount is None
    assert main(words) == 0
    assert "px off (rms, good)" in capsys.readouterr().out
    mount = load_rig(rig).cameras["left"].mount
    assert mount is not None
    assert mount.parent == WORLD
    found = np.eye(4)
    found[:3, :3], found[:3, 3] = rpy_to_matrix(*mount.rpy_rad), mount.xyz
    place_m, turn_deg = apart(truth, found)
    assert place_m < MOST_M
    assert turn_deg < MOST_DEG
    assert [line for line in rig.read_text("utf-8").splitlines() if "mount" not in line] == [
        line for line in before if "mount" not in line
    ]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--parent", "follower/elbow"], "--parent follower/elbow: expected one of world"),
        (["--board-on", "world"], "the arm must move one of them"),
        (["--square", "30"], "views; expected at least 6"),
    ],
)
def test_what_cannot_be_solved_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    stage = Stage(rig_with("left", load_rig(RIG).cameras["left"].mount), "left", MAT, HAND)
    try:
        rng = np.random.default_rng(0)
        record(tmp_path / "bag", stage, list(poses(rng, 2, np.zeros(len(HOME_RAD)))))
    finally:
        stage.close()
    base = ["left", "--pose", str(tmp_path / "bag"), "--rig", str(RIG)]
    assert main([*base, *words]) == 2
    assert message in capsys.readouterr().err


def test_turns_about_one_axis_are_too_little() -> None:
    scene = ArmScene(rig_with("left", None), "follower")
    detection = Detection(np.arange(8), np.zeros((8, 2)), np.zeros((8, 2)))
    views = []
    for pan in np.linspace(-0.5, 0.5, 8):
        scene.place({"shoulder_pan": float(pan)})
        views.append(PoseView(detection, scene.frames()[HAND]))
    intrinsics = intrinsics_of(rig_with("left", None).cameras["left"])
    assert intrinsics is not None
    with pytest.raises(CalibrationDataError, match="turned about one axis only"):
        solve_pose(views, intrinsics)
    with pytest.raises(CalibrationDataError, match="seen in 5 views; expected at least 6"):
        solve_pose(views[:5], intrinsics)
