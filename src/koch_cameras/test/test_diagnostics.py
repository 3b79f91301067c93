# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a person reads on /diagnostics."""

from __future__ import annotations

import pytest

from koch_cameras.capture_loop import LinkState
from koch_cameras.source import Mode
from koch_cameras.watch import Expectation, StreamWatch

pytestmark = pytest.mark.ros

OPEN = LinkState(connected=True, mode=Mode(64, 48, 30.0, "MJPG"), connections=1)


def status(link: LinkState, **extras: object) -> object:
    from koch_cameras.nodes.diagnostics import CameraFacts, camera_status

    report = StreamWatch(Expectation(fps=30.0)).report(0)
    return camera_status("/cameras/above: stream", "usb-1", link, report, CameraFacts(**extras))


def test_reason_of_the_loss_comes_first():
    message = status(LinkState(error="camera x: device is busy"))
    assert message.level == b"\x02"
    assert message.message.startswith("camera x: device is busy; no image yet")
    assert message.hardware_id == "usb-1"


def test_sharers_of_the_usb_controller_are_named_when_something_is_wrong():
    message = status(OPEN, sharers="USB controller 0000:00:14.0 bus 1 with Cam B (/dev/video2)")
    assert "shares USB controller 0000:00:14.0 bus 1 with Cam B" in message.message


def test_foreign_clock_and_counts_are_told():
    message = status(OPEN, foreign_clock=True, refused=3, damaged=2)
    values = {item.key: item.value for item in message.values}
    assert "arrival time used" in message.message
    assert (values["refused as old"], values["damaged"]) == ("3", "2")
    assert values["mode"] == "MJPG 64x48 30 fps"
