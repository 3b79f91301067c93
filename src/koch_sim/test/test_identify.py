# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Hidden dynamics are recovered from episodes, and recordings that tell nothing are refused."""

from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from koch_core.errors import KochError
from koch_episodes.decode import NamedValues
from koch_rig.load import load_rig
from koch_sim import identify_cli
from koch_sim.arm_dynamics import load_dynamics, nominal_dynamics, save_dynamics
from koch_sim.errors import SimulationError
from koch_sim.excitation import MOTION_S, exciting_motion, play, record_excitation
from koch_sim.grasp import HOME_RAD
from koch_sim.identify import ArmRollouts, identify
from koch_sim.lockstep import Lockstep
from koch_sim.recorded_arm import ArmRecording, read_recording
from koch_sim.recording import LockstepRecorder


@pytest.fixture
def bare(rig):
    """The simulated rig without cameras."""
    return replace(rig, cameras=MappingProxyType({}))


def with_dynamics(rig, path, dynamics):
    """A rig whose follower moves so."""
    save_dynamics(path, dynamics)
    return replace(rig, simulation=replace(rig.simulation, arm_model_path=path))


def hidden(rig, seed):
    """An arm that nobody knows."""
    draw = np.random.default_rng(seed)
    return {
        name: replace(
            joint,
            gain_scale=float(draw.uniform(0.5, 1.4)),
            friction_nm=joint.friction_nm * float(draw.uniform(0.5, 2.0)),
            armature_kg_m2=joint.armature_kg_m2 * float(draw.uniform(0.6, 1.8)),
            delay_s=float(draw.uniform(0.005, 0.05)),
            backlash_rad=float(np.radians(draw.uniform(0.0, 1.5))),
            bias_rad=float(np.radians(draw.uniform(-1.0, 1.0))),
        )
        for name, joint in nominal_dynamics(rig.follower).items()
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_hidden_dynamics_are_recovered(bare, tmp_path):
    truth = {
        name: replace(
            joint,
            gain_scale=0.6,
            friction_nm=1.5 * joint.friction_nm,
            armature_kg_m2=1.2 * joint.armature_kg_m2,
            delay_s=0.03,
            backlash_rad=float(np.radians(0.8)),
            bias_rad=float(np.radians(0.5)),
        )
        for name, joint in nominal_dynamics(bare.follower).items()
    }
    record_excitation(with_dynamics(bare, tmp_path / "hidden.json", truth), tmp_path / "bag")
    recording = read_recording(tmp_path / "bag", bare.follower)
    fits = identify(ArmRollouts(bare, [recording]))
    for name, fit in fits.items():
        found, true = fit.dynamics, truth[name]
        assert fit.after_rad < np.radians(0.1) < fit.before_rad
        assert set(fit.untold) <= {"backlash_rad"}
        assert found.gain_scale == pytest.approx(true.gain_scale, rel=0.05)
        assert found.armature_kg_m2 == pytest.approx(true.armature_kg_m2, rel=0.1)
        assert found.friction_nm == pytest.approx(true.friction_nm, rel=0.1)
        assert found.delay_s == pytest.approx(true.delay_s, abs=0.003)
        assert found.bias_rad == pytest.approx(true.bias_rad, abs=np.radians(0.2))
        # Gravity keeps the gears of the joints that carry together: their play is not told.
        if "backlash_rad" not in fit.untold:
            assert found.backlash_rad == pytest.approx(true.backlash_rad, abs=np.radians(0.2))
    assert "backlash_rad" in fits["shoulder_lift"].untold
    assert "backlash_rad" not in fits["shoulder_pan"].untold


def test_the_truth_explains_a_recording_to_the_tick(bare, tmp_path):
    truth = hidden(bare, seed=3)
    recording = simulated(with_dynamics(bare, tmp_path / "hidden.json", truth), seconds=16.0)
    rollouts = ArmRollouts(bare, [recording])
    of_truth = rollouts.residuals(truth, held_out=True)
    of_nominal = rollouts.residuals(nominal_dynamics(bare.follower), held_out=True)
    tick = np.radians(360.0 / 4096)
    assert np.sqrt(np.mean(of_truth**2)) < tick
    assert np.sqrt(np.mean(of_nominal**2)) > 5.0 * tick


def simulated(rig, seconds, motion=exciting_motion):
    """What a simulated arm does under a motion."""
    lockstep = Lockstep(rig)
    heard = {"follower/joint_states": [], "follower/joint_command": []}
    lockstep.listen(lambda stream, t_ns, v: heard[stream].append((t_ns, v.values)), heard)
    play(lockstep, motion, seconds)
    lockstep.close()
    columns = []
    for stream in ("follower/joint_command", "follower/joint_states"):
        stamps, values = zip(*heard[stream], strict=True)
        columns += [(np.array(stamps) - 10**12) / 1e9, np.array(values)]
    return ArmRecording("simulated", *columns)


def test_gaps_are_cut_out(bare):
    recording = simulated(bare, 4.0)
    hole = (recording.state_s > 1.5) & (recording.state_s < 2.0)
    cut = replace(
        recording,
        state_s=recording.state_s[~hole],
        state_rad=recording.state_rad[~hole],
    )
    assert len(recording.spans_s) == 1
    (_, first), (second, _) = cut.spans_s
    assert (first, second) == pytest.approx((1.5, 2.0), abs=0.03)


def test_rare_states_are_enough_for_a_rollout(bare):
    recording = simulated(bare, 16.0)
    rare = replace(recording, state_s=recording.state_s[::10], state_rad=recording.state_rad[::10])
    rollouts = ArmRollouts(bare, [rare])
    error = rollouts.residuals(nominal_dynamics(bare.follower), held_out=True)
    assert len(error) > 20
    assert np.sqrt(np.mean(error**2)) < np.radians(0.1)


def test_a_recording_without_motion_is_refused(bare):
    resting = simulated(bare, 16.0, motion=lambda home, time_s: home)
    with pytest.raises(SimulationError, match=r"no joint moved by 3 degrees .*--excite"):
        identify(ArmRollouts(bare, [resting]))


def test_a_short_recording_is_refused(bare):
    with pytest.raises(SimulationError, match="Record at least 15 s"):
        ArmRollouts(bare, [simulated(bare, 5.0)])


@pytest.mark.parametrize(
    ("streams", "names", "value", "message"),
    [
        (["joint_states"], None, 0.0, "has no /follower/joint_command"),
        (["joint_states", "joint_command"], ["a", "b", "c", "d", "e", "f"], 0.0, "missing among"),
        (["joint_states", "joint_command"], None, float("nan"), "not finite"),
    ],
)
def test_bags_that_tell_nothing_are_refused(bare, tmp_path, streams, names, value, message):
    recorder = LockstepRecorder(bare)
    for step in range(1, 20):
        for stream in streams:
            values = NamedValues(names or bare.follower.model.joints, [value] * 6)
            recorder.hear(f"follower/{stream}", step * 10_000_000, values)
    recorder.write(tmp_path / "bag", "t", 0, "success")
    with pytest.raises(KochError, match=message):
        read_recording(tmp_path / "bag", bare.follower)


def test_the_motion_obeys_the_guard(bare):
    times = np.arange(0.0, MOTION_S, 0.01)
    path = np.array([exciting_motion(HOME_RAD, float(t)) for t in times])
    speed = np.abs(np.diff(path, axis=0)) / 0.01
    assert speed.max() < 2.6 < bare.limits.max_speed
    recording = simulated(bare, 12.0)
    times = recording.command_s - recording.command_s[0]
    path = np.array([exciting_motion(HOME_RAD, float(t)) for t in times])
    late = np.abs(recording.command_rad - path)[times > 1.0]
    assert late.max() < 0.1


def test_the_rig_names_the_arm_model(rig, tmp_path):
    path = tmp_path / "arm.json"
    dynamics = hidden(rig, seed=0)
    save_dynamics(path, dynamics)
    text = rig.text.replace("physics: mujoco,", f"physics: mujoco, arm_model: {path},")
    text = text.replace("calibration/", f"{rig.path.parent}/calibration/")
    text = text.replace("intrinsics: ", f"intrinsics: {rig.path.parent}/")
    (tmp_path / "rig.yaml").write_text(text)
    named = load_rig(tmp_path / "rig.yaml")
    assert named.simulation.arm_model_path == path
    assert load_dynamics(path, named.follower) == dynamics
    lockstep = Lockstep(named)
    pan = lockstep.world.model.joint("follower/shoulder_pan").dofadr[0]
    lockstep.close()
    assert lockstep.world.model.dof_frictionloss[pan] == dynamics["shoulder_pan"].friction_nm


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("0.0025", "NaN"), "armature_kg_m2"),
        (('"gripper"', '"claw"'), "the joints of follower"),
        (('"delay_s"', '"delay_ms"'), "delay_ms: got an unknown key"),
        (("koch_arm_model", "something"), "koch_arm_model: 1"),
    ],
)
def test_a_wrong_arm_model_is_refused_by_name(rig, tmp_path, change, message):
    path = tmp_path / "arm.json"
    save_dynamics(path, nominal_dynamics(rig.follower))
    path.write_text(path.read_text().replace(*change))
    with pytest.raises(SimulationError, match=message):
        load_dynamics(path, rig.follower)


def test_no_bag_is_a_slip(tmp_path):
    with pytest.raises(KochError, match=r"BAG: got 'none'"):
        identify_cli.main([])
    with pytest.raises(KochError, match=r"no BAG beside it"):
        identify_cli.main(["bag", "--excite", str(tmp_path / "out")])
