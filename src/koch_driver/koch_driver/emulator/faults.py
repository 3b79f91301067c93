# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Faults on demand: what a bad cable, a bad plug or a rude person does to the bus."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING, Protocol

from koch_driver.bus.control_table import HardwareError
from koch_driver.errors import EmulatorError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

HARDWARE_ERRORS = {e.name.lower(): e for e in HardwareError if e.name}


class FaultTarget(Protocol):
    """What faults do to the chain as a whole; see EmulatedChain for the meaning."""

    def cut_power(self) -> None: ...
    def return_power(self) -> None: ...
    def unplug(self) -> None: ...
    def replug(self) -> None: ...
    def push(self, joint: str | int, torque_nm: float) -> None: ...
    def hold(self, joint: str | int, joint_rad: float | None) -> None: ...
    def trip(self, joint: str | int, error: HardwareError) -> None: ...
    def set_temperature(self, joint: str | int, celsius: float | None) -> None: ...
    def set_voltage(self, volts: float | None) -> None: ...


class Faults:
    """Switches of one chain. Probabilities are per status packet, 0 .. 1. Thread safe."""

    def __init__(self, seed: int = 0) -> None:
        self._lock = threading.Lock()
        self._random = random.Random(seed)
        self._target: FaultTarget | None = None
        self._probability: dict[str, float] = {}
        self._delay_s = 0.0
        self._silent: frozenset[int] = frozenset()

    def attach(self, target: FaultTarget) -> None:
        """Name the chain that the faults happen to."""
        self._target = target

    def drop(self, probability: float) -> None:
        """Lose whole status packets."""
        self._set("drop", probability)

    def corrupt_crc(self, probability: float) -> None:
        """Flip one bit of a status packet."""
        self._set("corrupt_crc", probability)

    def truncate(self, probability: float) -> None:
        """Cut a status packet short."""
        self._set("truncate", probability)

    def duplicate(self, probability: float) -> None:
        """Send a status packet twice."""
        self._set("duplicate", probability)

    def noise(self, probability: float) -> None:
        """Put a few random bytes before a status packet."""
        self._set("noise", probability)

    def delay(self, probability: float, delay_s: float) -> None:
        """Send answers late."""
        self._set("delay", probability)
        self._delay_s = float(delay_s)

    def silence(self, motor_id: int, on: bool = True) -> None:
        """Make one motor deaf and dumb, or well again."""
        with self._lock:
            self._silent = self._silent | {motor_id} if on else self._silent - {motor_id}

    def power_cut(self) -> None:
        """Take the motors' power; the port stays."""
        self._chain().cut_power()

    def power_return(self) -> None:
        """Give the power back: every servo boots, torque off, turns forgotten."""
        self._chain().return_power()

    def unplug(self) -> None:
        """Pull the USB plug: the port vanishes; the motors keep their power."""
        self._chain().unplug()

    def replug(self) -> None:
        """Put the USB plug back."""
        self._chain().replug()

    def push(self, joint: str | int, torque_nm: float) -> None:
        """Push a joint with an outside torque in [N m], about the servo's shaft."""
        self._chain().push(joint, torque_nm)

    def hold(self, joint: str | int, joint_rad: float | None = None) -> None:
        """Lead a joint by hand to an angle and keep it there; None lets go."""
        self._chain().hold(joint, joint_rad)

    def trip(self, joint: str | int, error: str) -> None:
        """Raise a hardware error: overload, overheating, input_voltage, electrical_shock, encoder.

        Raises:
            EmulatorError: No such error.
        """
        if error not in HARDWARE_ERRORS:
            raise EmulatorError("hardware error", error, "one of " + ", ".join(HARDWARE_ERRORS))
        self._chain().trip(joint, HARDWARE_ERRORS[error])

    def temperature(self, joint: str | int, celsius: float | None) -> None:
        """Force a servo's temperature; None lets it follow its load again."""
        self._chain().set_temperature(joint, celsius)

    def voltage(self, volts: float | None) -> None:
        """Set every servo's supply; None is each model's own."""
        self._chain().set_voltage(volts)

    def clear(self) -> None:
        """Wire faults and silent motors off. Power, plug and loads stay as they are."""
        with self._lock:
            self._probability = {}
            self._silent = frozenset()

    # -- the chain's side ---------------------------------------------------------------------

    def is_silent(self, motor_id: int) -> bool:
        """Whether a motor is switched dumb."""
        return motor_id in self._silent

    def spoil(self, packets: Sequence[bytes]) -> list[tuple[float, bytes]]:
        """What really arrives of some packets: (delay in [s], bytes)."""
        if not self._probability:
            return [(0.0, p) for p in packets]
        with self._lock:
            return [part for packet in packets for part in self._spoil_one(packet)]

    def _spoil_one(self, packet: bytes) -> list[tuple[float, bytes]]:
        rng = self._random
        if self._happens("drop"):
            return []
        if self._happens("corrupt_crc"):
            bit = rng.randrange(8 * 4, 8 * len(packet))
            spoilt = bytearray(packet)
            spoilt[bit // 8] ^= 1 << bit % 8
            packet = bytes(spoilt)
        if self._happens("truncate"):
            packet = packet[: rng.randrange(1, len(packet))]
        if self._happens("noise"):
            packet = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + packet
        if self._happens("duplicate"):
            packet = packet + packet
        return [(self._delay_s if self._happens("delay") else 0.0, packet)]

    def _happens(self, name: str) -> bool:
        probability = self._probability.get(name, 0.0)
        return probability > 0.0 and self._random.random() < probability

    def _set(self, name: str, probability: float) -> None:
        if not 0.0 <= probability <= 1.0:
            raise EmulatorError(f"probability of {name}", probability, "0 .. 1")
        with self._lock:
            changed = {**self._probability, name: float(probability)}
            self._probability = {k: v for k, v in changed.items() if v > 0.0}

    def _chain(self) -> FaultTarget:
        if self._target is None:
            raise EmulatorError("faults", "no chain", "an EmulatedChain made with these faults")
        return self._target


def fault_actions(faults: Faults) -> dict[str, Callable[..., None]]:
    """Faults that a script may name."""
    names = (
        "drop corrupt_crc truncate duplicate noise delay silence power_cut power_return unplug "
        "replug push hold trip temperature voltage clear"
    )
    return {name: getattr(faults, name) for name in names.split()}
