# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""CRC, stuffing and the parser, against dynamixel-sdk and against noise."""

from __future__ import annotations

import os

import pytest
from dynamixel_sdk import Protocol2PacketHandler
from hypothesis import given, settings
from hypothesis import strategies as st

from koch_driver.bus.packet import (
    HEADER,
    Instruction,
    Packet,
    PacketParser,
    build,
    build_status,
    crc16,
)

SDK = Protocol2PacketHandler()
TRICKY = b"\xff\xff\xfd"


@pytest.mark.parametrize("length", [0, 1, 2, 3, 10, 125, 126, 600])
def test_crc_is_the_sdks(length: int) -> None:
    data = os.urandom(length)
    assert crc16(data) == SDK.updateCRC(0, data, length)


@given(st.binary(max_size=200), st.integers(0, 200))
def test_crc_may_be_continued(data: bytes, cut: int) -> None:
    assert crc16(data[cut:], crc16(data[:cut])) == crc16(data)


def test_manual_ping_example() -> None:
    # e-Manual, Protocol 2.0, "Ping": ID 1
    assert build(1, Instruction.PING) == bytes.fromhex("FFFFFD0001030001194E")


@given(st.lists(st.sampled_from([b"\xff", b"\xfd", b"\x00", b"\x01", TRICKY]), max_size=40))
def test_stuffed_packets_come_back(pieces: list[bytes]) -> None:
    body = b"".join(pieces)
    packet = build(7, Instruction.WRITE, body)
    assert HEADER not in packet[4:]
    assert PacketParser().feed(packet) == [Packet(7, Instruction.WRITE, body)]


def test_stuffing_is_the_sdks() -> None:
    body = b"\x74\x00" + TRICKY + b"\x01" + TRICKY
    ours = build(3, Instruction.WRITE, body)
    theirs = [*HEADER, 3, len(body) + 3, 0, Instruction.WRITE, *body, 0, 0]
    theirs = SDK.addStuffing(theirs)  # SDK 4.1.0 itself forgets to use what this returns
    total = theirs[5] + 7
    crc = SDK.updateCRC(0, theirs, total - 2)
    theirs[total - 2 : total] = [crc & 0xFF, crc >> 8]
    assert ours == bytes(theirs[:total])


@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=5),
    st.lists(st.binary(max_size=8).filter(lambda b: b"\xff" not in b), min_size=6, max_size=6),
    st.integers(1, 9),
)
@settings(max_examples=60)
def test_packets_survive_noise_and_any_chunking(
    bodies: list[bytes], noise: list[bytes], chunk: int
) -> None:
    stream = b""
    for body, dirt in zip(bodies, noise, strict=False):
        stream += dirt + build_status(4, 0, body)
    parser = PacketParser()
    got = [
        packet
        for k in range(0, len(stream), chunk)
        for packet in parser.feed(stream[k : k + chunk])
    ]
    assert [p.parameters[1:] for p in got] == bodies


def test_bad_crc_is_counted_and_the_next_packet_found() -> None:
    good = build_status(1, 0, b"abc")
    bad = bytearray(good)
    bad[9] ^= 1
    parser = PacketParser(keep_bad_ids=True)
    assert len(parser.feed(bytes(bad) + good)) == 1
    assert parser.crc_errors == 1
    assert parser.take_bad_ids() == [1]
    assert parser.take_bad_ids() == []


def test_truncated_packet_gives_way_to_the_next() -> None:
    good = build_status(1, 0, bytes(10))
    parser = PacketParser()
    assert len(parser.feed(good[:9] + good)) == 1
    assert parser.bad_packets + parser.crc_errors == 1
