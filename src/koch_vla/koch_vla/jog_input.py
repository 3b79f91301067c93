# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Keys and gamepads as speeds of a follower's hand; each with a deadman. No ROS."""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from koch_core.closing import Opening
from koch_core.keys import read_available
from koch_driver.arm.jog import JogLimits, JogSpeed
from koch_vla.errors import InputDeviceError

#: A key counts for so long after the terminal's last word of it [s].
DEADMAN_S = 0.3
FASTEST, SLOWEST, FACTOR = 1.0, 0.125, 2.0**0.5

#: What a key or an axis moves: x, y, z of the TCP, pitch and roll of the hand, the gripper.
AXES = ("x", "y", "z", "pitch", "roll", "gripper")
KEYS: Mapping[str, tuple[str, float]] = {
    "w": ("x", 1.0), "s": ("x", -1.0), "a": ("y", 1.0), "d": ("y", -1.0),
    "r": ("z", 1.0), "f": ("z", -1.0), "i": ("pitch", 1.0), "k": ("pitch", -1.0),
    "j": ("roll", -1.0), "l": ("roll", 1.0), "o": ("gripper", 1.0), "c": ("gripper", -1.0),
}  # fmt: skip
CLOSE_KEY, OPEN_KEY = "e", "x"
KEY_HELP = (
    "keys: w s forward and back, a d left and right, r f up and down, i k pitch, j l roll, "
    "o c open and close, + - faster and slower, space rests, e closes and x opens the enable "
    "switch; "
    f"{DEADMAN_S:g} s without a key: the hand rests"
)
PAD_HELP = (
    "gamepad: hold a shoulder button (L1 or R1) to move; left stick forward and sideways, right "
    "stick up, down and roll, hat up and down pitch, A closes, B opens"
)


def speed_of(shares: Mapping[str, float], scale: float = 1.0) -> JogSpeed:
    """The speeds that shares of -1 to 1 of the axes mean."""
    most = JogLimits()
    x, y, z, pitch, roll, gripper = (scale * shares.get(axis, 0.0) for axis in AXES)
    return JogSpeed(
        linear=(x * most.linear, y * most.linear, z * most.linear),
        pitch=pitch * most.angular,
        roll=roll * most.angular,
        gripper=gripper * most.gripper,
    )


class HeldKeys:
    """The keys that are held, as far as a terminal tells: it repeats the last one.

    Args:
        clock: Seconds, never going back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._held: dict[str, tuple[float, float]] = {}  # axis: direction, until when
        self.scale = 0.5

    def take(self, names: Iterable[str]) -> None:
        """Take in the keys that were pressed or repeated."""
        for name in names:
            if name in KEYS:
                axis, direction = KEYS[name]
                self._held[axis] = direction, self._clock() + DEADMAN_S
            elif name in "+=":
                self.scale = min(FASTEST, self.scale * FACTOR)
            elif name in "-_":
                self.scale = max(SLOWEST, self.scale / FACTOR)
            elif name == " ":
                self._held.clear()

    def wanted(self) -> JogSpeed:
        """What they ask for now."""
        now_s = self._clock()
        shares = {axis: way for axis, (way, until_s) in self._held.items() if now_s <= until_s}
        return speed_of(shares, self.scale)


# -- gamepads -------------------------------------------------------------------------------------

# Linux: struct input_event of include/uapi/linux/input.h, codes of input-event-codes.h, which
# axis is which in Documentation/input/gamepad.rst.
_EVENT = struct.Struct("llHHi")
_ABSINFO = struct.Struct("6i")  # value, minimum, maximum, fuzz, flat, resolution
_EVIOCGABS = 0x80184540
_KEY, _ABS = 1, 3
_STICKS = {1: ("x", -1.0), 0: ("y", -1.0), 4: ("z", -1.0), 3: ("roll", 1.0), 17: ("pitch", -1.0)}
_CLOSE, _OPEN, _DEADMEN = 304, 305, (310, 311)
_DEAD_ZONE = 0.12
_FOLDER = Path("/dev/input/by-id")


class GamepadState:
    """What a gamepad's events say.

    Args:
        ranges: Least and greatest value of each axis that it has.
    """

    def __init__(self, ranges: Mapping[int, tuple[int, int]]) -> None:
        self._ranges = ranges
        self._values: dict[tuple[int, int], int] = {}
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take in bytes of events; one that is not whole waits for its rest."""
        data = self._rest + data
        whole = len(data) - len(data) % _EVENT.size
        self._rest = data[whole:]
        for _, _, kind, code, value in _EVENT.iter_unpack(data[:whole]):
            self._values[kind, code] = value

    def wanted(self) -> JogSpeed:
        """What it asks for now: nothing without a shoulder button."""
        if not any(self._values.get((_KEY, button)) for button in _DEADMEN):
            return JogSpeed()
        shares = {axis: way * self._share(code) for code, (axis, way) in _STICKS.items()}
        shares["gripper"] = float(self._is_held(_OPEN)) - float(self._is_held(_CLOSE))
        return speed_of(shares)

    def _is_held(self, button: int) -> bool:
        return bool(self._values.get((_KEY, button)))

    def _share(self, code: int) -> float:
        """An axis from -1 to 1, 0 within its dead zone."""
        if code not in self._ranges or (_ABS, code) not in self._values:
            return 0.0
        low, high = self._ranges[code]
        share = 2.0 * (self._values[_ABS, code] - low) / (high - low) - 1.0
        beyond = max(0.0, abs(share) - _DEAD_ZONE) / (1.0 - _DEAD_ZONE)
        return min(1.0, beyond) if share > 0.0 else -min(1.0, beyond)


class Gamepad(Opening):
    """A gamepad of this computer.

    Args:
        device: Its event device; "auto" takes the first one.

    Raises:
        InputDeviceError: There is none, or it cannot be read.
    """

    def __init__(self, device: str) -> None:
        self._path = Path(device) if device != "auto" else _first_gamepad()
        self._file = -1
        self._state = GamepadState({})

    def open(self) -> None:
        """Open it and ask for the ranges of its axes."""
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK)
            self._state = GamepadState(
                {code: found for code in _STICKS if (found := self._range_of(code))}
            )
        except OSError as error:
            raise InputDeviceError(self._path, str(error.strerror)) from error

    def _range_of(self, code: int) -> tuple[int, int] | None:
        found = fcntl.ioctl(self._file, _EVIOCGABS + code, bytes(_ABSINFO.size))
        _, low, high, *_ = _ABSINFO.unpack(found)
        return (low, high) if low < high else None

    def close(self) -> None:
        """Close it."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def wanted(self) -> JogSpeed:
        """What it asks for now.

        Raises:
            InputDeviceError: It is gone.
        """
        try:
            self._state.feed(read_available(self._file))
        except OSError as error:
            raise InputDeviceError(self._path, str(error.strerror)) from error
        return self._state.wanted()


def _first_gamepad() -> Path:
    found = sorted(_FOLDER.glob("*-event-joystick")) if _FOLDER.is_dir() else []
    if not found:
        raise InputDeviceError(_FOLDER, "holds no *-event-joystick")
    return found[0]
