# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The scheduler with synthetic policies of known delay, on a clock that the test turns."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pytest

from koch_policy.chunks import (
    Arrival,
    Chunk,
    ChunkScheduler,
    DelayQuantile,
    Ensemble,
    Fading,
    Grid,
    Request,
    Strategy,
    StrategyKind,
)
from koch_policy.errors import StrategyError

RATE = 30.0
GRID = Grid(origin_ns=1_700_000_000_000_000_000, rate_hz=RATE)
STEP = 1.0 / RATE


@dataclass
class Run:
    """What a simulated run did: action (or None) per tick, arrivals, requests."""

    actions: list[float | None] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    scheduler: ChunkScheduler | None = None


def simulate(
    strategy: Strategy,
    delay_s: Callable[[int], float],
    *,
    ticks: int = 200,
    length: int = 20,
    row: Callable[[int, int], float] = lambda tick, step: float(tick + step),
    delay: DelayQuantile | None = None,
    skip: frozenset[int] = frozenset(),
) -> Run:
    """Run a control loop; inference n takes delay_s(n). `row` gives the predicted actions."""
    now = [GRID.time_ns(0)]
    scheduler = ChunkScheduler(
        strategy, delay or DelayQuantile(initial_s=STEP), GRID, lambda: now[0]
    )
    run = Run(scheduler=scheduler)
    running: tuple[Request, int] | None = None
    for tick in range(ticks):
        now[0] = GRID.time_ns(tick)
        if tick in skip:
            run.actions.append(None)
            continue
        for _ in range(2):  # a chunk without delay is there for its own tick
            if running is not None and running[1] <= now[0]:
                request, done = running
                rows = np.array([[row(request.tick, step)] for step in range(length)])
                run.arrivals.append(
                    scheduler.arrive(request, rows, rows.astype(np.float32), tick, done)
                )
                running = None
            if running is None and scheduler.wants(tick):
                request = scheduler.begin(tick)
                run.requests.append(request)
                running = (request, now[0] + round(delay_s(request.number) * 1e9))
        action = scheduler.action(tick)
        run.actions.append(None if action is None else float(action[0]))
    return run


def queue(steps: int = 10) -> Fading:
    return Fading(StrategyKind.QUEUE, steps)


def constant(seconds: float) -> Callable[[int], float]:
    return lambda number: seconds


def jitter(seed: int = 3) -> Callable[[int], float]:
    draw = np.random.default_rng(seed)
    return lambda number: float(draw.uniform(0.001, 0.25))


STRATEGIES = [queue, lambda: Fading(StrategyKind.BLEND, 10, 4), lambda: Ensemble(0.01),
              lambda: Fading(StrategyKind.RTC, 8)]  # fmt: skip


DELAYS = [lambda: constant(0.0), lambda: constant(0.02), lambda: constant(0.1),
          jitter, lambda: jitter(1), lambda: jitter(4)]  # fmt: skip


@pytest.mark.parametrize("make", STRATEGIES)
@pytest.mark.parametrize("delay", DELAYS, ids=["0", "20", "100", "j3", "j1", "j4"])
def test_each_tick_executes_the_row_predicted_for_it(make, delay) -> None:
    """A policy that predicts the tick's own number: any loss or repetition shows.

    Chunks are long enough for the slowest inference and a fade: one that has run out is faded
    from its last row.
    """
    run = simulate(make(), delay(), length=32)
    begun = next(tick for tick, action in enumerate(run.actions) if action is not None)
    assert begun <= 8  # the first inference's delay, nothing more
    executed = run.actions[begun:]
    assert executed == pytest.approx(list(range(begun, 200)))
    assert run.scheduler.executed == 200 - begun
    assert run.scheduler.skipped == 0


@pytest.mark.parametrize("make", STRATEGIES)
def test_entry_is_the_row_of_the_arrival_tick(make) -> None:
    run = simulate(make(), constant(0.095))  # 2.85 ticks: usable at the third
    assert {arrival.entry for arrival in run.arrivals} == {3}
    assert all(arrival.usable for arrival in run.arrivals)
    assert run.arrivals[0].delay_s == pytest.approx(0.095)


def test_without_delay_queue_is_lerobots_queue() -> None:
    """Predict, execute n_action_steps, predict again: requests every n ticks, entry 0."""
    run = simulate(queue(10), constant(0.0), delay=DelayQuantile(initial_s=0.0))
    assert [request.tick for request in run.requests] == list(range(0, 200, 10))
    assert {arrival.entry for arrival in run.arrivals} == {0}


def test_the_next_inference_begins_in_time() -> None:
    """Once the delay is known, the chunk arrives exactly when the planned steps are over."""
    run = simulate(queue(10), constant(0.1), ticks=300)
    ticks = [request.tick for request in run.requests[2:]]
    assert {b - a for a, b in itertools.pairwise(ticks)} == {10}
    assert {request.delay_steps for request in run.requests[2:]} == {3}


def test_delay_longer_than_the_chunk_executes_nothing() -> None:
    run = simulate(queue(10), constant(0.5), length=10, ticks=100)  # 15 ticks for 10 rows
    assert set(run.actions) == {None}
    assert run.scheduler.expired == len(run.arrivals) > 3
    assert not any(arrival.usable for arrival in run.arrivals)


def test_late_chunk_lets_the_old_plan_run_to_its_end_then_holds() -> None:
    delays = {1: 0.03, 2: 0.03}
    run = simulate(queue(5), lambda number: delays.get(number, 0.8), ticks=60, length=20)
    gaps = [tick for tick, action in enumerate(run.actions) if action is None and tick > 1]
    assert gaps, "the third inference takes 24 ticks, the chunk reaches 20"
    last = run.requests[1].tick + 20
    assert gaps[0] == last  # every row of the old plan was used, none twice
    assert run.actions[gaps[0] - 1] == gaps[0] - 1


def test_overrun_ticks_are_counted_when_the_caller_misses_them() -> None:
    run = simulate(queue(), constant(0.03), skip=frozenset({50, 51}))
    assert run.scheduler.skipped == 2
    assert run.actions[52] == 52.0


def test_a_tick_is_never_executed_twice() -> None:
    run = simulate(queue(), constant(0.03), ticks=10)
    with pytest.raises(ValueError, match="tick 9 is over already"):
        run.scheduler.action(9)


def test_cleared_plan_ignores_what_was_under_way() -> None:
    scheduler = ChunkScheduler(queue(), DelayQuantile(), GRID, lambda: GRID.time_ns(3))
    request = scheduler.begin(0)
    scheduler.clear()
    rows = np.zeros((20, 1))
    arrival = scheduler.arrive(request, rows, rows.astype(np.float32), 3)
    assert not arrival.usable
    assert scheduler.action(3) is None
    assert scheduler.wants(4)


def offset_rows(tick: int, step: int) -> float:
    """Every chunk is off by another amount: seams jump by up to 1."""
    return float(np.sin(0.7 * tick)) + 0.01 * (tick + step)


def jumps(run: Run) -> float:
    values = [value for value in run.actions if value is not None]
    return float(np.abs(np.diff(values)).max())


def test_blend_and_ensemble_soften_the_seams() -> None:
    plain = jumps(simulate(queue(), constant(0.1), row=offset_rows))
    blend = jumps(simulate(Fading(StrategyKind.BLEND, 10, 5), constant(0.1), row=offset_rows))
    mean = jumps(simulate(Ensemble(0.01), constant(0.1), row=offset_rows))
    assert plain > 0.6
    assert blend < plain / 6 + 0.011  # a seam of height h becomes 6 steps of h / 6, on a ramp
    assert mean < 0.7 * plain  # already with the second chunk


def test_blend_is_a_straight_cross_fade() -> None:
    strategy = Fading(StrategyKind.BLEND, 10, 3)
    scheduler = ChunkScheduler(strategy, DelayQuantile(), GRID, lambda: GRID.time_ns(0))
    zero, one = np.zeros((10, 1)), np.ones((10, 1))
    scheduler.arrive(scheduler.begin(0), zero, zero.astype(np.float32), 0)
    scheduler.arrive(scheduler.begin(4), one, one.astype(np.float32), 5)
    values = [float(scheduler.action(tick)[0]) for tick in range(5, 10)]
    assert values == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0])


def test_ensemble_follows_lerobots_recurrence() -> None:
    """new = (old * sum_j<k w_j + prediction * w_k) / sum_j<=k w_j, k predictions merged before."""
    coefficient, length, ticks = 0.1, 8, 30
    draw = np.random.default_rng(0)
    chunks = [draw.standard_normal((length, 2)) for _ in range(ticks)]
    strategy = Ensemble(coefficient)
    scheduler = ChunkScheduler(strategy, DelayQuantile(), GRID, lambda: GRID.time_ns(0))
    mean: dict[int, np.ndarray] = {}
    merged: dict[int, int] = {}
    for tick, rows in enumerate(chunks):
        for step, prediction in enumerate(rows):
            k = merged.get(tick + step, 0)
            w = np.exp(-coefficient * np.arange(k + 1))
            before = mean.get(tick + step, np.zeros(2)) * w[:k].sum()
            mean[tick + step] = (before + prediction * w[k]) / w.sum()
            merged[tick + step] = k + 1
        scheduler.arrive(scheduler.begin(tick), rows, rows.astype(np.float32), tick)
        np.testing.assert_allclose(scheduler.action(tick), mean[tick], atol=1e-12)


def test_ensemble_takes_the_gripper_from_the_newest_chunk() -> None:
    strategy = Ensemble(0.0, apart=(1,))
    scheduler = ChunkScheduler(strategy, DelayQuantile(), GRID, lambda: GRID.time_ns(0))
    for tick, value in ((0, 0.0), (1, 1.0)):
        rows = np.full((10, 2), value)
        scheduler.arrive(scheduler.begin(tick), rows, rows.astype(np.float32), tick)
    np.testing.assert_allclose(scheduler.action(2), [0.5, 1.0])


def test_rtc_hands_out_what_is_left_of_the_plan() -> None:
    run = simulate(Fading(StrategyKind.RTC, 8), constant(0.1), length=16)
    request = run.requests[5]
    assert request.leftover is not None
    assert float(request.leftover[0, 0]) == request.tick
    assert len(request.leftover) > request.delay_steps
    plain = simulate(queue(8), constant(0.1), length=16)
    assert all(each.leftover is None for each in plain.requests)


def test_delay_estimate_forgets_an_outlier() -> None:
    delay = DelayQuantile(quantile=0.9, half_life=10)
    for _ in range(20):
        delay.add(0.05)
    delay.add(2.0)
    assert delay.estimate_s < 0.1 or delay.steps(STEP) == 60
    for _ in range(3):
        delay.add(2.0)
    assert delay.steps(STEP) == 60  # a slow phase is believed ...
    for _ in range(40):
        delay.add(0.05)
    assert delay.steps(STEP) == 2  # ... and forgotten, unlike a maximum
    assert delay.percentile(0.5) == pytest.approx(0.05)


def test_delay_estimate_is_an_upper_quantile() -> None:
    delay = DelayQuantile(quantile=0.9, half_life=50)
    for value in np.random.default_rng(0).permutation(np.linspace(0.0, 0.1, 101)):
        delay.add(float(value))
    assert delay.estimate_s == pytest.approx(0.09, abs=0.01)


def test_grid_is_exact_over_a_day() -> None:
    for tick in (0, 1, 29, 30, 24 * 3600 * 30, 24 * 3600 * 30 + 1):
        assert GRID.tick_at(GRID.time_ns(tick)) == tick
        assert GRID.tick_at(GRID.time_ns(tick) - 1) == tick - 1
    assert GRID.time_ns(30) - GRID.time_ns(0) == 1_000_000_000


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fading(StrategyKind.QUEUE, 0),
        lambda: Fading(StrategyKind.BLEND, 5, -1),
        lambda: Ensemble(float("nan")),
    ],
)
def test_bad_settings_are_refused(make: Callable[[], object]) -> None:
    with pytest.raises(StrategyError, match="expected"):
        make()


@pytest.mark.parametrize("bad", [{"quantile": 1.0}, {"half_life": 0.0}, {"initial_s": -1.0}])
def test_bad_estimator_settings_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="quantile"):
        DelayQuantile(**bad)


def _random_runs() -> Iterator[int]:
    yield from range(5)


@pytest.mark.parametrize("seed", list(_random_runs()))
def test_random_jitter_never_loses_or_repeats_a_step(seed: int) -> None:
    """Delays from nothing to beyond the chunk: what is executed is always the tick's own row."""
    draw = np.random.default_rng(seed)
    run = simulate(queue(6), lambda number: float(draw.exponential(0.15)), ticks=400, length=16)
    for tick, action in enumerate(run.actions):
        assert action is None or action == tick
    done = sum(action is not None for action in run.actions)
    assert run.scheduler.executed == done > 100


def test_an_ensembles_preview_is_what_its_ticks_will_be() -> None:
    """Chunks of several lengths, with a gap that none reaches."""
    draw, strategy = np.random.default_rng(5), Ensemble(0.3, apart=(1,))
    for tick, length in ((0, 9), (2, 4), (3, 2), (12, 3)):
        rows = draw.normal(size=(length, 3))
        strategy.accept(Chunk(tick, rows, rows.astype(np.float32)), 0)
    preview = strategy.preview(1)
    known = [row for tick in range(1, 20) if (row := strategy.action(tick)) is not None]
    assert preview is not None
    assert len(known) == 11
    np.testing.assert_allclose(preview, np.stack(known), rtol=1e-12)
    first, second, third = (chunk.rows for chunk in strategy._chunks[:3])
    weights = np.exp(-0.3 * np.arange(3))
    mean = (weights[:, None] * np.stack([first[4], second[2], third[1]])).sum(0) / weights.sum()
    mean[1] = third[1, 1]
    np.testing.assert_allclose(strategy.action(4), mean, rtol=1e-12)
    assert strategy.action(10) is None
