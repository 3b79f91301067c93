# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rates, gaps, losses and lights of streams."""

from __future__ import annotations

import pytest

from koch_core.health import Light, LossCounter
from koch_episodes.recorder.quality import StreamMonitor, verdict

NS = 1_000_000_000
T0 = 1_760_000_000 * NS


def _monitor(expected_hz: float = 100.0, max_age_s: float = 0.05) -> StreamMonitor:
    monitor = StreamMonitor("arm", expected_hz=expected_hz, max_age_s=max_age_s)
    monitor.begin_episode(T0)
    return monitor


def _feed(monitor: StreamMonitor, stamps_s: list[float], delay_s: float = 0.002) -> int:
    for stamp_s in stamps_s:
        stamp = T0 + round(stamp_s * NS)
        monitor.add(stamp, stamp + round(delay_s * NS))
    return T0 + round((stamps_s[-1] + delay_s) * NS)


def test_steady_stream_is_green() -> None:
    monitor = _monitor()
    now = _feed(monitor, [k / 100 for k in range(400)])
    health = monitor.health(now)
    assert health.light is Light.GREEN
    assert health.alive
    assert health.rate_hz == pytest.approx(100.0)
    assert health.max_gap_s == pytest.approx(0.01)
    assert health.age_s == pytest.approx(0.002)
    report = monitor.report(now)
    assert (report.light, report.count, report.holes) == (Light.GREEN, 400, 0)


def test_stream_without_messages_is_dead() -> None:
    health = _monitor().health(T0)
    assert not health.alive
    assert health.reason == "no message ever came"
    assert _monitor().report(T0 + NS).reason == "no message"


def test_silent_stream_is_dead_and_says_since_when() -> None:
    monitor = _monitor()
    now = _feed(monitor, [k / 100 for k in range(100)])
    health = monitor.health(now + 2 * NS)
    assert not health.alive
    assert health.reason == "no message for 2.0 s"
    assert monitor.report(now + 2 * NS).light is Light.RED


def test_late_messages_make_a_stream_dead() -> None:
    monitor = _monitor()
    now = _feed(monitor, [k / 100 for k in range(100)], delay_s=1.5)
    assert "old when they come" in monitor.health(now).reason


def test_gap_beyond_the_maximum_age_is_red_but_alive() -> None:
    monitor = _monitor()
    now = _feed(monitor, [*(k / 100 for k in range(100)), *(1.06 + k / 100 for k in range(50))])
    health = monitor.health(now)
    assert health.light is Light.RED
    assert health.alive
    assert monitor.report(now).holes == 1


def test_gap_leaves_the_live_light_after_three_seconds() -> None:
    monitor = _monitor()
    stamps = [*(k / 100 for k in range(100)), *(1.06 + k / 100 for k in range(400))]
    now = _feed(monitor, stamps)
    assert monitor.health(now).light is Light.GREEN
    assert monitor.report(now).light is Light.RED


def test_slow_stream_is_amber() -> None:
    monitor = _monitor(expected_hz=30.0, max_age_s=0.2)
    now = _feed(monitor, [k / 15 for k in range(60)])
    assert monitor.health(now).reason == "15.0 Hz instead of 30 Hz"
    assert monitor.report(now).light is Light.AMBER


@pytest.mark.parametrize("rate", [29.97, 30.0, 30.5])
def test_usual_camera_rates_are_green(rate: float) -> None:
    monitor = _monitor(expected_hz=30.0, max_age_s=0.1)
    now = _feed(monitor, [k / rate for k in range(200)])
    assert monitor.health(now).light is Light.GREEN


def test_stamps_jumping_backwards_are_counted() -> None:
    monitor = _monitor()
    now = _feed(monitor, [0.0, 0.01, 0.02, 0.015, 0.025, 0.03])
    assert monitor.report(now).backwards == 1
    assert monitor.health(now).reason == "stamps do not increase"


def test_zero_stamps_are_noticed_and_timed_by_arrival() -> None:
    monitor = _monitor()
    for k in range(100):
        monitor.add(0, T0 + k * NS // 100)
    health = monitor.health(T0 + NS)
    assert health.reason == "stamps are zero"
    assert health.rate_hz == pytest.approx(100.0)


def test_lost_messages_are_counted_by_sequence_number() -> None:
    counter = LossCounter()
    assert [counter.add(n, b"a") for n in (5, 6, 9, 10)] == [0, 0, 2, 0]
    assert counter.lost == 2


def test_restarted_and_second_publishers_are_no_loss() -> None:
    counter = LossCounter()
    for sequence, publisher in ((7, b"a"), (100, b"b"), (8, b"a"), (1, b"a"), (2, b"a")):
        assert counter.add(sequence, publisher) == 0


@pytest.mark.parametrize("unknown", [0, (1 << 64) - 1])
def test_middleware_without_sequence_numbers_loses_nothing(unknown: int) -> None:
    counter = LossCounter()
    assert [counter.add(unknown, b"") for _ in range(3)] == [0, 0, 0]


def test_verdict_names_stream_and_reason() -> None:
    good, bad = _monitor(), _monitor()
    now = _feed(good, [k / 100 for k in range(100)])
    assert verdict([good.report(now)]) == (Light.GREEN, "green")
    light, text = verdict([good.report(now), bad.report(now)], ["stopped early: disk full"])
    assert light is Light.RED
    assert text == "red: stopped early: disk full; arm: no message"


def test_figures_of_an_episode_begin_anew() -> None:
    monitor = _monitor()
    now = _feed(monitor, [0.0, 0.01, 0.2, 0.21])
    assert monitor.report(now).holes == 1
    monitor.begin_episode(now)
    now = _feed(monitor, [0.22, 0.23, 0.24])
    assert monitor.report(now).light is Light.GREEN


def test_a_stream_its_publisher_calls_unusable_is_dead_until_it_recovers() -> None:
    monitor = _monitor()
    now = _feed(monitor, [k / 100 for k in range(100)])
    monitor.mark(T0, "frozen: same image for 1.0 s")
    health = monitor.health(now)
    assert (health.alive, health.light) == (False, Light.RED)
    assert "frozen" in health.reason
    monitor.mark(now, "")
    assert monitor.health(now).alive


@pytest.mark.parametrize(("begin_s", "end_s"), [(-5.0, 0.4), (0.2, 0.5), (0.8, None)])
def test_an_episode_with_unusable_images_is_red(begin_s: float, end_s: float | None) -> None:
    monitor = StreamMonitor("camera", expected_hz=100.0, max_age_s=0.05)
    monitor.mark(T0 + round(begin_s * NS), "images are black")
    monitor.begin_episode(T0)
    now = _feed(monitor, [k / 100 for k in range(100)])
    if end_s is not None:
        monitor.mark(T0 + round(end_s * NS), "")
    report = monitor.report(now)
    length = (now - T0) / NS if end_s is None else end_s
    assert report.light is Light.RED
    assert report.reason == f"unusable for {length - max(0.0, begin_s):.1f} s: images are black"
    monitor.begin_episode(now + NS)
    later = _feed(monitor, [2.0 + k / 100 for k in range(100)])
    assert (monitor.report(later).light is Light.RED) is (end_s is None)
