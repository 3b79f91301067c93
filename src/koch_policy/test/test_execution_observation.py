# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Streams to observations: units, names, history; what a policy needs and what a rig has."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg

from koch_episodes.decode import NamedValues, continuous
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.execution import ObservationBuilder, check_policy, differences
from koch_policy.execution.compatibility import MismatchError
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.metadata import CheckpointMetadata
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.calibration import load_calibration
from koch_rig.fingerprint import fingerprint
from koch_rig.load import load_rig
from koch_rig.units import JointUnits, Units, joint_units

J = len(KOCH_V1_1.joints)

CONFIG = Path(__file__).resolve().parents[3] / "config"
RIG = load_rig(CONFIG / "rig.sim.yaml")
UNITS = {
    name: JointUnits(arm, load_calibration(arm.calibration_path)) for name, arm in RIG.arms.items()
}
STATE = PolicyFeature(FeatureType.STATE, (J,))
ENVIRONMENT = PolicyFeature(FeatureType.ENV, (J,))
IMAGE = PolicyFeature(FeatureType.VISUAL, (3, 480, 640))
INPUTS = {
    "observation.state": STATE,
    "observation.environment_state": ENVIRONMENT,
    "observation.images.above": IMAGE,
}
T0 = 1_700_000_000_000_000_000


def policy(inputs: Any = None, steps: int = 1, **extras: Any) -> FunctionPolicy:
    made = FunctionPolicy(
        lambda call, observation: np.zeros((30, J), np.float32),
        inputs=inputs or INPUTS,
        extras=CheckpointMetadata(**extras),
    )
    object.__setattr__(made.config, "n_obs_steps", steps)
    return made


def jpeg(level: int) -> bytes:
    return bytes(simplejpeg.encode_jpeg(np.full((480, 640, 3), level, np.uint8)))


def fed(builder: ObservationBuilder, at: int, value: float = 0.1) -> None:
    shuffled = KOCH_V1_1.joints[::-1]
    builder.push("follower/joint_states", at, NamedValues(shuffled, [value] * 5 + [value + 0.1]))
    names = ["block_x", "block_y", "block_z", "block_yaw", "cup_x", "cup_y"]
    builder.push("sim/environment_state", at, NamedValues(names, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]))
    if "cameras/above" in builder.streams:
        builder.push("cameras/above", at, jpeg(100))


def test_values_arrive_by_name_in_dataset_units() -> None:
    builder = ObservationBuilder(policy(), RIG, UNITS)
    assert set(builder.streams) == {
        "follower/joint_states",
        "sim/environment_state",
        "cameras/above",
    }
    fed(builder, T0)
    assert builder.missing(T0) is None
    assert builder.observe(5, T0 + 1_000_000) is None
    observation = builder.observation(5, "pick")
    radians = [0.2, 0.1, 0.1, 0.1, 0.1, 0.1]  # shoulder_pan came last
    expected = UNITS["follower"].rad_to(Units.LEROBOT, radians)
    np.testing.assert_allclose(observation["observation.state"], expected, rtol=1e-6)
    assert observation["observation.state"].dtype == np.float32
    assert observation["observation.images.above"].shape == (480, 640, 3)
    assert observation["observation.images.above"].dtype == np.uint8
    assert abs(int(observation["observation.images.above"][0, 0, 0]) - 100) <= 1
    assert observation["task"] == "pick"
    assert builder.stamp_ns(5) == T0


def test_environment_values_follow_the_checkpoints_names() -> None:
    names = ["cup_y", "cup_x", "block_x", "block_y", "block_z", "block_yaw"]
    builder = ObservationBuilder(
        policy(names={"observation.environment_state": names}), RIG, UNITS
    )
    fed(builder, T0)
    assert builder.observe(0, T0) is None
    values = builder.observation(0, "")["observation.environment_state"]
    np.testing.assert_array_equal(values, [6, 5, 1, 2, 3, 4])


@pytest.mark.parametrize("age_s", [0.0, 3.0, 3600.0])
def test_a_stream_that_holds_counts_at_any_age_from_when_it_was_sent(age_s: float) -> None:
    key = "sim/environment_state"
    rig = replace(RIG, streams={**RIG.streams, key: replace(RIG.streams[key], holds=True)})
    builder = ObservationBuilder(policy(), rig, UNITS)
    later = T0 + round(age_s * 1e9)
    fed(builder, T0)
    builder.push("follower/joint_states", later, NamedValues(KOCH_V1_1.joints, [0.1] * J))
    builder.push("cameras/above", later, jpeg(100))
    assert builder.observe(0, later) is None
    assert builder.observation(0, "")["observation.environment_state"][0] == 1.0
    names = ["block_x", "block_y", "block_z", "block_yaw", "cup_x", "cup_y"]
    builder.push(key, later + 40_000_000, NamedValues(names, [9.0] * J))
    for tick, wanted in ((1, 1.0), (2, 9.0)):
        assert builder.observe(tick, later + tick * 20_000_000) is None
        assert builder.observation(tick, "")["observation.environment_state"][0] == wanted
    missing = builder.missing(later + 10_000_000_000)
    assert missing is not None
    assert key not in str(missing)


@pytest.mark.parametrize("signs", ["++++++", "------", "+-+-+-", "--+--+"])
@pytest.mark.parametrize("start", [0.0, 2.0, 4.0])
def test_quaternions_have_the_signs_that_the_converter_gives_them(
    signs: str, start: float
) -> None:
    names = ["x", "y", "tool_qx", "tool_qy", "tool_qz", "tool_qw"]
    turns = [start + 0.4 * k for k in range(len(signs))]
    rows = np.array([[k, -k, 0, 0, np.sin(a / 2), np.cos(a / 2)] for k, a in enumerate(turns)])
    sent = rows.copy()
    sent[[sign == "-" for sign in signs], 2:] *= -1.0
    builder = ObservationBuilder(policy(), RIG, UNITS)
    for _ in range(2):  # the second run begins like the first
        builder.clear()
        for tick, row in enumerate(sent):
            at = T0 + tick * 20_000_000
            fed(builder, at)
            builder.push("sim/environment_state", at, NamedValues(names, row))
            assert builder.observe(tick, at) is None
            seen = builder.observation(tick, "")["observation.environment_state"]
            wanted = continuous(sent[: tick + 1], [2, 3, 4, 5])[-1]
            np.testing.assert_allclose(seen, wanted, atol=1e-6)


def test_vectors_are_joined_as_in_training() -> None:
    parts = {"observation.state": ["observation.state", "observation.environment_state"]}
    inputs = {"observation.state": PolicyFeature(FeatureType.STATE, (12,))}
    builder = ObservationBuilder(policy(inputs, parts=parts, units="radians"), RIG, UNITS)
    fed(builder, T0)
    assert builder.observe(0, T0) is None
    joined = builder.observation(0, "")["observation.state"]
    np.testing.assert_allclose(joined[:2], [0.2, 0.1], rtol=1e-6)
    np.testing.assert_allclose(joined[6:], [1, 2, 3, 4, 5, 6])


def test_a_stale_stream_is_named_without_decoding() -> None:
    builder = ObservationBuilder(policy(), RIG, UNITS)
    fed(builder, T0)
    builder.push(
        "follower/joint_states", T0 + 80_000_000, NamedValues(KOCH_V1_1.joints, [0.0] * J)
    )
    builder.push("sim/environment_state", T0 + 80_000_000, NamedValues(["a"], [0.0]))
    gone = builder.missing(T0 + 120_000_000)
    assert gone is not None
    assert [reason.stream for reason in gone.reasons] == ["cameras/above"]
    assert "120 ms old, allowed 100 ms" in str(gone)


def test_a_broken_image_is_ignored() -> None:
    builder = ObservationBuilder(policy(), RIG, UNITS)
    fed(builder, T0)
    builder.push("cameras/above", T0 + 10_000_000, jpeg(50)[:2000])
    assert builder.observe(0, T0 + 20_000_000) is None  # the older whole one is young enough
    image = builder.observation(0, "")["observation.images.above"]
    assert abs(int(image[0, 0, 0]) - 100) <= 1
    gone = builder.observe(1, T0 + 105_000_000)
    assert gone is not None


def test_history_stands_oldest_first_and_the_first_is_repeated() -> None:
    inputs = {"observation.state": STATE}
    builder = ObservationBuilder(policy(inputs, steps=3, units="radians"), RIG, UNITS)
    assert builder.has_history
    for tick, value in ((0, 0.1), (1, 0.2), (2, 0.3), (4, 0.5)):
        at = T0 + tick * 33_333_333
        builder.push("follower/joint_states", at, NamedValues(KOCH_V1_1.joints, [value] * J))
        assert builder.observe(tick, at) is None
        if tick == 0:
            first = builder.observation(0, "")["observation.state"]
            np.testing.assert_allclose(first[:, 0], [0.1, 0.1, 0.1], rtol=1e-6)
    assert builder.observation(2, "")["observation.state"].shape == (3, 6)
    np.testing.assert_allclose(
        builder.observation(4, "")["observation.state"][:, 0],
        [0.3, 0.5, 0.5],  # tick 3 was missing
        rtol=1e-6,
    )


def test_a_checkpoint_of_this_rig_fits() -> None:
    names = {"action": [f"{joint}.pos" for joint in KOCH_V1_1.joints]}
    made = policy(fps=30.0, units="lerobot", fingerprint=fingerprint(RIG), names=names)
    assert differences(made, RIG) == ([], [])


def test_a_checkpoint_without_any_word_fits_with_notes() -> None:
    """LeRobot's own: no koch.json."""
    wrong, notes = differences(policy(), RIG)
    assert wrong == []
    assert any("fps" in note for note in notes)
    assert any("LeRobot's -100..100" in note for note in notes)


@pytest.mark.parametrize(
    ("inputs", "extras", "words"),
    [
        ({**INPUTS, "observation.images.front": IMAGE}, {}, r"images.front: not among .*above"),
        (
            {"observation.images.above": PolicyFeature(FeatureType.VISUAL, (3, 240, 320))},
            {},
            "trained with 320x240 images, camera above gives 640x480",
        ),
        ({"observation.state": PolicyFeature(FeatureType.STATE, (7,))}, {}, "7 values, the arm"),
        (None, {"fps": 50.0}, "50 per second, the rig's are 30"),
        (None, {"units": "inches"}, "units: 'inches', known are"),
        (
            None,
            {"names": {"action": list(KOCH_V1_1.joints[::-1])}},
            "names are gripper, wrist_roll",
        ),
        (None, {"fingerprint": "sha256:" + "0" * 64}, "fingerprint sha256:"),
    ],
)
def test_a_misfit_is_refused_readably(inputs: Any, extras: Any, words: str) -> None:
    with pytest.raises(MismatchError, match=words) as caught:
        check_policy(policy(inputs, **extras), RIG, "checkpoint/here")
    assert "checkpoint/here does not fit the rig 'koch_sim'" in str(caught.value)


def test_resized_images_fit_any_camera() -> None:
    small = {"observation.images.above": PolicyFeature(FeatureType.VISUAL, (3, 96, 128))}
    assert differences(policy(small, runtime={"resize": True}), RIG)[0] == []


def test_another_fingerprint_can_be_allowed_but_not_another_camera() -> None:
    other = {"fingerprint": "sha256:" + "0" * 64}
    notes = check_policy(policy(**other), RIG, "x", allow=True)
    assert any("fingerprint" in note for note in notes)
    with pytest.raises(MismatchError, match="front"):
        check_policy(
            policy({**INPUTS, "observation.images.front": IMAGE}, **other), RIG, "x", allow=True
        )


def test_a_rig_with_fewer_streams_says_what_is_missing() -> None:
    emulated = load_rig(CONFIG / "rig.emulated.yaml")
    wrong, _ = differences(policy(), emulated)
    assert any("observation.environment_state: not among" in line for line in wrong)
    assert any("observation.images.above: not among" in line for line in wrong)
    assert replace(emulated, fps=31).fps == 31


def test_images_their_camera_calls_unusable_are_missing_until_it_recovers() -> None:
    builder = ObservationBuilder(policy(), RIG, UNITS)
    fed(builder, T0)
    assert builder.missing(T0) is None
    builder.mark("cameras/above", T0 - 1, "images are black")
    missing = builder.missing(T0)
    assert str(missing) == "cameras/above: unusable: images are black"
    assert builder.observe(1, T0) is not None
    builder.mark("cameras/above", T0 + 1, "")
    fed(builder, T0 + 1)
    assert builder.observe(2, T0 + 1) is None


def test_a_state_of_two_arms_is_joined_and_each_arm_has_its_units() -> None:
    rig = load_rig(CONFIG / "rig.two_arms.yaml")
    units = joint_units(rig)
    wide = {"observation.state": PolicyFeature(FeatureType.STATE, (12,))}
    builder = ObservationBuilder(policy(wide), rig, units)
    assert set(builder.streams) == {"left/joint_states", "right/joint_states"}
    builder.push("left/joint_states", T0, NamedValues(KOCH_V1_1.joints, [0.1] * J))
    assert str(builder.missing(T0)) == "right/joint_states: no sample at or before the tick"
    builder.push("right/joint_states", T0, NamedValues(KOCH_V1_1.joints[::-1], [0.2] * J))
    assert builder.observe(1, T0) is None
    state = builder.observation(1, "")["observation.state"]
    for arm, angle, part in (("left", 0.1, state[:6]), ("right", 0.2, state[6:])):
        wanted = units[arm].rad_to(Units.LEROBOT, np.full(J, angle))
        np.testing.assert_allclose(part, wanted, rtol=1e-5)


def test_a_policy_of_one_arm_is_refused_by_two_and_told_whose_joints_there_are() -> None:
    rig = load_rig(CONFIG / "rig.two_arms.yaml")
    wrong, _ = differences(policy({"observation.state": STATE}), rig)
    assert wrong[0].startswith(
        "action: 6 values, the arms left and right have 12 joints (left_shoulder_pan, "
    )
    assert "observation.state: 6 values, the arms left and right have 12 joints" in wrong
