# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rollouts in lockstep run the policy node's own parts: what was demonstrated can be replayed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest

from koch_episodes.clip import FPS
from koch_policy.chunks import Grid, Request
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.execution import InferenceWorker, LockstepWorker, ObservationBuilder
from koch_policy.execution.inference import plain_predict
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.metadata import CheckpointMetadata
from koch_policy.recordings import bag_ticks
from koch_policy.runtime import load_policy
from koch_policy.train.config import Recipe
from koch_policy.train.data import ArrayFrames, Demonstrations
from koch_policy.train.setup import make_trainer
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.units import Units
from koch_sim import rollout
from koch_sim.errors import SimulationError
from koch_sim.lockstep import Lockstep
from koch_sim.recording import LockstepRecorder
from koch_sim.rollout import FilmedRollouts, PolicyRollouts, PolicySettings
from koch_sim.settings import LockstepSettings
from koch_sim.things import BLOCK_HALF_M, CUP_FLOOR_M

J = len(KOCH_V1_1.joints)

SEED = 5001
CAMERA = "observation.images.above"
INPUTS = {
    "observation.state": PolicyFeature(FeatureType.STATE, (J,)),
    CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
}


def policy_of(function):
    return FunctionPolicy(
        function, inputs=INPUTS, extras=CheckpointMetadata(fps=30.0, units="lerobot")
    )


@pytest.fixture
def rollouts(rig, monkeypatch, tmp_path):
    """Make rollouts of a policy that is a function; the rig's own spread."""

    def make(function, timeout_s, **settings):
        monkeypatch.setattr(rollout, "_load", lambda _: policy_of(function))
        options = PolicySettings(tmp_path, strategy="queue", **settings)
        return PolicyRollouts(LockstepSettings(rig.path), options, timeout_s)

    return make


def test_a_policy_that_stays_home_runs_out_of_time(rollouts):
    seen = []

    def stay(call, observation):
        seen.append(observation)
        return np.repeat(observation["observation.state"][None], 30, axis=0)

    trial = rollouts(stay, 2.0)(SEED)
    assert not trial.success
    assert "2 s are over" in trial.reason
    assert trial.milestone == "nothing"
    assert trial.duration_s == pytest.approx(2.0, abs=0.1)
    assert seen[0][CAMERA].shape == (480, 640, 3)
    assert seen[0]["task"].startswith("Pick up the rectangular block")


def test_a_filmed_rollout_is_the_same_and_plays(rollouts, tmp_path):
    def drift(call, observation):
        ahead = 0.5 * np.arange(30, dtype=np.float32)[:, None]
        return observation["observation.state"][None] + ahead

    made = rollouts(drift, 2.0)
    plain = made(SEED)
    filmed = FilmedRollouts(lambda: made, {SEED}, "left", tmp_path)
    assert filmed(SEED) == plain
    filmed(SEED + 1)
    assert [path.name for path in tmp_path.glob("*.mp4")] == [f"rollout_{SEED}.mp4"]
    with av.open(str(tmp_path / f"rollout_{SEED}.mp4")) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == pytest.approx(plain.duration_s * FPS, abs=7)  # and the rest behind it
    moved = np.abs(frames[-1].astype(int) - frames[0]).mean()
    assert moved > 0.5  # the arm, not one image again and again


def test_a_success_that_does_not_last_ends_nothing(rollouts):
    """The block lies in the cup for 0.4 s, then beside it, then in it to the end."""
    made, calls = None, []

    def stay(call, observation):
        world = made.lockstep.world
        calls.append(world.time_s)
        block, cup = world.data.joint("block"), world.data.joint("cup")
        beside = (0.0, 0.0) if len(calls) != 2 else (-0.08, 0.0)
        block.qpos[:2] = cup.qpos[:2] + beside
        block.qpos[2] = CUP_FLOOR_M + BLOCK_HALF_M[2]
        block.qvel[:] = 0.0
        return np.repeat(observation["observation.state"][None], 60, axis=0)

    made = rollouts(stay, 4.0, execution_steps=12)
    trial = made(SEED)
    assert trial.success
    assert trial.reason == "the task is done"
    assert len(calls) >= 3
    assert trial.duration_s >= calls[2] - calls[0]
    assert trial.duration_s < 3.0


def test_a_rollout_follows_from_its_seed(rollouts):
    states = []

    def wave(call, observation):
        states.append(observation["observation.state"])
        goal = np.repeat(observation["observation.state"][None], 30, axis=0)
        goal[:, 0] += np.linspace(0.0, 20.0, 30)
        return goal.astype(np.float32)

    made = rollouts(wave, 3.0)
    ends = [made(SEED), made(SEED + 1), made(SEED)]
    third = len(states) // 3
    assert np.array_equal(states[:third], states[-third:])
    assert ends[0] == ends[2]


def test_an_inference_takes_its_time_in_the_world(rollouts):
    """The slower the policy, the later its first command."""
    begins = []
    for delay_s in (0.02, 0.4):
        made = rollouts(lambda call, o: np.repeat(o["observation.state"][None], 60, axis=0), 1.0,
                        delay_s=delay_s)  # fmt: skip
        commands = []
        made.lockstep.command = lambda source, pose, stamp, c=commands: c.append(stamp)
        made(SEED)
        begins.append(commands[0])
    assert begins[1] - begins[0] == pytest.approx(0.38e9, abs=0.07e9)


@pytest.mark.slow
def test_what_the_expert_commanded_does_the_task_again_as_a_policy(rig, rollouts):
    """The whole way of a chunk: units, grid, scheduler, guard, servos, predicate."""
    actions = []
    lockstep = Lockstep.of(LockstepSettings(rig.path))
    lockstep.restart(SEED)
    ticks = []

    def hear(stream, stamp_ns, value):
        if not ticks or stamp_ns - ticks[-1] >= 33_000_000:
            ticks.append(stamp_ns if not ticks else ticks[-1] + 33_333_333)
            actions.append(value.values)

    lockstep.listen(hear, ["follower/joint_command"])
    assert lockstep.demonstrate()
    units = lockstep.world.arms["follower"].units
    lockstep.close()
    chunk = units.rad_to(Units.LEROBOT, np.array(actions)).astype(np.float32)
    trial = rollouts(lambda call, observation: chunk, 12.0, execution_steps=len(chunk))(SEED)
    assert trial.success
    assert trial.milestone == "done"
    assert (trial.asked, trial.lifted) == ("block", "block")


SMALL = {
    "keypoints": {"type": "act", "vision_backbone": "keypoints", "chunk_size": 8, "dim_model": 32,
                  "n_action_steps": 8, "n_heads": 2, "dim_feedforward": 32, "use_vae": False,
                  "n_encoder_layers": 1},
    "act": {"type": "act", "chunk_size": 20, "n_action_steps": 10, "dim_model": 32, "n_heads": 2,
            "dim_feedforward": 32, "use_vae": False, "n_encoder_layers": 1},
    "diffusion": {"type": "diffusion", "horizon": 16, "n_action_steps": 8, "down_dims": [16, 32],
                  "n_groups": 4, "diffusion_step_embed_dim": 16, "num_train_timesteps": 20,
                  "spatial_softmax_num_keypoints": 4, "num_inference_steps": 3,
                  "noise_scheduler_type": "DDIM", "crop_shape": None},
}  # fmt: skip


def untrained(folder, network="keypoints"):
    """A small camera policy with the units and names of the simulated rig."""
    draw = np.random.default_rng(0)
    joints = [f"{name}.pos" for name in KOCH_V1_1.joints]
    vectors = {
        key: draw.uniform(-50.0, 50.0, (40, J)).astype(np.float32)
        for key in ("observation.state", "action")
    }
    data = Demonstrations(
        name="made up", fps=30.0, lengths=(40,), vectors=vectors, units="lerobot",
        frames={CAMERA: ArrayFrames(draw.integers(0, 256, (40, 24, 32, 3), dtype=np.uint8))},
        names=dict.fromkeys(vectors, joints),
    )  # fmt: skip
    groups = {
        "policy": SMALL[network],
        "train": {"image_sizes": {CAMERA: [24, 32]}, "crops": {CAMERA: [0.2, 0.4, 0.5, 0.5]},
                  "validation_fraction": 0.0},
    }  # fmt: skip
    make_trainer(data, Recipe().with_overrides(groups, "test"), folder).save()
    return folder


@pytest.mark.slow
def test_a_trial_tells_the_energy_of_what_was_executed(rig, tmp_path):
    asked = LockstepSettings(rig.path)
    checkpoint = untrained(tmp_path / "diffusion", "diffusion")
    options = PolicySettings(checkpoint, strategy="queue", execution_steps=8, energy=True)
    made = PolicyRollouts(asked, options, 2.5)
    first, again = made(SEED), made(SEED)
    times, energies = np.array(first.energy).T
    assert len(times) >= 3
    assert (np.diff(times) > 0.0).all()
    assert times[0] >= 15 / 30.0  # a horizon of 16 steps must be over
    assert times[-1] <= 2.6
    assert (energies > 0.0).all()
    assert first == again
    act = PolicySettings(untrained(tmp_path / "act"), energy=True)
    with pytest.raises(SimulationError, match=r"--energy: .*'act'.*expected flow or diffusion"):
        PolicyRollouts(asked, act, 1.0)


@pytest.mark.slow
def test_the_node_and_lockstep_decide_alike_on_a_stored_observation(rig, tmp_path):
    """A bag read as the graph's streams, in the node's thread; the same instant as heard."""
    checkpoint = untrained(tmp_path / "policy")
    policy = load_policy(checkpoint, "torch", full_horizon=True)
    lockstep, writer = Lockstep(rig, seed=SEED), LockstepRecorder(rig)
    units = {name: body.units for name, body in lockstep.world.arms.items()}
    live, stamps = ObservationBuilder(policy, rig, units), []

    def hear(stream, stamp_ns, value):
        stamps.append(stamp_ns)
        if stream in live.streams:
            live.push(stream, stamp_ns, value)

    lockstep.listen(hear)
    lockstep.listen(writer.hear)
    lockstep.run(0.6)
    bag = writer.write(tmp_path / "episode", "a task", 0, "success")
    tick = 5
    stored = next(t for n, t in enumerate(bag_ticks(bag, rig, policy, units)) if n == tick)
    assert live.observe(tick, Grid(min(stamps), 30.0).time_ns(tick)) is None
    heard = live.observation(tick, "a task")
    lockstep.close()
    asked = Request(1, tick, 0, None)
    ours = LockstepWorker(policy, lambda: 0, 0.0)
    ours.submit(asked, heard, plain_predict)
    node = InferenceWorker(lambda: policy, lambda: 0, "a task")
    node.start()
    node.submit(asked, stored.observe(), plain_predict)
    end = time.monotonic() + 60.0
    while (answer := node.poll()) is None and time.monotonic() < end:
        time.sleep(0.01)
    node.close()
    assert np.abs(answer.raw).max() > 1.0
    np.testing.assert_array_equal(answer.raw, ours.poll().raw)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_lerobot_closes_the_loop_and_a_killed_server_is_named(
    rig, tmp_path, lerobot_python, monkeypatch, policy
):
    """Its own networks and processors, in its own Python, down to the servos."""
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", lerobot_python)
    checkpoint = untrained(tmp_path / "policy", policy)
    made = PolicyRollouts(
        LockstepSettings(rig.path), PolicySettings(checkpoint, runtime="lerobot"), 3.0
    )
    served, commands = made._policy, []
    command = made.lockstep.command

    def hear(source, pose, stamp_ns):
        commands.append(pose)
        if len(commands) == kill_at:
            os.kill(served.pid, signal.SIGKILL)
        command(source, pose, stamp_ns)

    made.lockstep.command = hear
    kill_at = 0
    assert "3 s are over" in made(SEED).reason
    assert len(commands) > 30
    assert np.isfinite(commands).all()
    kill_at = len(commands) + 10
    reason = made(SEED).reason
    assert "no action for 1.0 s: the policy server" in reason
    assert "ended by SIGKILL" in reason
    count, kill_at = len(commands), 0
    assert "3 s are over" in made(SEED).reason
    assert len(commands) > count + 30
    served.close()


SMOLVLA = Path(__file__).parents[2] / "koch_policy" / "test" / "smolvla_side.py"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_vla_closes_the_loop_and_hears_its_task(rig, tmp_path, lerobot_python, monkeypatch):
    """SmolVLA with a tiny backbone and random weights: images, state and text go all the way."""
    offline = {**os.environ, "PYTHONPATH": "", "HF_HUB_OFFLINE": "1"}
    has = [lerobot_python, "-c", "import transformers, num2words, lerobot.policies.smolvla"]
    if subprocess.run(has, env=offline, capture_output=True, check=False).returncode != 0:
        pytest.skip("this LeRobot lacks its extra smolvla")
    made = [lerobot_python, str(SMOLVLA), str(tmp_path)]
    done = subprocess.run(made, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    monkeypatch.setenv("KOCH_LEROBOT_PYTHON", lerobot_python)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    settings = PolicySettings(tmp_path / "policy", runtime="lerobot", delay_s=0.2)
    rollouts = PolicyRollouts(LockstepSettings(rig.path), settings, 2.0)
    served, commands = rollouts._policy, []
    command = rollouts.lockstep.command

    def hear(source, pose, stamp_ns):
        commands.append(pose)
        command(source, pose, stamp_ns)

    rollouts.lockstep.command = hear
    assert "2 s are over" in rollouts(SEED).reason
    assert len(commands) > 40
    assert np.isfinite(commands).all()
    assert served.config.horizon_steps == 30
    seen = {
        "observation.state": np.zeros(J, np.float32),
        CAMERA: np.full((480, 640, 3), 90, np.uint8),
    }
    noise = np.ones((30, J), np.float32)
    pick, again, push = (
        served.predict({**seen, "task": task}, noise=noise)
        for task in ("pick up the block", "pick up the block", "push the cup to the left")
    )
    np.testing.assert_array_equal(pick, again)
    assert np.abs(pick - push).max() > 1e-4
    served.close()
