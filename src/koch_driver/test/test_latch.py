# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Stops and a released torque outlive the process that was told of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from koch_driver.arm.latch import LatchState, SafetyLatch, StopCause, latch_path


@pytest.mark.parametrize("joint", ["", "elbow_flex", "gripper"])
@pytest.mark.parametrize("cause", [StopCause.REQUEST, StopCause.HARDWARE_ERROR])
def test_a_stop_is_there_in_the_next_process(tmp_path: Path, cause: StopCause, joint: str) -> None:
    path = tmp_path / "run" / "guard.json"
    SafetyLatch(path).stop(cause, "why", joint)
    found = SafetyLatch(path).state
    assert [(s.cause, s.text, s.joint) for s in found.stops] == [(cause, "why", joint)]
    assert found.count == 1


def test_a_resume_lifts_all_stops_but_the_count_stays(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    latch = SafetyLatch(path)
    latch.stop(StopCause.REQUEST, "a")
    latch.stop(StopCause.HARDWARE_ERROR, "b", "elbow_flex")
    latch.resume()
    assert SafetyLatch(path).state == LatchState((), "", 2)


def test_a_quick_stop_and_resume_can_be_seen_afterwards() -> None:
    latch = SafetyLatch()
    before = latch.state.count
    latch.stop(StopCause.REQUEST, "a")
    latch.resume()
    assert latch.state.count == before + 1
    latch.release("a person")
    latch.hold()
    assert latch.state.count == before + 2


def test_a_released_torque_stays_released_until_it_is_given_back(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    SafetyLatch(path).release("by hand")
    second = SafetyLatch(path)
    assert second.state.released == "by hand"
    second.resume()
    assert SafetyLatch(path).state.released == "by hand"
    second.hold()
    assert SafetyLatch(path).state.released == ""


def test_the_same_stop_twice_is_kept_once_and_counted_twice() -> None:
    latch = SafetyLatch()
    latch.stop(StopCause.HARDWARE_ERROR, "has shut down", "elbow_flex")
    latch.stop(StopCause.HARDWARE_ERROR, "has shut down: overload", "elbow_flex")
    assert [s.text for s in latch.state.stops] == ["has shut down: overload"]
    assert latch.state.count == 2
    latch.explain(StopCause.HARDWARE_ERROR, "has shut down: overheating", "elbow_flex")
    assert [s.text for s in latch.state.stops] == ["has shut down: overheating"]
    assert latch.state.count == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"stops": [{"cause": 99}]}', '{"stops": []}'])
def test_a_record_that_cannot_be_read_means_stopped(tmp_path: Path, text: str) -> None:
    path = tmp_path / "guard.json"
    path.write_text(text, encoding="utf-8")
    latch = SafetyLatch(path)
    assert [s.cause for s in latch.state.stops] == [StopCause.UNKNOWN]
    assert str(path) in latch.state.stops[0].text
    latch.resume()
    assert SafetyLatch(path).state.stops == ()


def test_a_stop_counts_where_it_cannot_be_written(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("", encoding="utf-8")
    latch = SafetyLatch(blocked / "guard.json")
    latch.stop(StopCause.REQUEST, "why")
    assert latch.state.stops
    assert str(blocked) in latch.unsaved


def test_the_file_belongs_to_the_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOCH_RUN_DIR", str(tmp_path))
    one = latch_path("/dev/serial/by-id/usb-ROBOTIS_OpenRB-150_1234-if00")
    assert one == latch_path("/dev/serial/by-id/usb-ROBOTIS_OpenRB-150_1234-if00")
    assert one.parent == tmp_path
    assert one != latch_path("/dev/serial/by-id/usb-ROBOTIS_OpenRB-150_1235-if00")
    monkeypatch.delenv("KOCH_RUN_DIR")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/somewhere/else")
    assert "/somewhere" not in str(latch_path("/dev/ttyACM0"))
    assert str(os.getuid()) in str(latch_path("/dev/ttyACM0"))
