# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig file: what is read, and one clear error for every kind of fault."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from koch_core.errors import KochError
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.errors import RigError
from koch_rig.fingerprint import canonical
from koch_rig.load import load_rig
from koch_rig.model import robot_urdf
from koch_rig.rig import ArmChoiceError, PhysicsKind, Role

WriteRig = Callable[..., Path]
CONFIG = Path(__file__).resolve().parents[3] / "config"
FILES = ("rig.yaml", "rig.sim.yaml", "rig.emulated.yaml", "rig.two_arms.yaml")


def test_values_arrive_in_si_units(write_rig: WriteRig) -> None:
    path = write_rig()
    rig = load_rig(path, {})
    assert (rig.name, rig.fps, rig.robot_type) == ("bench", 30, "koch_follower")
    assert rig.follower.calibration_path == path.parent / "follower.json"
    assert rig.follower.rate_hz == 100.0
    assert rig.arms["leader"].joints["gripper"].sign == -1
    assert rig.arms["leader"].joints["gripper"].offset_rad == 0.5
    assert rig.arms["leader"].joints["elbow_flex"].sign == 1
    assert rig.cameras["above"].mount.rpy_rad == (math.pi, 0.0, math.pi / 2)
    assert rig.streams["cameras/above"].topic == "/cameras/above/image_raw/compressed"
    assert rig.streams["cameras/above"].max_age_s == pytest.approx(0.08)
    assert rig.streams["cameras/above"].offset_s == pytest.approx(-0.02)
    assert rig.limits.max_command_age_s == pytest.approx(0.2)
    assert tuple(rig.limits.joints) == KOCH_V1_1.joints
    assert rig.text == path.read_text()
    assert rig.simulation is None


def test_a_joint_prefix_is_text_that_names_may_begin_with(write_rig: WriteRig) -> None:
    def rig(prefix: str) -> Path:
        return write_rig(("{role: follower,", f"{{role: follower, joint_prefix: {prefix},"))

    assert load_rig(write_rig()).follower.joint_prefix == ""
    assert load_rig(rig("left_arm_")).follower.joint_prefix == "left_arm_"
    with pytest.raises(RigError, match=r"joint_prefix: got '-left', expected letters"):
        load_rig(rig("-left"))


def test_streams_that_only_features_name_get_defaults(write_rig: WriteRig) -> None:
    rig = load_rig(write_rig())
    assert rig.streams["follower/joint_command"].topic == "/follower/joint_command"
    assert rig.streams["follower/joint_command"].max_age_s == pytest.approx(0.05)


def test_variables_are_expanded(write_rig: WriteRig) -> None:
    path = write_rig(("source: 0", "source: ${CAMERA:-2}"), ("fps: 30\na", "fps: ${FPS}\na"))
    rig = load_rig(path, {"FPS": "15", "LEADER_PORT": "/dev/x"})
    assert (rig.fps, rig.cameras["above"].source) == (15, 2)
    assert rig.arms["leader"].port == "/dev/x"
    assert load_rig(path, {"FPS": "15", "CAMERA": "/dev/video4"}).cameras["above"].source == (
        "/dev/video4"
    )
    with pytest.raises(RigError, match=r"rig\.yaml:2: fps: got \$\{FPS\}, but the variable"):
        load_rig(path, {})


def test_leader_and_follower_are_found(write_rig: WriteRig) -> None:
    rig = load_rig(write_rig())
    leader = rig.leader_of("follower")
    assert leader is rig.arm("leader")
    assert leader is not None
    assert leader.role is Role.LEADER
    assert rig.leader_of("leader") is None
    with pytest.raises(ArmChoiceError, match=r"no arm named 'left'.*follower \(follower\)"):
        rig.arm("left")


def test_a_camera_whose_pose_nobody_measured_has_none(write_rig: WriteRig) -> None:
    rig = load_rig(write_rig(("    mount: {parent", "    # mount: {parent")))
    assert rig.cameras["above"].mount is None
    assert "above_optical_frame" not in robot_urdf(rig, "follower")
    empty = load_rig(write_rig(("    mount: {parent: world,", "    mount: {")))
    assert empty.cameras["above"].mount is not None
    assert "above_optical_frame" in robot_urdf(empty, "follower")


def test_two_followers_have_no_only_one(write_rig: WriteRig) -> None:
    second = "  second: {role: follower, port: p, calibration: c.json}\n  leader:"
    rig = load_rig(write_rig(("  leader:", second)))
    with pytest.raises(ArmChoiceError, match="exactly one follower is needed, not 2"):
        assert rig.follower


def test_a_rig_cannot_be_changed(write_rig: WriteRig) -> None:
    rig = load_rig(write_rig())
    with pytest.raises(dataclasses.FrozenInstanceError):
        rig.fps = 10  # type: ignore[misc]  # that is the test
    with pytest.raises(TypeError, match="assignment"):
        rig.arms["x"] = rig.follower  # type: ignore[index]  # that is the test
    with pytest.raises(TypeError, match="assignment"):
        rig.limits.joints["gripper"] = (0, 1)  # type: ignore[index]  # that is the test


@pytest.mark.parametrize("name", FILES)
def test_shipped_files_load(name: str) -> None:
    rig = load_rig(CONFIG / name, {})
    followers = [arm for arm in rig.arms.values() if arm.role is Role.FOLLOWER]
    assert len(followers) == (2 if "two" in name else 1)
    for arm in followers:
        assert arm.joints["gripper"].sign == -1
        assert rig.leader_of(arm.name) is not None
    assert set(rig.features) >= {"observation.state", "action"}


def test_simulated_rigs_say_which_physics() -> None:
    kinds = []
    for name in FILES:
        simulation = load_rig(CONFIG / name, {}).simulation
        kinds.append(None if simulation is None else simulation.physics)
    assert kinds == [None, PhysicsKind.MUJOCO, PhysicsKind.FIRST_ORDER, PhysicsKind.FIRST_ORDER]
    tables = [load_rig(CONFIG / name, {}).has_simulated_table for name in FILES]
    assert tables == [False, True, False, False]


@pytest.mark.parametrize("key", ["stream", "streams"])
def test_feature_joins_several_streams(key: str, write_rig: WriteRig) -> None:
    state = "observation.state: {stream: follower/joint_states}"
    several = f"observation.state: {{{key}: [leader/joint_states, follower/joint_states]}}"
    rig = load_rig(write_rig((state, several)))
    feature = rig.features["observation.state"]
    assert feature.streams == ("leader/joint_states", "follower/joint_states")
    assert rig.streams["leader/joint_states"].topic == "/leader/joint_states"
    plain = canonical(rig)["features"]
    assert plain["observation.state"]["stream"] == list(feature.streams)
    assert plain["action"] == {"key": "action", "stream": "follower/joint_command"}


FAULTS = [
    # misspelt keys, at every level
    ("fps: 30\na", "fsp: 30\na", r":2: fsp: got an unknown key, .*Did you mean 'fps'"),
    ("arms:", "armz:", r"armz: got an unknown key, .*Did you mean 'arms'"),
    ("port: /dev", "prot: /dev", r"arms\.follower\.prot: .*Did you mean 'port'"),
    ("max_speed", "max_sped", r":18: limits\.max_sped: .*Did you mean 'max_speed'"),
    ("gripper:", "griper:", r"arms\.leader\.joints\.griper: .*Did you mean 'gripper'"),
    ("rpy_deg", "rpy_dg", r"cameras\.above\.mount\.rpy_dg: .*Did you mean 'rpy_deg'"),
    ("offset_ms", "ofset_ms", r"streams\.cameras/above\.ofset_ms: .*Did you mean 'offset_ms'"),
    ("rig: bench", "rig: bench\nzebra: 1", r"zebra: got an unknown key, expected one of rig, fps"),
    # wrong units, in the key and in the value
    ("max_speed", "max_speed_deg", r"Wrong unit\? 'max_speed' is given in rad/s: .*pi/180"),
    ("rpy_deg", "rpy_rad", r"Wrong unit\? 'rpy_deg' is given in deg: .*180/pi"),
    (
        "max_age_ms: 80",
        "max_age_s: 0.08",
        r"'max_age_ms' is given in ms: multiply seconds by 1000",
    ),
    ("table_z", "table_z_mm", r"'table_z' is given in m: write metres"),
    ("offset_rad: 0.5", "offset_deg: 30", r"'offset_rad' is given in rad: multiply degrees"),
    (
        "max_speed: 3.0",
        "max_speed: 180",
        r"got 180, expected a number from .*rad/s.*degrees per s",
    ),
    (
        "max_speed: 3.0",
        "max_speed: 180 deg/s",
        r"got '180 deg/s', .*\[rad/s\]. Write the bare num",
    ),
    ("offset_rad: 0.5", "offset_rad: 90", r"looks like degrees: write radians"),
    ("xyz: [0.3, 0, 0.6]", "xyz: [300, 0, 600]", r"xyz\[0\]: got 300, .*millimetres"),
    ("max_age_ms: 80", "max_age_ms: 0.08", r"Below 1 it looks like seconds"),
    # wrong values
    ("fps: 30\na", "fps: 29.97\na", r"fps: got 29.97, expected a whole number from 1 to 240"),
    ("fps: 30\na", "fps: yes\na", r"fps: got True, expected a whole number"),
    ("max_speed: 3.0", "max_speed: .nan", r"max_speed: got nan"),
    ("max_speed: 3.0", "max_speed: -1", r"max_speed: got -1"),
    (
        "role: leader",
        "role: leeder",
        r"role: got 'leeder', .*follower, leader. Did you mean 'leader'",
    ),
    ("drives: follower", "drives: folower", r"got 'folower', .*Did you mean 'follower'"),
    ("{role: follower,", "{role: follower, drives: leader,", r"Only a leader drives an arm"),
    ("sign: -1", "sign: 0", r"sign: got 0, expected 1 or -1"),
    ("width: 640", "width: '640'", r"width: got '640', expected a whole number"),
    (
        "fps: 30\n    mount",
        "fps: 30\n    rotation: 45\n    mount",
        r"rotation: got 45, expected 0, 90",
    ),
    ("fps: 30\n    mount", "fps: 30\n    fourcc: JPEG2\n    mount", r"fourcc: .*four characters"),
    ("source: 0", "source: [0]", r"source: got \[0\], expected a device path"),
    ("xyz: [0.3, 0, 0.6]", "xyz: [0.3, 0]", r"xyz: got \[0.3, 0\], expected 3 numbers \[m\]"),
    ("parent: world", "parent: folower/tcp", r"parent: .*Did you mean 'follower/tcp'"),
    ("  above:", "  Above:", r"cameras.Above: got 'Above', expected a name for a camera"),
    ("table_z: 0.01", "joints: {gripper: [-3, 0]}", r"within the URDF's \[-1.6, 0.032\]"),
    ("table_z: 0.01", "joints: {gripper: [0, -1]}", r"joints.gripper: got \[0.0, -1.0\]"),
    ("table_z: 0.01", "workspace: {min: [0, 0, 0], max: [1, 0, 1]}", r"max: .*each above its min"),
    (
        "calibration: follower.json",
        "calibration: ~nobody-at-all/f.json",
        r"arms.follower.calibration: got '~nobody-at-all/f.json', expected a path. Nobody has",
    ),
    # missing things
    ("rig: bench\n", "", r"rig: got nothing, expected a text. This key is required"),
    (", calibration: follower.json", "", r"arms.follower.calibration: got nothing"),
    # streams and features
    (
        "  follower/joint_states:",
        "  folower/joint_states:",
        r"Did you mean 'follower/joint_states'",
    ),
    ("stream: cameras/above", "stream: cameras/abve", r"got 'cameras/abve', .*'cameras/above'"),
    ("  action:", "  Action:", r"features.Action: got Action, expected observation.state"),
    (
        "stream: cameras/above",
        "stream: follower/joint_states",
        r"expected a stream cameras/<camera>",
    ),
    ("stream: follower/joint_command", "stream: cameras/above", r"expected a stream of numbers"),
    ("stream: follower/joint_command", "stream: sim/cup", r"has no `simulation:` section"),
    ("stream: follower/joint_command", "stream: []", r"stream: got \[\], expected a list of"),
    (
        "stream: follower/joint_command",
        "stream: [follower/joint_command, follower/joint_command]",
        r"expected a list of streams, each once",
    ),
    (
        "stream: follower/joint_command",
        "stream: [follower/joint_command, cameras/above]",
        r"got 'cameras/above', expected a stream of numbers",
    ),
    (
        "stream: cameras/above",
        "stream: [cameras/above, cameras/other]",
        r"expected one stream cameras/<camera>",
    ),
    # shapes
    ("limits: {max_speed: 3.0, table_z: 0.01}", "limits: 3", r"limits: got 3, expected a mapping"),
    ("rig: bench", "rig: bench\nrig: other", r":2: rig: got this key twice, .*first is on line 1"),
]


@pytest.mark.parametrize(
    ("old", "new", "message"), FAULTS, ids=[fault[1][:40] for fault in FAULTS]
)
def test_every_fault_gives_one_clear_error(
    old: str, new: str, message: str, write_rig: WriteRig
) -> None:
    path = write_rig((old, new))
    with pytest.raises(RigError, match=message) as caught:
        load_rig(path)
    assert str(caught.value).startswith(str(path))
    assert isinstance(caught.value, KochError)


def test_two_leaders_of_one_follower_are_refused(write_rig: WriteRig) -> None:
    second = "  other: {role: leader, drives: follower, port: p, calibration: c.json}\ncameras:"
    with pytest.raises(RigError, match="one leader per follower; leader drives it too"):
        load_rig(write_rig(("cameras:", second)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rig: [1, 2", r":1: got unreadable YAML"),
        ("rig: a\n\tfps: 3", r":2: got unreadable YAML .*spaces, not tabs"),
        ("- a\n- b", r"got \['a', 'b'\], expected a mapping"),
        ("just text", r"got 'just text', expected a mapping"),
        ("", r"rig: got nothing, expected a text"),
        ("rig: !!python/object:os.system x", r":1: rig: got 'x', expected a plain value"),
        ("rig: &a [*a]", r"rig\[0\]: got an alias that holds itself"),
    ],
)
def test_unreadable_files_are_refused_with_their_line(
    text: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "rig.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RigError, match=message):
        load_rig(path)


def replacements(value: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Key paths of all values in a tree."""
    result = [path] if path else []
    items = value.items() if isinstance(value, dict) else []
    items = enumerate(value) if isinstance(value, list) else items
    for key, item in items:
        result += replacements(item, (*path, key))
    return result


@pytest.mark.parametrize("wrong", [None, -1, 1e300, True, "x", "", [], {}, [None], {"x": [{}]}])
def test_no_value_anywhere_ends_in_anything_but_a_rig_error(
    wrong: object, rig_text: str, tmp_path: Path
) -> None:
    path = tmp_path / "rig.yaml"
    for where in replacements(yaml.safe_load(rig_text)):
        tree = yaml.safe_load(rig_text)
        holder = tree
        for key in where[:-1]:
            holder = holder[key]
        holder[where[-1]] = wrong
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        with contextlib.suppress(RigError):
            assert load_rig(path, {}).fps > 0


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 8)}]" for i in range(1, 12)]
    (tmp_path / "rig.yaml").write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(RigError, match="more than 50000 values"):
        load_rig(tmp_path / "rig.yaml")


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RigError, match=r"none\.yaml: got no such file, expected a rig file. Copy"):
        load_rig(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RigError, match="byte 0xff at 0, expected a text file in UTF-8"):
        load_rig(tmp_path / "binary.yaml")
    with pytest.raises(RigError, match="got a folder, expected a rig file"):
        load_rig(tmp_path)


def test_one_port_for_two_arms_is_an_error(write_rig: WriteRig) -> None:
    path = write_rig(("${LEADER_PORT:-/dev/ttyUSB1}", "/dev/ttyUSB0"))
    with pytest.raises(RigError, match=r"arms\.leader\.port.*'follower' has this one"):
        load_rig(path)


def test_two_names_of_one_device_are_one_port(write_rig: WriteRig, tmp_path: Path) -> None:
    device, by_id = tmp_path / "ttyUSB7", tmp_path / "usb-FTDI-if00"
    device.touch()
    by_id.symlink_to(device)
    changes = [("/dev/ttyUSB0", str(device)), ("${LEADER_PORT:-/dev/ttyUSB1}", str(by_id))]
    with pytest.raises(RigError, match=f"both lead to {device}"):
        load_rig(write_rig(*changes))
    # A simulated rig's links are made when it starts: old ones may lead anywhere.
    load_rig(write_rig(*changes, ("cameras:", "simulation: {physics: first_order}\ncameras:")))
