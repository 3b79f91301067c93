# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An arm model of another package, with five joints, goes through everything that a Koch does."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from repository import ROOT
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from koch_core.realtime import request_realtime
from koch_driver import connect_arm
from koch_driver.arm.connect import check_drift
from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motors import motors_for
from koch_driver.bus.scan import FoundMotor, conclude, is_whole
from koch_driver.emulator import EmulatedChain, build_chain
from koch_driver.guard import Guard, GuardLimits, GuardState, workspace_from_rig
from koch_driver.setup.calibrate import CalibrationRoutine
from koch_rig.arm_model import ARM_MODELS, KOCH_V1_1, Role
from koch_rig.calibration import load_calibration
from koch_rig.errors import CalibrationError, ModelError, RigError
from koch_rig.fingerprint import canonical
from koch_rig.kinematics import Kinematics, Orientation
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from koch_vla.nodes.running_graph import RunningGraph

PLUGINS = ROOT / "examples" / "plugins"
NAME, MODULE = "koch_without_roll", "koch_example_plugins.koch_without_roll"
JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "gripper")
SIX = np.array([0.3, -0.2, 0.4, 0.5, 0.0, -0.3])  # rad; a Koch whose wrist stands at zero
FIVE = np.delete(SIX, 4)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The example package as pip leaves it: importable, with its entry points, also for nodes."""
    site = tmp_path_factory.mktemp("site")
    info = site / "koch_example_plugins-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: koch-example-plugins\nVersion: 0.1.0\n"
    )
    text = (PLUGINS / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r'\[project\.entry-points\."(.+?)"\]\n((?:.+\n)+)', text)
    (info / "entry_points.txt").write_text(
        "\n".join(f"[{group}]\n{lines}" for group, lines in groups).replace('"', "")
    )
    patch = pytest.MonkeyPatch()
    patch.syspath_prepend(str(site))
    patch.syspath_prepend(str(PLUGINS))
    path = os.pathsep.join([str(site), str(PLUGINS), os.environ.get("PYTHONPATH", "")])
    patch.setenv("PYTHONPATH", path)
    yield
    patch.undo()
    sys.modules.pop(MODULE, None)
    ARM_MODELS._kinds.pop(NAME, None)


@pytest.fixture
def write_rig(installed: None, tmp_path: Path) -> Callable[..., Path]:
    """Writes the emulated rig with arms of the example's model; pieces of it may be replaced."""

    def write(*replacements: tuple[str, str]) -> Path:
        text = (ROOT / "config" / "rig.emulated.yaml").read_text(encoding="utf-8")
        for role in ("follower", "leader"):
            motors = json.loads((ROOT / f"config/calibration/sim_{role}.json").read_text())
            del motors["wrist_roll"]
            (tmp_path / f"{role}.json").write_text(json.dumps(motors, indent=4))
            text = text.replace(f"role: {role}", f"role: {role}\n    model: {NAME}")
        for old, new in (
            ("calibration/sim_", ""),
            ("${KOCH_RUN_DIR:-/tmp/koch}", str(tmp_path / "ports")),
            *replacements,
        ):
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / "rig.yaml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def write_commands(bag: Path) -> None:
    """What any recorder makes of a second of commands of this arm."""
    types = get_typestore(Stores.ROS2_JAZZY)
    kind = "sensor_msgs/msg/JointState"
    with Writer(bag, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        topic = writer.add_connection("/follower/joint_command", kind, typestore=types)
        for tick in range(31):
            stamp = 1_700_000_000 * 10**9 + tick * 33_333_333
            header = types.types["std_msgs/msg/Header"](
                types.types["builtin_interfaces/msg/Time"](*divmod(stamp, 10**9)), ""
            )
            nothing = np.zeros(0)
            state = types.types[kind](header, list(JOINTS), 0.01 * tick + FIVE, nothing, nothing)
            writer.write(topic, stamp, bytes(types.serialize_cdr(state, kind)))


@pytest.fixture
def prompt() -> Iterator[None]:
    """Priority of the emulator's own process: real servos answer whatever the computer does."""
    request_realtime()
    yield
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture
def rig(write_rig: Callable[..., Path]) -> Rig:
    return load_rig(write_rig())


@pytest.fixture
def chain(rig: Rig) -> Iterator[EmulatedChain]:
    Path(rig.follower.port).parent.mkdir()
    with build_chain(rig, "follower", initial_rad=FIVE) as made:
        yield made


def test_the_rig_knows_the_model_by_its_entry_point(rig: Rig) -> None:
    for arm in rig.arms.values():
        assert arm.model.name == NAME
        assert tuple(arm.joints) == arm.model.joints == JOINTS
    assert tuple(rig.limits.joints) == JOINTS
    known = load_rig(ROOT / "config" / "rig.emulated.yaml")
    assert {joint: known.limits.joints[joint] for joint in JOINTS} == dict(rig.limits.joints)


def test_the_fingerprint_says_the_model_and_a_koch_s_stays_what_it_was(rig: Rig) -> None:
    assert canonical(rig)["joint_names"] == list(JOINTS)
    assert canonical(rig)["arms"]["follower"]["model"] == NAME
    koch = canonical(load_rig(ROOT / "config" / "rig.emulated.yaml"))
    assert "model" not in koch["arms"]["follower"]
    assert koch["joint_names"] == list(KOCH_V1_1.joints)


def test_the_hand_is_where_a_koch_s_is_whose_wrist_does_not_roll(rig: Rig) -> None:
    five, six = Kinematics(model=rig.follower.model), Kinematics()
    np.testing.assert_allclose(five.tcp(FIVE), six.tcp(SIX), atol=1e-12)
    assert five.tcp_position(FIVE.tolist()) == pytest.approx(six.tcp_position(SIX.tolist()))
    assert five.opening(-0.5) == pytest.approx(six.opening(-0.5), abs=1e-12)
    assert five.jacobian(FIVE).shape == (6, 5)
    found = five.inverse(five.tcp(FIVE), np.zeros(5), orientation=Orientation.NONE)
    assert found.converged
    np.testing.assert_allclose(five.tcp(found.q)[:3, 3], five.tcp(FIVE)[:3, 3], atol=1e-4)


def test_units_are_a_koch_s_joint_by_joint(rig: Rig) -> None:
    five = JointUnits.for_arm(rig.follower)
    six = JointUnits.for_arm(load_rig(ROOT / "config" / "rig.emulated.yaml").follower)
    for units in Units:
        row = five.rad_to(units, FIVE)
        np.testing.assert_allclose(row, np.delete(six.rad_to(units, SIX), 4))
        np.testing.assert_allclose(five.to_rad(units, row), FIVE, atol=1e-9)


def test_the_guard_holds_five_joints_within_their_limits(rig: Rig) -> None:
    limits = GuardLimits.from_rig(rig.limits, model=rig.follower.model)
    workspace = workspace_from_rig(rig.limits, rig.follower)
    assert workspace is not None
    guard = Guard(limits, period_s=0.01, workspace=workspace)
    goal = tuple(FIVE)
    target = [limits.upper[0] + 0.1, *FIVE[1:]]
    for cycle in range(400):
        now_s = 1.0 + cycle * 0.01
        assert not guard.submit("policy", JOINTS, target, age_s=0.0, now_s=now_s)
        result = guard.step(now_s, goal)
        assert result.goal is not None
        goal = result.goal
        assert workspace.room(goal) > -1e-6
    assert result.state is GuardState.DRIVING
    assert goal[0] == pytest.approx(limits.upper[0])
    refused = guard.submit(
        "policy", KOCH_V1_1.joints, [0.0] * len(KOCH_V1_1.joints), age_s=0.0, now_s=now_s
    )
    assert [item.joint for item in refused] == ["wrist_roll"]
    assert "unknown to this arm" in guard.refusals.all()[-1].text


@pytest.mark.timing
def test_it_connects_as_calibrated(rig: Rig, chain: EmulatedChain) -> None:
    arm = rig.follower
    calibration = load_calibration(arm.calibration_path, arm.model.joints)
    with connect_arm(arm, calibration, rig=rig) as bus:
        assert bus.ids == (1, 2, 3, 4, 6)
        assert check_drift(bus, calibration).clean
        state = bus.sync_read_state(budget_s=0.5)
        angles = JointUnits(arm, calibration).ticks_to_rad(state.position_ticks)
        np.testing.assert_allclose(angles, FIVE, atol=0.002)


@pytest.mark.timing
def test_it_is_calibrated(rig: Rig, chain: EmulatedChain, tmp_path: Path) -> None:
    arm = rig.follower
    with DynamixelBus(arm.port, motors_for(arm.role, arm.model)) as bus:
        routine = CalibrationRoutine(bus, arm.model)
        routine.prepare()
        routine.set_middle()
        for offset in (-0.6, 0.5):
            for joint, angle in zip(JOINTS[1:], FIVE[1:], strict=True):
                chain.hold(joint, angle + offset)
            time.sleep(0.5)
            routine.observe()
        made = routine.finish(tmp_path / "made.json")
    assert tuple(made) == JOINTS
    assert (made["shoulder_pan"].range_min, made["shoulder_pan"].range_max) == (0, 4095)
    assert made["gripper"].id == 6
    assert made["wrist_flex"].range_max - made["wrist_flex"].range_min == pytest.approx(717, abs=9)


def test_motors_of_a_bus_are_named_as_this_arm(rig: Rig) -> None:
    from koch_driver.bus.dynamixel import PingReply

    found = [
        FoundMotor(1_000_000, PingReply(spec.id, spec.model.number, 52))
        for spec in motors_for(Role.FOLLOWER, rig.follower.model)
    ]
    assert is_whole(found)
    assert conclude(found) == "a rollless Koch follower, complete"


# -- what cannot be ------------------------------------------------------------------------------


def test_an_unknown_model_is_named_with_what_there_is(write_rig: Callable[..., Path]) -> None:
    written = f"role: leader\n    model: {NAME}"
    path = write_rig((written, written[:-1]))
    with pytest.raises(RigError, match=r"arms.leader.model.*koch_v1_1, koch_without_roll.*mean"):
        load_rig(path)


def test_its_bags_are_replayed_without_a_rig(installed: None, tmp_path: Path) -> None:
    """A fresh Python knows the model by its entry point alone."""
    bag = tmp_path / "bag"
    write_commands(bag)
    code = "import sys; from koch_episodes.replay_cli import main; sys.exit(main(sys.argv[1:]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(bag), "--dry-run"],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "31 poses, 1.0 s, arm follower" in done.stdout


def test_a_leader_drives_no_follower_with_other_joints(write_rig: Callable[..., Path]) -> None:
    path = write_rig((f"role: leader\n    model: {NAME}", "role: leader"))
    with pytest.raises(RigError, match=r"arms.leader.drives.*follower with the leader's joints"):
        load_rig(path)


def test_the_simulated_table_refuses_it(write_rig: Callable[..., Path]) -> None:
    path = write_rig(("physics: first_order", "physics: mujoco"))
    with pytest.raises(RigError, match=r"model.*koch_without_roll.*simulated table.*first_order"):
        load_rig(path)


def test_moveit_and_ros2_control_refuse_it(rig: Rig) -> None:
    for name in ("koch_moveit_config", "koch_ros2_control"):
        sys.path.append(str(ROOT / "src" / name))
    parameters = importlib.import_module("koch_moveit_config.parameters")
    description = importlib.import_module("koch_ros2_control.description")
    with pytest.raises(ModelError, match=r"MoveIt for follower.*expected a Koch's: .*wrist_roll"):
        parameters.move_group_parameters(str(rig.path), "follower")
    with pytest.raises(ModelError, match=r"ros2_control for follower.*wrist_roll"):
        description.robot_description(rig, "follower")


def test_a_koch_s_calibration_is_refused(rig: Rig) -> None:
    path = ROOT / "config" / "calibration" / "sim_follower.json"
    with pytest.raises(CalibrationError, match=r"wrist_roll.*exactly shoulder_pan, .*gripper"):
        load_calibration(path, rig.follower.model.joints)


# -- the graph -----------------------------------------------------------------------------------


def koch(*words: object) -> None:
    """A subcommand in a process of its own, which finds the package by its entry points."""
    done = subprocess.run(
        [sys.executable, "-m", "koch_vla", *map(str, words)],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=180,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def lead_to(graph: RunningGraph, leader: EmulatedChain, angle: float) -> None:
    """Turn the leader's base by hand until the follower has turned as well [rad]."""
    leader.hold("shoulder_pan", angle)
    for _ in range(5):  # on a slow machine teleop may let go of a late leader
        graph.take_up()
        end_s = time.monotonic() + 5.0
        while time.monotonic() < end_s:
            if abs(graph.pose()[0] - angle) < 0.05:
                return
            time.sleep(0.1)
    raise AssertionError(f"{graph.pose()[0]:.2f} instead of {angle} rad; {graph.told()}")


@pytest.mark.ros
@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(600)
def test_it_teleoperates_records_converts_trains_and_runs(
    write_rig: Callable[..., Path], tmp_path: Path, prompt: None
) -> None:
    """The arm and the policy are the package's: one turn is shown, learned and done again."""
    pytest.importorskip("koch_policy")
    from koch_vla.nodes.running_graph import RunningGraph

    # Not simulated for the graph: the servos are here, so that a hand can move the leader. They
    # share a process with the watcher of the graph, so their states may come late.
    rig = load_rig(
        write_rig(
            ("simulation: {physics: first_order, seed: 0}\n", ""),
            ("joint_states: {max_age_ms: 50}", "joint_states: {max_age_ms: 150}"),
            ("joint_command: {max_age_ms: 100}", "joint_command: {max_age_ms: 150}"),
        )
    )
    data, run = tmp_path / "dataset", tmp_path / "run"
    Path(rig.follower.port).parent.mkdir()
    chains = {name: build_chain(rig, name) for name in rig.arms}
    for chain in chains.values():
        chain.open()
    try:
        with RunningGraph(tmp_path, rig.path) as graph:
            graph.wait_healthy(120.0)
            assert list(graph.watcher.states[-1].name) == list(JOINTS)
            started = graph.start_episode(30.0)
            assert started.success, started.message
            lead_to(graph, chains["leader"], 0.4)
            time.sleep(2.0)  # an episode of a piece shorter than a second is none
            assert graph.stop_episode().success
            (episode,) = graph.episodes.glob("episode_*")
            koch("convert", episode, "--out", data, "--jobs", 1)
            # Four joints did not move: they stay where they were.
            koch("train", "--policy", "nearest", "--preset", "tiny", "--dataset", data,
                 "--out", run, "--zero-range", "constant", "--set", "train.steps=30",
                 "--set", "train.validation_fraction=0")  # fmt: skip
            lead_to(graph, chains["leader"], 0.0)
            koch("run", "--policy", run, "--rig", rig.path, "--runtime", "torch", "--once",
                 "--max-duration", 6)  # fmt: skip
            assert graph.pose()[0] == pytest.approx(0.4, abs=0.1), graph.told()
    finally:
        for chain in chains.values():
            chain.close()
    info = json.loads((data / "meta/info.json").read_text(encoding="utf-8"))
    for key in ("action", "observation.state"):
        assert info["features"][key]["names"] == [f"{joint}.pos" for joint in JOINTS]
        assert info["features"][key]["shape"] == [5]
