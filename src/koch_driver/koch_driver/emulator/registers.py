# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The memory of an emulated servo: EEPROM, RAM and indirect addresses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from koch_driver.bus.control_table import Area, Register, ServoModel

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class RegisterMemory:
    """Bytes of one control table, by name and by address. Knows no rule but the layout."""

    def __init__(self, model: ServoModel) -> None:
        self.model = model
        self.data = bytearray(model.size)
        self._at: dict[int, Register] = {}
        self._indirect: dict[int, int] = {}  # data address -> address register's address
        for register in model.table.values():
            self._at[register.address] = register
            if register.name.startswith("Indirect_Data_"):
                number = register.name.rsplit("_", 1)[1]
                pointer = model.table[f"Indirect_Address_{number}"]
                self._indirect[register.address] = pointer.address
        self.load_defaults(Area.EEPROM)
        self.load_defaults(Area.RAM)

    def load_defaults(self, area: Area, keep: Mapping[str, int] | None = None) -> None:
        """Set an area to the manual's initial values, except those in `keep`."""
        for register in self.model.table.values():
            if register.area is area:
                value = (keep or {}).get(register.name, register.default)
                self.put(register, 0 if value is None else value)

    def get(self, name: str) -> int:
        """Value of a register."""
        return self.value(self.model.table[name])

    def set(self, name: str, value: int) -> None:
        """Set a register, no questions asked."""
        self.put(self.model.table[name], value)

    def has(self, name: str) -> bool:
        """Whether the model has the register."""
        return name in self.model.table

    def value(self, register: Register) -> int:
        """Value of a register."""
        end = register.address + register.length
        return int.from_bytes(self.data[register.address : end], "little", signed=register.signed)

    def put(self, register: Register, value: int) -> None:
        """Set a register, no questions asked."""
        end = register.address + register.length
        self.data[register.address : end] = register.encode(value)

    def read(self, address: int, length: int) -> bytes | None:
        """Bytes from an address, indirect data resolved; None outside the table."""
        end = address + length
        if length <= 0 or end > len(self.data):
            return None
        if end <= 168:  # below all indirect registers
            return bytes(self.data[address:end])
        return bytes(self.data[self._target(a)] for a in range(address, end))

    def runs(self, address: int, data: bytes) -> list[tuple[int, bytes]]:
        """Split a write into runs of consecutive real addresses."""
        if address + len(data) <= 168:
            return [(address, data)]
        runs: list[tuple[int, bytes]] = []
        for offset, byte in enumerate(data):
            target = self._target(address + offset)
            if runs and runs[-1][0] + len(runs[-1][1]) == target:
                runs[-1] = (runs[-1][0], runs[-1][1] + bytes((byte,)))
            else:
                runs.append((target, bytes((byte,))))
        return runs

    def registers(self, address: int, data: bytes) -> Iterator[tuple[Register | None, bytes]]:
        """Registers that a run of bytes covers; None with the rest where it does not fit one.

        Bytes between registers belong to no register and are passed over.
        """
        at = 0
        while at < len(data):
            register = self._at.get(address + at)
            if register is None:
                if self._inside(address + at):
                    yield None, data[at:]
                    return
                at += 1
                continue
            chunk = data[at : at + register.length]
            if len(chunk) < register.length:
                yield None, chunk
                return
            yield register, chunk
            at += register.length

    def _inside(self, address: int) -> bool:
        """Whether an address is in the middle of a register."""
        return any(
            a < address < a + self._at[a].length
            for a in range(max(0, address - 3), address)
            if a in self._at
        )

    def _target(self, address: int) -> int:
        pointer = self._indirect.get(address)
        if pointer is None:
            return address
        target = self.data[pointer] | self.data[pointer + 1] << 8
        return target if target < len(self.data) else address
