# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated table obeys physics and seeds."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest

from koch_rig.arm_model import KOCH_V1_1
from koch_rig.kinematics import Kinematics
from koch_rig.model import JOINT_LIMITS
from koch_sim.draw import EvenGenerator, draw
from koch_sim.errors import NoMountError, SimulationError
from koch_sim.grasp import HOME_RAD
from koch_sim.lockstep import Lockstep
from koch_sim.randomisation import FULL, SWITCHES, Randomisation, randomised
from koch_sim.scene import build_spec
from koch_sim.truth import folded_yaw
from koch_sim.world import World

J = len(KOCH_V1_1.joints)


def test_joint_limits_are_the_urdfs(world):
    for name in KOCH_V1_1.joints:
        limit = JOINT_LIMITS[name]
        joint = world.model.joint(f"follower/{name}")
        assert joint.range == pytest.approx([limit.lower, limit.upper])


def test_tcp_is_where_forward_kinematics_says(world):
    follower = world.arms["follower"]
    rng = np.random.default_rng(1)
    kinematics = Kinematics.for_arm()
    for _ in range(5):
        q = rng.uniform(-0.5, 0.5, J)
        follower.place(world.data, q)
        mujoco.mj_kinematics(world.model, world.data)
        expected = kinematics.tcp(q)[:3, 3]
        np.testing.assert_allclose(world.data.body("follower/tcp").xpos, expected, atol=1e-6)


def test_a_camera_that_stands_nowhere_is_not_simulated(rig):
    above = replace(rig.cameras["above"], mount=None)
    with pytest.raises(NoMountError, match="camera 'above' of the rig has no mount"):
        build_spec(replace(rig, cameras={**rig.cameras, "above": above}), [])


def test_same_seed_same_table_other_seed_other_table():
    assert draw(FULL, 7, 3) == draw(FULL, 7, 3)
    assert draw(FULL, 7, 3).places != draw(FULL, 8, 3).places


def test_looks_do_not_move_the_block():
    plain, varied = draw(Randomisation(), 3, 3), draw(FULL, 3, 3)
    assert plain.places == varied.places
    assert plain.rgb != varied.rgb


def places_of_block_and_cup(ranges, seeds):
    """Radius and bearing of the block, its turn, radius and bearing of the cup, (seeds, 5)."""
    found = []
    for seed in seeds:
        block, cup = (draw(ranges, seed, 0).places[name] for name in ("block", "cup"))
        polar = [(np.hypot(p.x_m, p.y_m), np.arctan2(p.y_m, p.x_m)) for p in (block, cup)]
        found.append([*polar[0], block.yaw_rad, *polar[1]])
    return np.array(found)


@pytest.mark.parametrize("first", [0, 2, 5000])
def test_even_places_leave_no_part_of_the_area_without_demonstrations(first):
    even, seeds = Randomisation(even_places=True), range(first, first + 50)
    limits = [
        even.block_radius_m, even.block_bearing_rad, even.block_yaw_rad,
        even.cup_radius_m, even.cup_bearing_rad,
    ]  # fmt: skip

    def in_fifths(ranges):
        places = places_of_block_and_cup(ranges, seeds)
        return [np.histogram(p, 5, edge)[0] for p, edge in zip(places.T, limits, strict=True)]

    counts, random = in_fifths(even), in_fifths(Randomisation())
    assert np.min(counts) >= 8
    assert np.sum(counts) == 5 * 50, "nothing lies outside its range"
    assert np.min(random) <= 6, "random places do"
    assert draw(even, first, 0) == draw(even, first, 0)


def test_what_is_drawn_beyond_the_even_numbers_is_random():
    generator = EvenGenerator(3)
    assert generator.uniform(0.0, 1.0, 2).tolist() != [0.0, 0.0]
    assert [generator.uniform() for _ in range(3)] == pytest.approx([1 / 8, 4 / 9, 4 / 5])
    assert generator.uniform(-1.0, 1.0) == pytest.approx(2 * 4 / 7 - 1)
    rest = {generator.uniform() for _ in range(50)}
    assert len(rest) == 50


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_varies_something_and_nothing_else_moves_things(rig, switch):
    world = World(rig, seed=3, randomisation=randomised([switch]))
    plain = World(rig, seed=3)
    assert world.setup.places == plain.setup.places
    assert world.setup != plain.setup
    for _ in range(2):  # draws do not add up
        world.reset(8)
        world.reset(3)
    again = World(rig, seed=3, randomisation=randomised([switch]))
    for name in ("cam_pos", "cam_quat", "cam_fovy", "body_mass", "geom_friction", "geom_rgba"):
        np.testing.assert_array_equal(getattr(world.model, name), getattr(again.model, name))


def test_a_switch_that_is_not_there_is_named():
    with pytest.raises(SimulationError, match="there are all, colours, light"):
        randomised(["gravity"])


def test_resets_do_not_add_up(world):
    world.reset(5)
    friction = world.model.geom_friction.copy()
    for seed in (6, 7, 5):
        world.reset(seed)
    np.testing.assert_array_equal(world.model.geom_friction, friction)


def test_nothing_sinks_and_nothing_gains_energy_while_resting(world):
    world.advance(250)
    energy = []
    for _ in range(10):
        world.advance(25)
        mujoco.mj_energyPos(world.model, world.data)
        mujoco.mj_energyVel(world.model, world.data)
        energy.append(world.data.energy.sum())
    assert max(np.diff(energy)) < 1e-4
    depths = world.data.contact.dist
    assert depths.min() > -0.001
    assert world.truth().things["block"].speed < 0.005


def test_hand_holds_the_leader_at_home(world):
    world.advance(250)
    leader = world.arms["leader"].joints(world.data)
    np.testing.assert_allclose(leader, world._to_leader(HOME_RAD), atol=0.03)


def test_unpowered_follower_falls_and_powered_one_does_not(world, rig):
    start = world.arms["follower"].joints(world.data)
    world.advance(125)
    fallen = world.arms["follower"].joints(world.data)
    assert np.abs(fallen - start).max() > 0.3
    lockstep = Lockstep(rig)
    lockstep.run(0.5)
    assert np.abs(lockstep.joints() - HOME_RAD).max() < 0.15
    lockstep.close()


@pytest.mark.parametrize(("yaw", "folded"), [(0.3, 0.3), (3.0, 3.0 - np.pi), (-2.0, np.pi - 2.0)])
def test_yaw_is_folded_because_the_block_looks_the_same_turned_round(yaw, folded):
    c, s = np.cos(yaw), np.sin(yaw)
    matrix = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])
    assert folded_yaw(matrix) == pytest.approx(folded)


def test_spread_lays_block_and_cup_around_the_same_middle():
    full = Randomisation()
    half = full.narrowed(0.5)
    for name in ("block_radius_m", "block_bearing_rad", "block_yaw_rad", "cup_bearing_rad"):
        low, high = getattr(full, name)
        assert sum(getattr(half, name)) == pytest.approx(low + high)
        assert np.ptp(getattr(half, name)) == pytest.approx(0.5 * (high - low))
    assert draw(full.narrowed(0.0), 1, 0).places == draw(full.narrowed(0.0), 2, 0).places
    with pytest.raises(ValueError, match=r"spread is 1\.5"):
        full.narrowed(1.5)
