# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Header stamps and the gate."""

from __future__ import annotations

import pytest

from koch_cameras.frame import CameraFrame, Encoding, TimeBase
from koch_cameras.stamp import FrameGate, Stamp, ros_stamp

S = 1_000_000_000
NOW = 1_700_000_000 * S


def frame(time_ns: int, base: TimeBase = TimeBase.MONOTONIC, data: bytes = b"a") -> CameraFrame:
    return CameraFrame(0, time_ns, base, Encoding.JPEG, 1, 1, data)


def stamp(item: CameraFrame, *, now_ns: int = NOW, sim_time: bool = False) -> Stamp:
    return ros_stamp(
        item, arrival_ns=50 * S, monotonic_ns=51 * S, ros_now_ns=now_ns, sim_time=sim_time
    )


def test_monotonic_time_is_carried_over_by_its_age():
    assert stamp(frame(48 * S + 5)).ros_ns == NOW - 3 * S + 5


def test_server_time_is_passed_through_to_the_nanosecond():
    item = frame(NOW - 123_456_789, TimeBase.SERVER)
    assert stamp(item) == Stamp(NOW - 123_456_789)


def test_simulation_time_is_passed_through_whatever_it_is():
    assert stamp(frame(7 * S, TimeBase.SERVER), now_ns=8 * S, sim_time=True) == Stamp(7 * S)
    assert stamp(frame(7 * S, TimeBase.SERVER), now_ns=NOW, sim_time=True) == Stamp(7 * S)


@pytest.mark.parametrize("server_s", [12, 1_700_000_000 + 90_000])
def test_server_with_another_epoch_gets_the_arrival_time(server_s):
    result = stamp(frame(server_s * S, TimeBase.SERVER))
    assert result == Stamp(NOW - S, foreign_clock=True)


def test_image_minutes_old_stays_old():
    item = frame(NOW - 600 * S, TimeBase.SERVER)
    assert stamp(item) == Stamp(NOW - 600 * S)


def test_gate_refuses_what_is_not_newer():
    gate = FrameGate()
    results = [gate.passes(frame(0), Stamp(NOW + offset), NOW, 1) for offset in (0, 1, 1, -5, 2)]
    assert results == [True, True, False, False, True]
    assert gate.refused == 2


def test_gate_refuses_the_held_image_of_a_new_connection_once():
    gate = FrameGate()
    passed = [
        gate.passes(frame(0, data=data), Stamp(NOW + index), NOW, connection)
        for index, (data, connection) in enumerate([(b"a", 1), (b"a", 1), (b"a", 2), (b"a", 2)])
    ]
    assert passed == [True, True, False, True]


def test_identical_images_with_server_time_pass_after_a_reconnect():
    gate = FrameGate()
    still = frame(0, TimeBase.SERVER)
    assert gate.passes(still, Stamp(NOW), NOW, 1)
    assert gate.passes(still, Stamp(NOW + 1), NOW, 2)


def test_gate_opens_again_when_the_clock_restarts():
    gate = FrameGate()
    assert gate.passes(frame(0), Stamp(100 * S), 100 * S, 1)
    assert not gate.passes(frame(0), Stamp(99 * S), int(99.5 * S), 1)
    assert gate.passes(frame(0), Stamp(1 * S), 1 * S, 1)
