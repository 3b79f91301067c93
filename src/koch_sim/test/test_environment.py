# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The Gymnasium environment: the same tables as `koch eval`, the guard before every action."""

import numpy as np
import pytest

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import Units
from koch_sim.errors import SimulationError
from koch_sim.grasp import HOME_RAD

J = len(KOCH_V1_1.joints)

gymnasium = pytest.importorskip("gymnasium", reason="pip install gymnasium")
SMALL = {"image_size": (48, 64), "crops": {"above": (0.25, 0.4, 0.4, 0.4)}}


@pytest.fixture
def table():
    """The environment without cameras."""
    from koch_sim.environment import KochTable

    made = KochTable(cameras=())
    yield made
    made.close()


@pytest.mark.slow
def test_gymnasium_finds_it_and_has_no_complaint():
    from gymnasium.utils.env_checker import check_env

    made = gymnasium.make("koch_sim.environment:KochTable-v0", **SMALL)
    check_env(made.unwrapped, skip_render_check=False)
    observation, _ = made.reset(seed=3)
    assert {name: image.shape for name, image in observation["pixels"].items()} == {
        "above": (48, 64, 3),
        "wrist": (48, 64, 3),
    }
    assert made.render().shape == (480, 640, 3)
    made.close()


def rolled(table, seed, steps=8):
    observation, _ = table.reset(seed=seed)
    states = [observation["agent_pos"]]
    for step in range(steps):
        goal = table._units.rad_to(Units.LEROBOT, HOME_RAD).copy()
        goal[0] += 4.0 * step
        observation, *_ = table.step(goal.astype(np.float32))
        states.append(observation["agent_pos"])
    return np.array(states), observation["environment_state"]


def test_an_episode_follows_from_its_seed(table):
    first, poses = rolled(table, 5)
    again, same = rolled(table, 5)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(poses, same)
    assert np.abs(rolled(table, 6)[1] - poses).max() > 1e-3
    assert first[-1, 0] - first[0, 0] > 5.0


def test_its_tables_are_those_of_the_evaluation(table):
    observation, info = table.reset(seed=100_000)
    assert info["seed"] == 100_000
    block = table.lockstep.world.setup.places["block"]
    np.testing.assert_allclose(
        observation["environment_state"][:2], (block.x_m, block.y_m), atol=1e-3
    )


def test_its_outermost_layer_says_what_to_do():
    options = {"cameras": (), "task": "colour_in_cup", "wording": "held-out", "episode_length": 7}
    made = gymnasium.make("koch_sim.environment:KochTableTold-v0", **options)
    for seed in (1, 2):
        made.reset(seed=seed)
        asked = made.unwrapped.lockstep.world.setup.goal.sentence
        assert made.task_description == asked
        assert hasattr(made, "task_description")  # what LeRobot asks
    assert made.get_wrapper_attr("_max_episode_steps") == 7
    made.close()


def test_a_wild_action_is_limited_by_the_guard(table):
    table.reset(seed=1)
    wild = np.full(J, 100.0, np.float32)
    before = table.lockstep.joints()
    table.step(wild)
    moved = np.abs(table.lockstep.joints() - before).max()
    assert moved < table.lockstep.rig.limits.max_speed / 30.0 * 1.5
    with pytest.raises(ValueError, match="6 finite numbers"):
        table.step(np.full(J, np.nan, np.float32))


def test_a_camera_that_is_not_there_is_named():
    from koch_sim.environment import KochTable

    with pytest.raises(SimulationError, match="no camera 'front'; this rig has above"):
        KochTable(cameras=("front",))
