# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Latest wins, reconnects, and never an old image again."""

from __future__ import annotations

import time

import pytest

from koch_cameras.capture_loop import Backoff, CaptureLoop
from koch_cameras.errors import ModeNotOfferedError
from koch_cameras.mjpeg_http import MjpegHttpSource
from koch_cameras.open_source import open_source
from koch_cameras.source import Mode, SourceConfig
from koch_cameras.stamp import FrameGate, ros_stamp
from koch_cameras.v4l2 import V4l2Source

QUICK = Backoff(first_s=0.02, longest_s=0.1)


def collect(loop: CaptureLoop, count: int, timeout_s: float = 3.0) -> list:
    """Take images until there are enough or time is up."""
    found, end = [], time.monotonic() + timeout_s
    while len(found) < count and time.monotonic() < end:
        delivery = loop.take(0.05)
        if delivery is not None:
            found.append(delivery)
    return found


def test_backoff_doubles_up_to_its_limit():
    backoff = Backoff(first_s=0.25, longest_s=4.0)
    assert [backoff.wait_s(n) for n in (1, 2, 3, 5, 6, 1000)] == [0.25, 0.5, 1.0, 4.0, 4.0, 4.0]


def test_latest_wins_and_the_rest_is_counted(mjpeg_server):
    server = mjpeg_server(interval_s=0.005)
    loop = CaptureLoop(lambda: MjpegHttpSource(SourceConfig(server.url)))
    loop.start()
    collect(loop, 1)
    time.sleep(0.3)
    newest = collect(loop, 1)[0]
    age_s = (time.monotonic_ns() - newest.arrival_ns) / 1e9
    loop.close()
    assert newest.frame.sequence > 10
    assert age_s < 0.2
    assert loop.state().overwritten >= 10


def test_server_that_stalls_and_restarts_is_found_again(mjpeg_server):
    server = mjpeg_server(interval_s=0.01)
    states = []
    loop = CaptureLoop(
        lambda: open_source(SourceConfig(server.url, 64, 48, timeout_s=0.3)),
        backoff=QUICK,
        on_change=states.append,
    )
    loop.start()
    before = collect(loop, 3)
    server.stalled.set()
    time.sleep(0.6)
    during = collect(loop, 100, 0.2)
    server.stop()
    time.sleep(0.3)
    assert loop.take(0.0) is None
    assert not loop.state().connected
    server.stalled.clear()
    server.start()
    after = collect(loop, 3)
    loop.close()
    assert len(before) == len(after) == 3
    assert len(during) <= 1  # the image that was in the slot when the stall began
    assert before[-1].connection < after[0].connection
    assert min(d.frame.time_ns for d in after) > max(d.frame.time_ns for d in before)
    assert any("no image for 0.3 s" in state.error for state in states)


def test_unplug_and_replug(fake_camera, jpeg):
    camera = fake_camera()
    config = SourceConfig(3, 64, 48, 30)
    loop = CaptureLoop(lambda: V4l2Source(config, camera), backoff=QUICK)
    camera.frames.append({"data": jpeg(1), "time_ns": 10**9, "sequence": 5})
    camera.wait = lambda fd, timeout_s: (
        not camera.plugged or bool(camera.frames) or time.sleep(0.01) or True
    )
    real_dqbuf = camera._dqbuf

    def dqbuf(raw: memoryview) -> None:
        while not camera.frames and camera.plugged:
            time.sleep(0.005)
        if not camera.plugged:
            raise OSError(19, "No such device")
        real_dqbuf(raw)

    camera._dqbuf = dqbuf
    loop.start()
    assert collect(loop, 1)[0].frame.sequence == 5
    camera.plugged = False
    time.sleep(0.1)
    assert "unplugged" in loop.state().error or "no such device" in loop.state().error
    camera.queued.clear()
    camera.frames.append({"data": jpeg(2), "time_ns": 2 * 10**9, "sequence": 0})
    camera.plugged = True
    again = collect(loop, 1)[0]
    camera.plugged = False
    loop.close()
    assert (again.frame.jpeg, again.connection) == (jpeg(2), 2)


def test_error_that_waiting_cannot_cure_ends_the_loop_at_the_first_opening():
    def opener() -> MjpegHttpSource:
        raise ModeNotOfferedError("x", "a", "b", [])

    loop = CaptureLoop(opener, backoff=QUICK)
    loop.start()
    assert loop.take(1.0) is None
    loop.close()
    assert isinstance(loop.state().fatal, ModeNotOfferedError)


class BrokenSource:
    """A source with a bug."""

    mode = Mode(1, 1, None, "")

    def read(self) -> None:
        raise ZeroDivisionError("bug")

    def close(self) -> None:
        """Nothing to release."""


def test_dead_thread_makes_the_next_take_raise():
    loop = CaptureLoop(BrokenSource)
    loop.start()
    with pytest.raises(RuntimeError, match="capture thread died"):
        loop.take(1.0)


def test_close_does_not_wait_for_the_backoff():
    def opener() -> MjpegHttpSource:
        return MjpegHttpSource(SourceConfig("http://127.0.0.1:1/x"))

    loop = CaptureLoop(opener, backoff=Backoff(30.0, 30.0))
    loop.start()
    time.sleep(0.1)
    began = time.monotonic()
    loop.close()
    loop.close()
    assert time.monotonic() - began < 1.0


def test_restarted_server_does_not_get_its_held_image_through(mjpeg_server, jpeg):
    """The whole way: a server that sends the image it holds to each new client."""
    held = jpeg(0)
    server = mjpeg_server(frame=lambda index: held, interval_s=0.01)
    loop = CaptureLoop(lambda: open_source(SourceConfig(server.url)), backoff=QUICK)
    gate, passed = FrameGate(), []
    loop.start()

    def pump(count: int) -> None:
        for delivery in collect(loop, count):
            now_ns = time.monotonic_ns()
            stamp = ros_stamp(
                delivery.frame,
                arrival_ns=delivery.arrival_ns,
                monotonic_ns=now_ns,
                ros_now_ns=now_ns,
                sim_time=False,
            )
            if gate.passes(delivery.frame, stamp, now_ns, delivery.connection):
                passed.append(delivery)

    pump(2)
    server.stop()
    time.sleep(0.1)
    server.start()
    pump(1)
    loop.close()
    assert [delivery.connection for delivery in passed] == [1, 1]
    assert gate.refused == 1
