# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The expert takes over from where a policy got, and its episode says so."""

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
from koch_sim.recovery import Recoverer
from koch_sim.rollout import PolicySettings
from koch_sim.settings import LockstepSettings

J = len(KOCH_V1_1.joints)

SEED = 5001


@pytest.fixture
def recoverer(rig, monkeypatch, tmp_path):
    """Make recoveries of a policy that is a function of the joints; the rig's own spread."""

    def make(function, longest_s):
        policy = FunctionPolicy(
            lambda call, observation: function(observation["observation.state"]),
            inputs={"observation.state": PolicyFeature(FeatureType.STATE, (J,))},
            extras=CheckpointMetadata(fps=30.0, units="lerobot"),
        )
        monkeypatch.setattr(rollout, "_load", lambda _: policy)
        settings = PolicySettings(tmp_path, strategy="queue")
        return Recoverer(LockstepSettings(rig.path), settings, "", longest_s)

    return make


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
    out = tmp_path / "dataset"
    assert convert_cli.main([str(root), "--out", str(out), "--vcodec", "copy", "--jobs", "1"]) == 0
    data = LeRobotDatasetReader(out)
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
    lockstep = Lockstep.of(LockstepSettings(rig.path))
    lockstep.restart(SEED)
    actions = []
    lockstep.listen(lambda _, __, value: actions.append(value.values), ["follower/joint_command"])
    assert lockstep.demonstrate()
    units = lockstep.world.arms["follower"].units
    rate = round(lockstep.rig.follower.rate_hz / 30.0)
    lockstep.close()
    chunk = units.rad_to(Units.LEROBOT, np.array(actions[::rate])).astype(np.float32)
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
