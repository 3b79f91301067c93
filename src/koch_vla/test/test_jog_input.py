# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys and gamepads as speeds of the hand: which way, how fast, and that a deadman lets go."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from koch_core.options import OptionError
from koch_driver.arm.jog import JogLimits, JogSpeed
from koch_vla.cli import main
from koch_vla.errors import InputDeviceError
from koch_vla.jog_input import DEADMAN_S, KEYS, Gamepad, GamepadState, HeldKeys
from koch_vla.teleop import JogOptions

MOST = JogLimits()
KEY, ABS = 1, 3
LEFT_Y, HAT_Y, RIGHT_SHOULDER, A, B = 1, 17, 311, 304, 305


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_a_key_moves_the_hand_until_it_has_not_been_heard_of_for_a_while() -> None:
    clock = Clock()
    keys = HeldKeys(clock)
    assert keys.wanted() == JogSpeed()
    keys.take(["w"])
    half = keys.scale * MOST.linear
    assert keys.wanted().linear == (half, 0.0, 0.0)
    clock.now_s += DEADMAN_S - 0.01
    keys.take(["w"])
    clock.now_s += DEADMAN_S - 0.01
    assert keys.wanted().linear == (half, 0.0, 0.0)
    clock.now_s += 0.02
    assert keys.wanted() == JogSpeed()


def test_two_keys_move_together_and_the_newest_of_a_pair_counts() -> None:
    keys = HeldKeys(Clock())
    keys.take(["w", "o", "x"])
    assert keys.wanted().linear[0] > 0.0
    assert keys.wanted().gripper > 0.0
    keys.take(["s"])
    assert keys.wanted().linear[0] < 0.0
    keys.take([" "])
    assert keys.wanted() == JogSpeed()


def test_faster_and_slower_have_their_ends() -> None:
    keys = HeldKeys(Clock())
    keys.take("w" + 20 * "+")
    assert keys.wanted().linear[0] == MOST.linear
    keys.take(40 * "-")
    assert 0.0 < keys.wanted().linear[0] < 0.2 * MOST.linear


def test_each_axis_has_both_ways() -> None:
    assert sorted(KEYS.values()) == sorted(
        (axis, way) for axis in ("x", "y", "z", "pitch", "roll", "gripper") for way in (-1.0, 1.0)
    )


def event(kind: int, code: int, value: int) -> bytes:
    """What Linux writes for one event."""
    return struct.pack("llHHi", 1, 2, kind, code, value)


@pytest.fixture
def pad() -> GamepadState:
    """One whose sticks go from -32768 to 32767, and whose hat from -1 to 1."""
    sticks = dict.fromkeys((0, 1, 3, 4), (-32768, 32767))
    return GamepadState({**sticks, HAT_Y: (-1, 1)})


def test_a_stick_moves_nothing_without_a_shoulder_button(pad: GamepadState) -> None:
    pad.feed(event(ABS, LEFT_Y, -32768))
    assert pad.wanted() == JogSpeed()
    pad.feed(event(KEY, RIGHT_SHOULDER, 1))
    assert pad.wanted().linear == (pytest.approx(MOST.linear), 0.0, 0.0)
    pad.feed(event(KEY, RIGHT_SHOULDER, 0))
    assert pad.wanted() == JogSpeed()


def test_a_stick_near_its_middle_is_in_the_middle(pad: GamepadState) -> None:
    pad.feed(event(KEY, RIGHT_SHOULDER, 1) + event(ABS, LEFT_Y, 2000))
    assert pad.wanted() == JogSpeed()
    pad.feed(event(ABS, LEFT_Y, 16384))
    assert -0.6 * MOST.linear < pad.wanted().linear[0] < -0.3 * MOST.linear


def test_hat_and_buttons_turn_and_grip_also_where_events_come_apart(pad: GamepadState) -> None:
    data = event(KEY, RIGHT_SHOULDER, 1) + event(ABS, HAT_Y, -1) + event(KEY, B, 1)
    for byte in data:
        pad.feed(bytes([byte]))
    assert pad.wanted().pitch == pytest.approx(MOST.angular)
    assert pad.wanted().gripper == pytest.approx(MOST.gripper)
    pad.feed(event(KEY, B, 0) + event(KEY, A, 1))
    assert pad.wanted().gripper == pytest.approx(-MOST.gripper)


def test_a_device_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputDeviceError, match=r"--gamepad .*none: No such file.*--keyboard"):
        Gamepad(str(tmp_path / "none")).open()
    (tmp_path / "file").touch()
    with pytest.raises(InputDeviceError, match="Inappropriate ioctl"):
        Gamepad(str(tmp_path / "file")).open()


def test_what_does_not_go_together_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(OptionError, match="--gamepad beside it"):
        JogOptions(keyboard=True, gamepad="auto")
    with pytest.raises(OptionError, match=r"--arm.*--keyboard or --gamepad beside it"):
        JogOptions(arm="follower")
    assert main(["teleop", "--keyboard", "--sim"]) == 2
    assert "a terminal as standard input" in capsys.readouterr().err
