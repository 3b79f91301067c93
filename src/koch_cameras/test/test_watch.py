# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Health of a stream: rate, gaps, losses, frozen, black, latency."""

from __future__ import annotations

import numpy as np
import pytest

from koch_cameras.frame import CameraFrame, Encoding, TimeBase
from koch_cameras.watch import CameraReport, Expectation, StreamWatch, same_image
from koch_core.health import Light

MS = 1_000_000
START = 10**12


def feed(
    watch: StreamWatch,
    times_ms: list[int],
    *,
    sequences: list[int] | None = None,
    still: bool = False,
    latency_s: float = 0.01,
    connection: int = 1,
) -> CameraReport:
    """Give images at these times and report 10 ms after the last."""
    for index, time_ms in enumerate(times_ms):
        sequence = index if sequences is None else sequences[index]
        data = b"still" if still else b"%d" % time_ms
        frame = CameraFrame(sequence, 0, TimeBase.MONOTONIC, Encoding.JPEG, 1, 1, data)
        stamp_ns = START + time_ms * MS
        watch.add(
            frame,
            stamp_ns=stamp_ns,
            arrival_ns=stamp_ns,
            latency_s=latency_s,
            connection=connection,
        )
    return watch.report(START + (times_ms[-1] + 10) * MS)


def steady(count: int = 60) -> list[int]:
    return [round(index * 1000 / 30) for index in range(count)]


def watch(**settings: object) -> StreamWatch:
    return StreamWatch(Expectation(**{"fps": 30.0, **settings}))


def test_steady_stream_is_green():
    report = feed(watch(), steady())
    assert (report.light, report.reasons) == (Light.GREEN, ())
    assert report.rate_hz == pytest.approx(30.0, rel=0.01)
    assert report.jitter_s < 0.001
    assert report.max_gap_s == pytest.approx(0.034, abs=0.001)
    assert report.age_s == pytest.approx(0.01)
    assert report.message == "30.0 fps"


def test_silence_from_the_start_is_an_error():
    report = watch().report(START)
    assert (report.light, report.message) == (Light.RED, "no image yet")


def test_stall_of_three_seconds_shows_while_it_lasts_and_as_a_gap_after():
    item = watch()
    feed(item, steady(30))
    during = item.report(START + 4000 * MS)
    assert (during.light, during.reasons[0]) == (Light.RED, "no image for 3.0 s")
    after = feed(item, [time + 4000 for time in steady(30)])
    assert any("gap of 3.0" in reason for reason in after.reasons)


def test_lost_images_are_counted_by_sequence_within_a_connection():
    item = watch()
    assert feed(item, steady(4), sequences=[5, 6, 9, 10]).lost == 2
    later = [time + 200 for time in steady(3)]
    assert feed(item, later, sequences=[90, 91, 92], connection=2).lost == 2


def test_slow_stream_is_a_warning():
    report = feed(watch(), list(range(0, 2000, 66)))
    assert report.light is Light.AMBER
    assert "15.2 fps, expected 30" in report.message


def test_frozen_camera_is_an_error_and_a_moving_one_is_not():
    report = feed(watch(frozen_after_s=1.0), steady(), still=True)
    assert report.light is Light.RED
    assert "frozen: same image for 2.0 s" in report.message
    assert feed(watch(frozen_after_s=0.0), steady(), still=True).light is Light.GREEN


def test_black_images_are_an_error_until_light_returns():
    item = watch()
    item.look(np.full((60, 80), 3, np.uint8))
    assert "black" in feed(item, steady()).message
    dark_scene = np.full((60, 80), 4, np.uint8)
    dark_scene[:10, :10] = 120
    item.look(dark_scene)
    assert item.report(START + 1970 * MS).light is Light.GREEN


def test_latency_and_stamps_in_the_future_are_warnings():
    assert "latency up to 0.40 s" in feed(watch(), steady(), latency_s=0.4).message
    assert "future" in feed(watch(), steady(), latency_s=-0.2).message


def test_restarted_clock_clears_the_window():
    item = watch()
    feed(item, [time + 100_000 for time in steady()])
    report = feed(item, steady())
    assert report.max_gap_s < 0.05


def test_same_image_compares_arrays_and_bytes():
    def raw(values: np.ndarray) -> CameraFrame:
        return CameraFrame(0, 0, TimeBase.MONOTONIC, Encoding.MONO8, 4, 3, values)

    one = np.zeros((3, 4), np.uint8)
    other = one.copy()
    other[0, 0] = 1
    assert same_image(raw(one), raw(one.copy()))
    assert not same_image(raw(one), raw(other))
    assert not same_image(raw(one), raw(np.zeros((2, 4), np.uint8)))
    jpeg = CameraFrame(0, 0, TimeBase.MONOTONIC, Encoding.JPEG, 4, 3, b"x")
    assert not same_image(raw(one), jpeg)


def looks(item: StreamWatch, seconds: float, *, damaged_every: int, begin_s: float = 0.0) -> int:
    """Images at 30 Hz of which every nth is damaged; returns the time of the last [ns]."""
    image = np.arange(4800, dtype=np.uint32).reshape(60, 80).astype(np.uint8)
    now_ns = 0
    for index in range(round(seconds * 30)):
        now_ns = START + round((begin_s + index / 30) * 1e9)
        if damaged_every and index % damaged_every == 0:
            item.damaged(1, now_ns)
            continue
        item.look(image)
        frame = CameraFrame(index, 0, TimeBase.MONOTONIC, Encoding.JPEG, 1, 1, b"%d" % now_ns)
        item.add(frame, stamp_ns=now_ns, arrival_ns=now_ns, latency_s=0.01, connection=1)
    return now_ns


@pytest.mark.parametrize("every", [2, 4, 8])
def test_a_share_of_damaged_images_is_a_fault_until_they_stop(every: int) -> None:
    item = watch()
    now_ns = looks(item, 2.0, damaged_every=every)
    fault = item.fault(now_ns)
    assert fault is not None
    assert "damaged" in fault.reason
    assert fault.since_ns <= START + 0.3e9
    assert item.report(now_ns).light is Light.RED
    now_ns = looks(item, 3.0, damaged_every=0, begin_s=2.0)
    assert item.fault(now_ns) is None
    assert item.report(now_ns).damaged_fraction == 0.0


def test_one_damaged_image_in_a_second_is_a_warning_and_no_fault() -> None:
    item = watch()
    now_ns = looks(item, 2.0, damaged_every=30)
    assert item.fault(now_ns) is None
    assert item.wants_look(now_ns)
    assert item.report(now_ns).light is Light.AMBER


def test_a_fault_names_its_first_image_also_where_it_shows_later() -> None:
    item = watch(frozen_after_s=1.0)
    times = steady(90)
    feed(item, times[:30])
    feed(item, times[30:], still=True)
    fault = item.fault(START + 3000 * MS)
    assert fault is not None
    assert fault.since_ns == START + times[30] * MS + 1  # the first of the equal ones was real
    item = watch()
    item.look(np.arange(4800, dtype=np.uint32).reshape(60, 80).astype(np.uint8))
    feed(item, times[:6])
    item.look(np.full((60, 80), 2, np.uint8))
    fault = item.fault(START)
    assert fault is not None
    assert fault.since_ns <= START + times[0] * MS  # dark from any image after the last look on


@pytest.mark.parametrize(
    ("level", "noise", "blank"), [(0, 2, True), (135, 1, True), (90, 20, False)]
)
def test_an_image_of_one_colour_shows_nothing(level: int, noise: int, blank: bool) -> None:
    item = watch()
    image = np.clip(np.random.default_rng(0).normal(level, noise / 2, (60, 80)), 0, 255)
    item.look(image.astype(np.uint8))
    assert (item.fault(START) is not None) is blank
