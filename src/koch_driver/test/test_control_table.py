# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The control tables as data."""

from __future__ import annotations

import pytest

from koch_driver.bus.control_table import (
    MODELS,
    MODELS_BY_NUMBER,
    XL330_M288,
    XL430_W250,
    Area,
    OperatingMode,
    model_name,
)
from koch_driver.errors import RegisterError

# LeRobot 0.4.4, motors/dynamixel/tables.py: what its Koch drivers use, the same in all models
LEROBOT = {
    "Drive_Mode": (10, 1), "Operating_Mode": (11, 1), "Homing_Offset": (20, 4),
    "Max_Position_Limit": (48, 4), "Min_Position_Limit": (52, 4), "Torque_Enable": (64, 1),
    "Position_D_Gain": (80, 2), "Position_I_Gain": (82, 2), "Position_P_Gain": (84, 2),
    "Goal_Position": (116, 4), "Present_Velocity": (128, 4), "Present_Position": (132, 4),
    "Present_Temperature": (146, 1), "Return_Delay_Time": (9, 1), "Baud_Rate": (8, 1),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS.values(), ids=str)
def test_addresses_are_lerobots(model: object) -> None:
    for name, (address, length) in LEROBOT.items():
        register = model.register(name)
        assert (register.address, register.length) == (address, length), name


@pytest.mark.parametrize("model", MODELS.values(), ids=str)
def test_registers_do_not_overlap_and_defaults_are_in_range(model: object) -> None:
    taken: dict[int, str] = {}
    for register in model.table.values():
        for address in range(register.address, register.address + register.length):
            assert address not in taken, (register.name, taken.get(address))
            taken[address] = register.name
        assert (register.area is Area.EEPROM) == (register.address < 64)
        if register.default is not None:
            assert register.minimum <= register.default <= register.maximum, register.name
            assert register.decode(register.encode(register.default)) == register.default


def test_xl430_has_load_instead_of_current() -> None:
    assert "Goal_Current" not in XL430_W250.table
    assert XL430_W250.register("Present_Load").address == 126
    assert OperatingMode.CURRENT_POSITION not in XL430_W250.modes
    assert OperatingMode.CURRENT_POSITION in XL330_M288.modes


def test_models_by_number() -> None:
    assert {1060, 1190, 1200} == set(MODELS_BY_NUMBER)
    assert model_name(1060) == "xl430-w250"
    assert "350" in model_name(350)


@pytest.mark.parametrize(
    ("name", "value"), [("Present_Position", 0), ("Torque_Enable", 2), ("Goal_Position", 2**21)]
)
def test_forbidden_writes(name: str, value: int) -> None:
    with pytest.raises(RegisterError, match=name):
        XL330_M288.register(name).check(value)


def test_unknown_register_lists_the_known() -> None:
    with pytest.raises(RegisterError, match="Goal_Position"):
        XL330_M288.register("Goal_Postion")


@pytest.mark.parametrize("value", [-(2**31), -1, 0, 1, 2**31 - 1])
def test_signed_registers_round_trip(value: int) -> None:
    register = XL330_M288.register("Present_Position")
    assert register.decode(register.encode(value)) == value
