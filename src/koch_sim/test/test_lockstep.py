# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The lockstep simulation: the same seed gives the same run, and the guard stands in the way."""

from functools import partial

import numpy as np
import pytest
import simplejpeg

from koch_driver.guard import GuardState
from koch_sim.errors import SimulationError
from koch_sim.expert import HUMAN, SMOOTH
from koch_sim.lockstep import CameraImage, Lockstep, over_processes
from koch_sim.settings import LockstepSettings

CAMERAS = ("above", "left", "wrist")


@pytest.fixture
def lockstep(rig):
    """A lockstep simulation at seed 0."""
    opened = Lockstep(rig)
    yield opened
    opened.close()


def streams_of(lockstep, seed, seconds=0.5, drive=None):
    """What a listener hears after a restart, images left out."""
    heard = []
    lockstep.restart(seed)
    lockstep.listen(lambda *sample: heard.append(sample))
    end = lockstep.time_ns + round(seconds * 1e9)
    while lockstep.time_ns < end:
        if drive is not None:
            drive()
        lockstep.run(1.0 / 30.0)
    lockstep.hush()
    return [
        (name, stamp, tuple(value.values))
        for name, stamp, value in heard
        if not isinstance(value, CameraImage)
    ]


def wave(lockstep):
    """Command a motion that depends on time alone."""
    goal = lockstep.joints()
    goal[0] += 0.1 * np.sin(lockstep.time_ns * 1e-9)
    lockstep.command("policy", goal.tolist(), lockstep.time_ns)


def test_a_run_follows_from_its_seed_whatever_ran_before(rig, lockstep):
    other = Lockstep(rig, seed=9)
    other.restart(4)
    other.demonstrate(timeout_s=2.0)
    first = streams_of(lockstep, 3, drive=partial(wave, lockstep))
    again = streams_of(other, 3, drive=partial(wave, other))
    other.close()
    assert first == again
    assert first != streams_of(lockstep, 5, drive=partial(wave, lockstep))


def test_streams_have_the_rigs_names_and_rates(lockstep):
    heard = streams_of(lockstep, 1, seconds=1.0)
    counts = {name: sum(sample[0] == name for sample in heard) for name, _, _ in heard}
    assert counts == pytest.approx(
        {
            "follower/joint_states": 100,
            "follower/joint_command": 100,
            "leader/joint_states": 100,
            "sim/environment_state": 50,
        },
        abs=3,
    )
    stamps = [stamp for name, stamp, _ in heard if name == "follower/joint_states"]
    assert min(stamps) > 0
    assert stamps == sorted(set(stamps))


def test_cameras_deliver_at_their_rate_and_draw_only_what_is_asked_for(lockstep):
    samples = []

    def hear(stream, stamp_ns, value):
        if isinstance(value, CameraImage):
            samples.append((stream, value))

    lockstep.listen(hear)
    lockstep.run(1.0)
    lockstep.hush()
    for camera in CAMERAS:
        assert sum(stream == f"cameras/{camera}" for stream, _ in samples) in (30, 31)
    assert not lockstep.cameras._renderers
    images = [simplejpeg.decode_jpeg(bytes(sample)) for _, sample in samples[-3:]]
    assert {image.shape for image in images} == {(480, 640, 3)}
    assert np.abs(images[0].astype(int) - images[1]).mean() > 5.0


def test_an_image_shows_its_own_instant(lockstep):
    before = lockstep.image("above")
    early = bytes(lockstep.image("above"))
    lockstep.world.restart(77)
    assert bytes(before) == early
    assert bytes(lockstep.image("above")) != early


def test_the_guard_limits_what_a_policy_commands(lockstep):
    far = np.array(lockstep.joints())
    far[0] += 2.5
    goals = []
    for _ in range(20):
        lockstep.command("policy", far.tolist(), lockstep.time_ns)
        lockstep.run(1.0 / 30.0)
        goals.append(lockstep.result.goal)
    assert lockstep.result.state in (GuardState.DRIVING, GuardState.BLENDING)
    speed = np.abs(np.diff(np.array(goals), axis=0)).max() * 30.0
    assert 0.1 < speed <= lockstep.rig.limits.max_speed * 1.2
    assert lockstep.guard.counts()


def test_an_old_command_is_refused(lockstep):
    start = np.array(lockstep.result.goal)
    for _ in range(10):
        lockstep.command("policy", (start + 0.3).tolist(), lockstep.time_ns - 1_000_000_000)
        lockstep.run(1.0 / 30.0)
    assert lockstep.result.state is GuardState.HOLDING
    assert {rule.value for rule, _ in lockstep.guard.counts()} == {"age"}


def longest_rest_s(lockstep, style, seed):
    """The longest time in which no joint is faster than 0.2 rad/s, between first and last motion.

    Slower is the hand's tremor, and its leaning against the follower's sag.
    """
    goals = []

    def hear(stream, _, value):
        if stream == "follower/joint_command":
            goals.append(value.values)

    lockstep.world.expert.style = style
    lockstep.restart(seed)
    lockstep.listen(hear)
    assert lockstep.demonstrate()
    lockstep.hush()
    moving = np.flatnonzero(np.abs(np.diff(np.array(goals), axis=0)).max(axis=1) > 0.002)
    return float(np.diff(moving).max()) * 0.01


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
def test_the_smooth_hand_never_rests_and_the_human_one_does(lockstep, seed):
    assert longest_rest_s(lockstep, SMOOTH, seed) < 0.2
    assert longest_rest_s(lockstep, HUMAN, seed) > 0.4


@pytest.mark.slow
def test_demonstrations_succeed_on_unseen_seeds(lockstep):
    successes = 0
    for seed in range(1000, 1006):
        lockstep.restart(seed)
        successes += lockstep.demonstrate()
    assert successes >= 5


def test_the_hand_keeps_the_worlds_time(lockstep):
    """Its clock once ran 10 ms in every 12."""
    world = lockstep.world
    world.demonstrate()
    planned_s = world.expert._motions[0].over_s
    begin_s = world.time_s
    while world.expert.step == "reach":
        world.advance()
    assert world.time_s - begin_s == pytest.approx(planned_s, abs=0.02)


def square(number):
    """Stand in for a rollout."""
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * number


def make_square():
    return square


@pytest.mark.parametrize("processes", [1, 3])
def test_results_come_in_the_order_of_the_jobs(processes):
    assert list(over_processes(make_square, range(7), processes)) == [n * n for n in range(7)]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_job_raises_is_raised(processes):
    with pytest.raises(ValueError, match="-1 is negative"):
        list(over_processes(make_square, [2, -1, 3], processes))


def test_settings_refuse_what_cannot_work(tmp_path, rig):
    with pytest.raises(SimulationError, match="without a simulated table"):
        LockstepSettings(rig.path.with_name("rig.yaml")).check()
    with pytest.raises(SimulationError, match=r"--spread 1\.5"):
        LockstepSettings(rig.path, spread=1.5).check()
