# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The expert takes over from where a policy got, and its episode says so."""

from functools import partial

import mujoco
import numpy as np
import pytest

from koch_core.options import OptionError
from koch_episodes.convert import cli as convert_cli
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.metadata import CheckpointMetadata
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import Units
from koch_sim import rollout
from koch_sim.grasp import APPROACH_HEIGHT_M, HOME_RAD
from koch_sim.lockstep import Lockstep
from koch_sim.record_cli import LockstepRecord
from koch_sim.recovery import LOST_S, Corrector, Mistake, Recoverer
from koch_sim.rollout import PolicySettings
from koch_sim.settings import LockstepSettings

J = len(KOCH_V1_1.joints)

SEED = 5001
COMMANDS = "follower/joint_command"


@pytest.fixture
def made_of(rig, monkeypatch, tmp_path):
    """Make recoveries, or corrections, of a policy that is a function of the joints."""

    def make(kind, function, after_s, steps=0):
        policy = FunctionPolicy(
            lambda call, observation: function(observation["observation.state"]),
            inputs={"observation.state": PolicyFeature(FeatureType.STATE, (J,))},
            extras=CheckpointMetadata(fps=30.0, units="lerobot"),
        )
        monkeypatch.setattr(rollout, "_load", lambda _: policy)
        settings = PolicySettings(tmp_path, strategy="queue", execution_steps=steps)
        return kind(LockstepSettings(rig.path), settings, "", after_s)

    return make


@pytest.fixture
def recoverer(made_of):
    """Make recoveries."""
    return partial(made_of, Recoverer)


def demonstrated(rig):
    """The expert's demonstration of the seed as one chunk, in LeRobot's units."""
    lockstep = Lockstep.of(LockstepSettings(rig.path))
    lockstep.restart(SEED)
    actions = []
    lockstep.listen(lambda _, __, value: actions.append(value.values), [COMMANDS])
    assert lockstep.demonstrate()
    units = lockstep.world.arms["follower"].units
    rate = round(lockstep.rig.follower.rate_hz / 30.0)
    lockstep.close()
    return units.rad_to(Units.LEROBOT, np.array(actions[::rate])).astype(np.float32)


def converted(root, out):
    """The dataset of a folder of episodes."""
    assert convert_cli.main([str(root), "--out", str(out), "--vcodec", "copy", "--jobs", "1"]) == 0
    return LeRobotDatasetReader(out)


@pytest.mark.slow
def test_the_expert_goes_on_from_where_the_policy_got(recoverer, tmp_path):
    def away(state):
        goal = np.repeat(state[None], 60, axis=0)
        goal[:, 0] += np.linspace(0.0, 40.0, 60)
        return goal.astype(np.float32)

    made = recoverer(away, 1.5)
    root = tmp_path / "episodes"
    root.mkdir()
    result = made((SEED, 0, root / "episode_000000"))
    assert result.folder is not None
    data = converted(root, tmp_path / "dataset")
    assert data.column("intervention").all()
    units = made._rollouts.lockstep.world.arms["follower"].units
    home = units.rad_to(Units.LEROBOT, HOME_RAD)
    first, last = data.column("observation.state")[[0, -1]]
    assert abs(first[0] - home[0]) > 10.0  # the policy had turned the arm
    assert abs(last[0] - home[0]) < 5.0  # and the expert goes home
    # The hand begins where the arm is: no jump that the guard would have to smooth.
    assert np.abs(data.column("action")[0] - first).max() < 8.0


@pytest.mark.slow
def test_what_hangs_in_the_hand_is_not_taken_over(rig, recoverer, tmp_path):
    chunk = demonstrated(rig)
    starts = []

    def replay(state):
        starts.append(len(starts))
        return chunk

    made = recoverer(replay, 8.0)
    lifted = []
    take_over = made._rollouts.lockstep.take_over

    def watched():
        lifted.append(made._rollouts.lockstep.world.lifted())
        take_over()

    made._rollouts.lockstep.take_over = watched
    result = made((SEED, 0, tmp_path / "episode"))
    assert len(starts) > 1  # it had lifted the block, and was taken over earlier then
    assert lifted == [frozenset()]
    assert result.folder is not None


def test_a_low_hand_lets_go_and_rises_first(world):
    block = world.truth().things["block"]
    low = world.planner.into_cup(block, world.truth().things["cup"])[2].q_rad
    path = world.planner.rise(low)
    assert [w.name for w in path] == ["let go", "rise"]
    assert path[0].q_rad[-1] == HOME_RAD[-1]
    tcp = world.planner._kinematics.forward(path[1].q_rad)["tcp"]
    base = world.planner._T_base_world
    height = (np.linalg.inv(base) @ tcp)[2, 3]
    assert height == pytest.approx(APPROACH_HEIGHT_M, abs=0.004)
    assert world.planner.rise(HOME_RAD) == []


def test_a_time_to_take_over_wants_a_policy():
    with pytest.raises(OptionError, match=r"--recover-after.*--recover DIR"):
        LockstepRecord(recover_after=3.0)
    assert LockstepRecord(recover="outputs/act", recover_after=3.0).recover_after == 3.0


@pytest.mark.slow
def test_a_policy_that_errs_is_corrected_in_the_same_episode_without_a_jump(made_of, tmp_path):
    def away(state):
        goal = np.repeat(state[None], 60, axis=0)
        goal[:, 0] += np.linspace(0.0, 40.0, 60)
        return goal.astype(np.float32)

    made = made_of(Corrector, away, 1.5)
    lockstep = made._rollouts.lockstep
    goals = []
    listen = lockstep.listen

    def heard(listener, streams=None):
        listen(listener, streams)
        if streams is None:  # the recorder's: what it hears goes to the bus
            listen(lambda _, stamp, value: goals.append((stamp, *value.values)), [COMMANDS])

    lockstep.listen = heard
    root = tmp_path / "episodes"
    root.mkdir()
    result = made((SEED, 0, root / "episode_000000"))
    assert result.remark == "success corrected, nothing lifted after 1.5 s"
    found = np.array(goals)
    assert np.diff(found[:, 0]).max() < 0.013e9  # no gap at the takeover
    period_s, limits = 1.0 / lockstep.rig.follower.rate_hz, lockstep.guard.limits
    speed = np.diff(found[:, 1:], axis=0) / period_s
    assert np.abs(speed).max() <= limits.max_speed * (1 + 1e-6)
    assert np.abs(np.diff(speed, axis=0)).max() <= limits.max_acceleration * period_s * (1 + 1e-6)
    data = converted(root, tmp_path / "dataset")
    drove = data.column("intervention").reshape(-1)
    first = int(np.argmax(drove))
    assert 1.4 < first / data.fps < 1.8
    assert drove[first:].all()
    assert data.episodes[0].outcome == "success"
    # No rest either: the hand moves on within the guard's soft start.
    assert np.abs(data.column("action")[first + 15] - data.column("action")[first]).max() > 3.0


@pytest.mark.slow
def test_a_policy_that_succeeds_is_left_alone(rig, made_of, tmp_path):
    chunk = demonstrated(rig)
    made = made_of(Corrector, lambda state: chunk, 6.0, len(chunk))
    root = tmp_path / "episodes"
    root.mkdir()
    assert made((SEED, 0, root / "episode_000000")).remark == "success by itself"
    data = converted(root, tmp_path / "dataset")
    assert "intervention" not in data.features
    assert data.episodes[0].outcome == "success"


def test_what_was_lifted_and_lies_again_is_lost(world):
    mistake = Mistake(world, 6.0)

    def after(seconds, height_m):
        world.data.time += seconds
        world.data.joint("block").qpos[2] = height_m
        mujoco.mj_forward(world.model, world.data)
        return mistake.made()

    low = float(world.data.joint("block").qpos[2])
    assert not after(0.0, low)
    assert not after(5.0, 0.1)  # in the air
    assert not after(20.0, 0.1)  # what hangs there is not taken over
    assert not after(0.5 * LOST_S, low)
    assert after(LOST_S, low)
    assert mistake.reason == "lost the block"


def test_nothing_lifted_in_time_is_a_mistake(world):
    mistake = Mistake(world, 6.0)
    assert not mistake.made()
    world.data.time += 5.9
    assert not mistake.made()
    world.data.time += 0.2
    assert mistake.made()
    assert mistake.reason == "nothing lifted after 6 s"


def test_corrections_and_recoveries_exclude_each_other():
    with pytest.raises(OptionError, match=r"--correct-after.*--correct DIR"):
        LockstepRecord(correct_after=3.0)
    with pytest.raises(OptionError, match=r"--correct.*no --recover"):
        LockstepRecord(correct="outputs/act", recover="outputs/act")
