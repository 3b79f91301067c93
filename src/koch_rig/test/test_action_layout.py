# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which part of an action is whose, for one arm, for two, and beside other numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from koch_core.errors import ShapeError
from koch_rig.action_layout import ActionLayout
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig
from koch_rig.rig import ArmChoiceError
from koch_rig.stream import StreamKind
from koch_rig.units import Units, joint_units

J = len(KOCH_V1_1.joints)

CONFIG = Path(__file__).resolve().parents[3] / "config"
TWO = load_rig(CONFIG / "rig.two_arms.yaml")


def test_one_arm_has_plain_names_and_two_have_theirs_before_them() -> None:
    one = ActionLayout.of_rig(load_rig(CONFIG / "rig.yaml"))
    assert one.names == KOCH_V1_1.joints
    two = ActionLayout.of_rig(TWO)
    assert two.arms == ("left", "right")
    assert two.names[:2] == ("left_shoulder_pan", "left_shoulder_lift")
    assert two.names[-1] == "right_gripper"
    assert (one.grippers, two.grippers) == ((5,), (5, 11))


def test_each_arm_gets_its_columns_and_join_puts_them_back() -> None:
    layout = ActionLayout.of_rig(TWO)
    chunk = np.arange(36.0).reshape(3, 12)
    parts = layout.split(chunk)
    np.testing.assert_array_equal(parts["left"][0], np.arange(6.0))
    np.testing.assert_array_equal(parts["right"][2], np.arange(30.0, 36.0))
    np.testing.assert_array_equal(layout.join(parts), chunk)


def test_units_are_each_arms_own_and_other_numbers_stay() -> None:
    units = joint_units(TWO, ["left", "right"])
    layout = ActionLayout.of(
        [("right", KOCH_V1_1.joints), ("", ("x", "y")), ("left", KOCH_V1_1.joints)]
    )
    values = np.concatenate([np.full(J, 10.0), [7.0, 8.0], np.full(J, 20.0)])
    rad = layout.to_rad(units, Units.LEROBOT, values)
    np.testing.assert_allclose(rad[:6], units["right"].to_rad(Units.LEROBOT, np.full(J, 10.0)))
    np.testing.assert_allclose(rad[8:], units["left"].to_rad(Units.LEROBOT, np.full(J, 20.0)))
    np.testing.assert_array_equal(rad[6:8], [7.0, 8.0])
    np.testing.assert_allclose(layout.rad_to(units, Units.LEROBOT, rad), values)
    assert layout.names[6:9] == ("x", "y", "left_shoulder_pan")


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"\(\.\.\., 12\)"):
        ActionLayout.of_rig(TWO).split(np.zeros(J))


def test_actions_taken_from_leaders_move_their_followers(tmp_path: Path) -> None:
    text = (CONFIG / "rig.two_arms.yaml").read_text(encoding="utf-8")
    text = text.replace("calibration/", f"{CONFIG}/calibration/")
    commands = "[left/joint_command, right/joint_command]"
    path = tmp_path / "rig.yaml"
    leaders = "[right_leader/joint_states, left_leader/joint_states]"
    path.write_text(text.replace(commands, leaders), encoding="utf-8")
    assert ActionLayout.of_rig(load_rig(path)).arms == ("right", "left")


def test_a_rig_of_two_followers_that_says_no_action_is_refused(tmp_path: Path) -> None:
    text = (CONFIG / "rig.two_arms.yaml").read_text(encoding="utf-8")
    text = text.replace("calibration/", f"{CONFIG}/calibration/")
    path = tmp_path / "rig.yaml"
    path.write_text(text[: text.index("  action:")], encoding="utf-8")
    with pytest.raises(ArmChoiceError, match="exactly one follower"):
        ActionLayout.of_rig(load_rig(path))


@pytest.mark.parametrize(
    ("stream", "kind", "source"),
    [
        ("left/joint_states", StreamKind.JOINTS, "left"),
        ("right_leader/joint_command", StreamKind.JOINTS, "right_leader"),
        ("left/command/teleop", StreamKind.NUMBERS, "left"),
        ("lefty/joint_states", StreamKind.NUMBERS, ""),
        ("cameras/none", StreamKind.IMAGE, ""),
        ("sim/environment_state", StreamKind.NUMBERS, ""),
    ],
)
def test_what_a_stream_carries_follows_from_the_rig(
    stream: str, kind: StreamKind, source: str
) -> None:
    assert TWO.content_of(stream)[:2] == (kind, source)
