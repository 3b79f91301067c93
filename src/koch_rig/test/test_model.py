# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The robot description loads everywhere, and its numbers agree with the rig files."""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
import yaml

import koch_rig.model
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.errors import ModelError
from koch_rig.geometry import camera_matrix_from_fovy, rpy_to_matrix, transform_from
from koch_rig.kinematics import Kinematics
from koch_rig.load import load_rig
from koch_rig.model import (
    arm_urdf,
    frame_names,
    process_xacro,
    robot_urdf,
    share_folder,
    urdf_limits,
    world_camera_arm,
)
from koch_rig.rig import Rig, Role
from koch_rig.units import JointUnits

J = len(KOCH_V1_1.joints)

ROOT = Path(__file__).resolve().parents[3]
FILES = ("rig.yaml", "rig.sim.yaml", "rig.emulated.yaml")
SIM = load_rig(ROOT / "config" / "rig.sim.yaml", {})

# spec/koch_arm.md: range [rad]; data sheets: no-load speed [rev/min] and stall torque [N m].
XL430, XL330_M288, XL330_M077 = (61, 1.5), (103, 0.52), (383, 0.228)
RANGES = {
    "shoulder_pan": (-2.2, 2.2),
    "shoulder_lift": (-1.57, 0.6),
    "elbow_flex": (-1.57, 1.45),
    "wrist_flex": (-2.0, 2.0),
    "wrist_roll": (-3.14, 3.14),
    "gripper": (-1.60, 0.032),
}
SERVOS = {
    Role.FOLLOWER: [XL430] * 2 + [XL330_M288] * 4,
    Role.LEADER: [XL330_M077] * J,
}
LINKS = ("base", "shoulder", "upper_arm", "forearm", "wrist", "gripper", "jaw")


def check_urdf(text: str, folder: Path) -> str:
    """Run check_urdf; it must be there."""
    program = shutil.which("check_urdf", path=str(Path(sys.executable).parent))
    program = program or shutil.which("check_urdf")
    assert program, "check_urdf is missing: pip install pin, or apt-get install liburdfdom-tools"
    path = folder / "robot.urdf"
    path.write_text(text, encoding="utf-8")
    done = subprocess.run(
        [program, str(path)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("role", list(Role))
def test_limits_are_those_of_the_spec_and_the_data_sheets(role: Role) -> None:
    limits = urdf_limits(role)
    assert tuple(limits) == KOCH_V1_1.joints
    for (name, limit), (rpm, torque) in zip(limits.items(), SERVOS[role], strict=True):
        assert (limit.lower, limit.upper) == RANGES[name]
        assert limit.velocity == pytest.approx(rpm * 2 * math.pi / 60)
        assert limit.effort == torque


def test_joint_limits_are_the_followers() -> None:
    assert urdf_limits(Role.FOLLOWER) == koch_rig.model.JOINT_LIMITS
    with pytest.raises(AttributeError, match="nonsense"):
        assert koch_rig.model.nonsense


@pytest.mark.parametrize("name", FILES)
def test_rig_limits_lie_within_the_urdf(name: str) -> None:
    rig = load_rig(ROOT / "config" / name, {})
    for joint, (low, high) in rig.limits.joints.items():
        limit = urdf_limits(Role.FOLLOWER)[joint]
        assert limit.lower <= low < high <= limit.upper
        assert rig.limits.max_speed <= limit.velocity


@pytest.mark.parametrize("name", FILES[1:])
def test_simulated_calibrations_cover_the_urdf_limits(name: str) -> None:
    for arm in load_rig(ROOT / "config" / name, {}).arms.values():
        low, high = JointUnits(arm, load_calibration(arm.calibration_path)).range_rad()
        for index, limit in enumerate(urdf_limits(arm.role).values()):
            assert low[index] <= limit.lower
            assert high[index] >= limit.upper


def test_open_gripper_is_100_in_lerobots_units() -> None:
    from koch_rig.units import Units

    units = JointUnits(SIM.follower, load_calibration(SIM.follower.calibration_path))
    closed, wide = np.zeros(J), np.array([0, 0, 0, 0, 0, -1.6])
    assert units.rad_to(Units.LEROBOT, closed)[5] < 5
    assert units.rad_to(Units.LEROBOT, wide)[5] > 95


@pytest.mark.parametrize("role", list(Role))
def test_links_carry_the_prefix_and_joints_do_not(role: Role) -> None:
    root = ElementTree.fromstring(arm_urdf(role, "left/"))
    links = [link.attrib["name"] for link in root.iter("link")]
    frames = [f"left/{name}" for name in frame_names(role)]
    assert links == ["world", *frames]
    assert set(frames) >= {f"left/{name}_link" for name in LINKS} | {"left/tcp"}
    moving = [j.attrib["name"] for j in root.iter("joint") if j.attrib["type"] == "revolute"]
    assert tuple(moving) == KOCH_V1_1.joints


@pytest.mark.parametrize("role", list(Role))
def test_every_link_has_shapes_and_every_moving_one_a_possible_inertia(role: Role) -> None:
    root = ElementTree.fromstring(arm_urdf(role))
    for name in LINKS:
        link = root.find(f"link[@name='{name}_link']")
        assert link is not None
        assert link.find("visual/geometry") is not None
        assert link.find("collision/geometry") is not None
        if name == "base":
            continue
        inertia = link.find("inertial/inertia")
        mass = link.find("inertial/mass")
        assert inertia is not None
        assert mass is not None
        assert 0.01 < float(mass.attrib["value"]) < 0.1
        a, b, c = sorted(float(inertia.attrib[key]) for key in ("ixx", "iyy", "izz"))
        assert a > 0
        assert c < a + b


@pytest.mark.parametrize("arm", ["follower", "leader"])
def test_description_passes_check_urdf(arm: str, tmp_path: Path) -> None:
    tree = check_urdf(robot_urdf(SIM, arm), tmp_path)
    assert "root Link: world" in tree
    assert f"{arm}/tcp" in tree


@pytest.mark.parametrize("arm", ["follower", "leader"])
def test_description_loads_in_pinocchio(arm: str) -> None:
    pinocchio = pytest.importorskip("pinocchio")
    model = pinocchio.buildModelFromXML(robot_urdf(SIM, arm))
    assert model.nq == 6
    lower = [
        model.lowerPositionLimit[model.joints[model.getJointId(n)].idx_q] for n in KOCH_V1_1.joints
    ]
    np.testing.assert_allclose(lower, [RANGES[name][0] for name in KOCH_V1_1.joints])
    assert sum(inertia.mass for inertia in model.inertias) == pytest.approx(0.22602)


def test_description_loads_in_mujoco_with_the_same_kinematics() -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(robot_urdf(SIM))
    data = mujoco.MjData(model)
    assert model.nq == 6
    assert model.body_mass.sum() == pytest.approx(0.22602)
    q = np.array([0.3, -0.6, 0.4, -0.5, 0.8, -0.7])
    for name, angle in zip(KOCH_V1_1.joints, q, strict=True):
        joint = model.joint(name)
        np.testing.assert_allclose(joint.range, RANGES[name])
        data.joint(name).qpos = angle
    mujoco.mj_kinematics(model, data)
    jaw = Kinematics.for_arm().forward(q)["jaw_link"]
    np.testing.assert_allclose(data.body("follower/jaw_link").xpos, jaw[:3, 3], atol=1e-9)


def test_arm_does_not_touch_itself_in_its_usual_postures() -> None:
    mujoco = pytest.importorskip("mujoco")
    model = mujoco.MjModel.from_xml_string(robot_urdf(SIM))
    data = mujoco.MjData(model)
    for q in ((0, 0, 0, 0, 0, -0.8), (0, -0.43, -0.51, -1.65, 0.5, -0.8), (0.5, -1, 0.6, 1, 1, 0)):
        for name, angle in zip(KOCH_V1_1.joints, q, strict=True):
            data.joint(name).qpos = angle
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


def frames_of(rig: Rig, arm: str) -> dict[str, np.ndarray]:
    """T_world_frame of all frames of a description at zero."""
    pinocchio = pytest.importorskip("pinocchio")
    model = pinocchio.buildModelFromXML(robot_urdf(rig, arm))
    data = model.createData()
    pinocchio.framesForwardKinematics(model, data, np.zeros(J))
    return {frame.name: data.oMf[i].homogeneous for i, frame in enumerate(model.frames)}


def test_cameras_stand_where_the_rig_puts_their_optical_frames() -> None:
    frames = frames_of(SIM, "follower")
    for camera in SIM.cameras.values():
        mount = camera.mount
        parent = np.eye(4) if mount.parent == "world" else frames[mount.parent]
        wanted = parent @ transform_from(rpy_to_matrix(*mount.rpy_rad), mount.xyz)
        optical = frames[f"{camera.name}_optical_frame"]
        np.testing.assert_allclose(optical, wanted, atol=1e-9)
        body = frames[f"{camera.name}_camera_link"]
        np.testing.assert_allclose(body[:3, 0], optical[:3, 2], atol=1e-9)  # x forward
        np.testing.assert_allclose(body[:3, 2], -optical[:3, 1], atol=1e-9)  # z up
        np.testing.assert_allclose(body[:3, 1], -optical[:3, 0], atol=1e-9)  # y left


def test_simulated_cameras_look_at_the_table_in_front_of_the_arm() -> None:
    frames = frames_of(SIM, "follower")
    for name in ("above", "left"):
        pose = frames[f"{name}_optical_frame"]
        origin, forward = pose[:3, 3], pose[:3, 2]
        hit = origin - forward * origin[2] / forward[2]
        np.testing.assert_allclose(hit, [0.18, 0.0, 0.0], atol=0.1)


def test_intrinsics_of_simulated_cameras_agree_with_their_field_of_view() -> None:
    for camera in SIM.cameras.values():
        assert camera.intrinsics_path is not None
        assert camera.fovy_deg is not None
        data = yaml.safe_load(camera.intrinsics_path.read_text(encoding="utf-8"))
        size = (data["image_width"], data["image_height"], data["camera_name"])
        assert size == (camera.width, camera.height, camera.name)
        k = camera_matrix_from_fovy(math.radians(camera.fovy_deg), camera.width, camera.height)
        np.testing.assert_allclose(data["camera_matrix"]["data"], k.ravel(), atol=1e-6)
        projection = np.reshape(data["projection_matrix"]["data"], (3, 4))
        np.testing.assert_allclose(projection[:, :3], k, atol=1e-6)


def test_world_cameras_are_described_once() -> None:
    assert world_camera_arm(SIM) == "follower"
    follower, leader = (ElementTree.fromstring(robot_urdf(SIM, a)) for a in ("follower", "leader"))
    for camera in SIM.cameras:
        assert follower.find(f"link[@name='{camera}_optical_frame']") is not None
        assert leader.find(f"link[@name='{camera}_optical_frame']") is None
    leader_base = leader.find("joint[@name='leader/base_mount']/origin")
    assert leader_base is not None
    assert [float(v) for v in leader_base.attrib["xyz"].split()] == [0.0, -0.6, 0.0]


@pytest.mark.parametrize("name", FILES)
def test_xacro_on_the_rig_file_itself_gives_the_same_robot(name: str) -> None:
    path = ROOT / "config" / name
    direct = process_xacro(ROOT / "urdf" / "koch_rig.urdf.xacro", {"rig": str(path)})
    ours = robot_urdf(load_rig(path, {}))
    for a, b in zip(
        ElementTree.fromstring(direct).iter(), ElementTree.fromstring(ours).iter(), strict=True
    ):
        assert a.tag == b.tag
        for key, value in a.attrib.items():
            if key in ("xyz", "rpy"):
                mine = [float(word) for word in b.attrib[key].split()]
                np.testing.assert_allclose([float(w) for w in value.split()], mine, atol=1e-12)
            else:
                assert value == b.attrib[key]


def test_files_are_found_through_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert share_folder() == ROOT
    monkeypatch.setenv("KOCH_VLA_SHARE", str(tmp_path))
    with pytest.raises(ModelError, match=r"no urdf/koch_common\.xacro in .*KOCH_VLA_SHARE"):
        share_folder()
    shutil.copytree(ROOT / "urdf", tmp_path / "urdf")
    assert share_folder() == tmp_path


def test_installed_files_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KOCH_VLA_SHARE", raising=False)
    share = tmp_path / "share" / "koch_vla"
    shutil.copytree(ROOT / "urdf", share / "urdf")
    module = tmp_path / "lib" / "python3.11" / "site-packages" / "koch_rig" / "model.py"
    monkeypatch.setattr(koch_rig.model, "__file__", str(module))
    monkeypatch.setenv("AMENT_PREFIX_PATH", "")
    assert share_folder() == share
    monkeypatch.setattr(koch_rig.model, "__file__", "/nowhere/a/b/c/d/e/model.py")
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"/nowhere:{tmp_path}")
    assert share_folder() == share


def test_broken_xacro_is_named(tmp_path: Path) -> None:
    path = tmp_path / "broken.xacro"
    path.write_text("<robot><unclosed></robot>", encoding="utf-8")
    with pytest.raises(ModelError, match=r"broken\.xacro: got .*expected a xacro file"):
        process_xacro(path, {})


def test_a_camera_named_like_a_link_has_frames_of_its_own() -> None:
    assert "wrist" in SIM.cameras  # as the arm's wrist_link
    root = ElementTree.fromstring(robot_urdf(SIM, "follower"))
    names = [link.attrib["name"].rpartition("/")[2] for link in root.iter("link")]
    assert sorted(names) == sorted(set(names)), "two frames differ in their prefix alone"


def test_a_description_names_no_folder_of_this_machine() -> None:
    """It travels in bags, and xacro would begin it with a comment that names its file."""
    assert str(share_folder()) not in arm_urdf(Role.FOLLOWER)
    assert "<!--" not in arm_urdf(Role.FOLLOWER)
