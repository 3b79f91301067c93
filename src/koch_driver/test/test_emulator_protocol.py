# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The emulator seen by dynamixel-sdk, a master that is not ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dynamixel_sdk as dxl
import pytest

from koch_driver.bus.packet import ErrorCode, Instruction, build

if TYPE_CHECKING:
    from collections.abc import Iterator

    from koch_driver.emulator import EmulatedChain

OK = dxl.COMM_SUCCESS


@pytest.fixture
def port(chain: EmulatedChain) -> Iterator[dxl.PortHandler]:
    """The SDK's port on the emulated follower."""
    handler = dxl.PortHandler(chain.path)
    handler.openPort()
    yield handler
    handler.closePort()


@pytest.fixture
def sdk() -> dxl.Protocol2PacketHandler:
    """The SDK's packet handler."""
    return dxl.PacketHandler(2.0)


def test_ping_and_broadcast_ping(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    assert sdk.ping(port, 2) == (1060, OK, 0)
    found, result = sdk.broadcastPing(port)
    assert result == OK
    assert {i: row[0] for i, row in found.items()} == {
        1: 1060, 2: 1060, 3: 1200, 4: 1200, 5: 1200, 6: 1200
    }  # fmt: skip


def test_read_and_write(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    assert sdk.write2ByteTxRx(port, 3, 84, 1500) == (OK, 0)
    assert sdk.read2ByteTxRx(port, 3, 84) == (1500, OK, 0)
    assert sdk.ping(port, 77)[1] == dxl.COMM_RX_TIMEOUT


def test_reg_write_waits_for_action(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    assert sdk.regWriteTxRx(port, 3, 65, 1, [1]) == (OK, 0)
    assert sdk.read1ByteTxRx(port, 3, 65)[0] == 0
    assert sdk.read1ByteTxRx(port, 3, 69)[0] == 1
    sdk.action(port, 0xFE)
    assert sdk.read1ByteTxRx(port, 3, 65)[0] == 1
    assert sdk.read1ByteTxRx(port, 3, 69)[0] == 0


@pytest.mark.parametrize(
    ("address", "data", "error"),
    [
        (132, [0, 0, 0, 0], ErrorCode.ACCESS),  # read-only
        (64, [2], ErrorCode.DATA_RANGE),
        (116, [1, 2], ErrorCode.DATA_LENGTH),  # half a register
        (102, [0xDC, 0x05], ErrorCode.DATA_LIMIT),  # goal current above Current_Limit
        (5000, [1], ErrorCode.ACCESS),
    ],
)
def test_refusals(
    port: dxl.PortHandler,
    sdk: dxl.PacketHandler,
    chain: EmulatedChain,
    address: int,
    data: list[int],
    error: int,
) -> None:
    chain.servo(3).set("Current_Limit", 1000)
    assert sdk.writeTxRx(port, 3, address, len(data), data) == (OK, error)


def test_unknown_instruction_and_bad_crc(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    for packet, error in (
        (build(3, 0x77), ErrorCode.INSTRUCTION),
        (build(3, Instruction.PING)[:-1] + b"\x00", ErrorCode.CRC),
    ):
        port.clearPort()
        port.writePort(packet)
        port.setPacketTimeout(11)
        answer, result = sdk.rxPacket(port, False)
        assert (result, answer[8]) == (OK, error)


@pytest.mark.parametrize("fast", [True, False])
def test_group_reads(
    port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain, fast: bool
) -> None:
    sync = dxl.GroupSyncRead(port, sdk, 126, 10)
    bulk = dxl.GroupBulkRead(port, sdk)
    for k in range(1, 7):
        sync.addParam(k)
        # SDK 4.1.0 looks ids up among addresses and lengths too: keep those above 6
        bulk.addParam(k, 126, 21 if k % 2 else 20)
    assert (sync.fastSyncRead() if fast else sync.txRxPacket()) == OK
    positions = chain.positions_ticks()
    for k in range(1, 7):
        assert sync.getData(k, 132, 4) == positions[k - 1]
    assert (bulk.fastBulkRead() if fast else bulk.txRxPacket()) == OK
    assert bulk.getData(1, 144, 2) == 120
    assert bulk.getData(4, 144, 2) == 50
    assert bulk.getData(5, 146, 1) == 28


def test_group_writes(port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain) -> None:
    sync = dxl.GroupSyncWrite(port, sdk, 116, 4)
    bulk = dxl.GroupBulkWrite(port, sdk)
    for k in range(1, 7):
        sync.addParam(k, (1000 + k).to_bytes(4, "little"))
    bulk.addParam(1, 65, 1, [1])
    bulk.addParam(6, 104, 4, [5, 0, 0, 0])
    sync.txPacket()
    bulk.txPacket()
    assert sdk.read4ByteTxRx(port, 6, 116)[0] == 1006
    assert chain.servo(1).get("LED") == 1
    assert chain.servo(6).get("Goal_Velocity") == 5


def test_status_return_level(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    sdk.write1ByteTxRx(port, 3, 68, 1)
    assert sdk.write1ByteTxRx(port, 3, 65, 1)[0] == dxl.COMM_RX_TIMEOUT
    assert sdk.read1ByteTxRx(port, 3, 65) == (1, OK, 0)
    sdk.write1ByteTxRx(port, 3, 68, 0)
    assert sdk.read1ByteTxRx(port, 3, 65)[1] == dxl.COMM_RX_TIMEOUT
    assert sdk.ping(port, 3)[1] == OK


def test_alert_bit_and_reboot(
    port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain
) -> None:
    sdk.write1ByteTxRx(port, 4, 64, 1)
    chain.faults.trip(4, "overload")
    assert sdk.read1ByteTxRx(port, 4, 70) == (32, OK, 0x80)
    assert sdk.read1ByteTxRx(port, 4, 64)[0] == 0
    assert sdk.reboot(port, 4)[0] == OK
    assert sdk.read1ByteTxRx(port, 4, 70) == (0, OK, 0)


def test_factory_reset_keeps_what_it_is_told_to(
    port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain
) -> None:
    assert sdk.factoryReset(port, 4, 0x02)[0] == OK
    assert (chain.servo(4).get("ID"), chain.servo(4).get("Baud_Rate")) == (4, 3)
    assert chain.servo(4).get("Homing_Offset") == 0
    sdk.factoryReset(port, 4, 0xFF)
    assert sdk.ping(port, 4)[1] == dxl.COMM_RX_TIMEOUT  # id 1 at 57600 baud now


def test_clear_turns(port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain) -> None:
    servo = chain.servo(5)
    with chain._lock:
        servo.power_up(servo.shaft_rad)
        servo.measure(0.0, servo.shaft_rad + 4 * 3.14159265, 0.0, 0.0)
        far = servo.get("Present_Position")
        assert servo.clear_turns() == 0
        servo.measure(0.0, servo.shaft_rad, 0.0, 0.0)
        assert servo.get("Present_Position") == far - 8192
    assert sdk.clearMultiTurn(port, 5)[0] == OK


def test_indirect_addresses(port: dxl.PortHandler, sdk: dxl.PacketHandler) -> None:
    for k in range(4):  # Indirect_Data_1..4 show Goal_Velocity
        sdk.write2ByteTxRx(port, 6, 168 + 2 * k, 104 + k)
    assert sdk.write4ByteTxRx(port, 6, 208, 0x10) == (OK, 0)
    assert sdk.read4ByteTxRx(port, 6, 104)[0] == 0x10
    assert sdk.read4ByteTxRx(port, 6, 208)[0] == 0x10


def test_another_baud_rate_is_noise(
    port: dxl.PortHandler, sdk: dxl.PacketHandler, chain: EmulatedChain
) -> None:
    port.setBaudRate(115200)
    assert sdk.ping(port, 1)[1] == dxl.COMM_RX_TIMEOUT
    port.setBaudRate(1_000_000)
    assert sdk.ping(port, 1)[1] == OK
