# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs of the clock: between two settings back of it, stamps can be compared; across one, not.

A simulation that is reset, a bag that is played in a loop and a corrected clock give stamps twice.
So a sample is named by its place in the bag, and its stamp belongs to the run that it lies in. All
streams together decide where a run ends: one stream that goes back alone has a clock of its own.

A stamp that leaves the line of its stream and comes back to it is no new clock. It is refused, and
so is one that stands still while the others go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from koch_core.stream import NS_PER_S
from koch_episodes.bag.order import DISORDER_NS, clock_was_set_back

Numbers = npt.NDArray[np.int64]

REFUSED = -1
JUMP_NS = NS_PER_S  # a sparse stream, or an event, that goes back by less shows no setting
_DENSE_NS = NS_PER_S // 4  # streams of this period or less show the clock
_DENSE_COUNT = 10
_OFF_NS = NS_PER_S // 10  # off the line of the neighbours, and three periods at least
_RETURN_NS = NS_PER_S // 2  # within which an odd stamp's stream comes back to its line
_APART_NS = 3 * NS_PER_S // 10  # of what stamp and log time say about the distance of two samples
_FEW = 3  # samples; less are no run of a clock
_FILLS = 0.6  # of a period to the next sample: it came late, but its stamp is right


@dataclass(frozen=True, eq=False)
class Times:
    """When the samples of one stream were acquired, in the order of the bag.

    Attributes:
        places: Places in the bag, ascending, int64, shape (n,).
        stamps: Acquisition times, [ns], int64, shape (n,).
        logs: Arrival at the recorder, [ns], int64, shape (n,).
    """

    places: Numbers
    stamps: Numbers
    logs: Numbers


class _StepBack(NamedTuple):
    """Where one stream's stamps go back: the last place before and the first behind it."""

    before: int
    behind: int


@dataclass(eq=False)
class _Line:
    """A stream without its odd stamps."""

    times: Times
    period_ns: int
    good: npt.NDArray[np.bool_]
    steps: list[_StepBack] = field(default_factory=list)


class Runs:
    """The runs of a bag's clock.

    Args:
        streams: All streams that the clock is judged by.
    """

    def __init__(self, streams: Sequence[Times]) -> None:
        self._lines = [_line(times) for times in streams]
        self._dense = [line for line in self._lines if line.period_ns <= _DENSE_NS]
        judges = self._dense or self._lines
        per_s = sum(NS_PER_S / max(line.period_ns, 1) for line in self._dense)
        self._slack = int(per_s) + 2  # places in which all streams have seen the same setting
        self._begins = np.array(self._settings(judges), dtype=np.int64)
        self._ref = min(judges, key=lambda line: line.period_ns, default=None)
        self._refuse_lone_steps(judges)
        for line in self._dense:
            self._refuse_standing(line)
        self.of_streams = [self._of_line(line) for line in self._lines]

    @property
    def count(self) -> int:
        """Number of runs."""
        return len(self._begins) + 1

    def _settings(self, judges: Sequence[_Line]) -> list[int]:
        """First places behind each setting back of the clock."""
        steps = sorted(
            (step for line in judges for step in line.steps), key=lambda s: s.behind - s.before
        )
        found: list[_StepBack] = []
        for step in steps:  # the narrowest say best where it was
            if not any(self._same(step, other) for other in found):
                found.append(step)
        begins = []
        for setting in sorted(found):
            for_it = [step for step in steps if self._same(step, setting)]
            against = sum(self._denies(line, setting) for line in judges)
            if len(for_it) >= against:
                begins.append(min(step.behind for step in for_it if step.behind > setting.before))
        return sorted(set(begins))

    def _same(self, one: _StepBack, other: _StepBack) -> bool:
        slack = self._slack
        return one.before - slack < other.behind and other.before - slack < one.behind

    def _denies(self, line: _Line, setting: _StepBack) -> bool:
        """Tell whether a stream goes on over a setting of the clock as if there were none."""
        if any(self._same(step, setting) for step in line.steps):
            return False
        places = line.times.places[line.good]
        left, right = np.searchsorted(places, [setting.before, setting.behind])
        near = 3 * self._slack
        return bool(
            left > 0
            and right < len(places)
            and places[left - 1] > setting.before - near
            and places[right] < setting.behind + near
        )

    def _refuse_lone_steps(self, judges: Sequence[_Line]) -> None:
        """Of a stream that went back alone, the shorter side has another clock than the rest."""
        for line in judges:
            places = line.times.places
            for step in line.steps:
                if any(
                    step.before - self._slack < b <= step.behind + self._slack
                    for b in self._begins.tolist()
                ):
                    continue
                run = np.searchsorted(self._begins, places, "right")
                mine = run == np.searchsorted(self._begins, step.behind, "right")
                before, behind = mine & (places <= step.before), mine & (places >= step.behind)
                line.good &= ~(before if before.sum() < behind.sum() else behind)

    def _refuse_standing(self, line: _Line) -> None:
        """Refuse what comes with the stamp of a sample long before it, if the others went on.

        Of equal stamps the last sample counts: it would be seen before it was taken.
        """
        stamps, logs, places = line.times.stamps, line.times.logs, line.times.places
        is_new = np.diff(stamps, prepend=stamps[0] - 1) != 0
        first = np.maximum.accumulate(np.where(is_new, np.arange(len(stamps)), 0))
        off = max(_OFF_NS, 3 * line.period_ns)
        standing = np.flatnonzero(line.good & (logs - logs[first] > off))
        for other in self._dense if len(standing) else ():
            if other is not line and other.good.any():
                there, now = other.times.places[other.good], other.times.stamps[other.good]
                went_on = _at(there, now, places[standing]) - _at(
                    there, now, places[first[standing]]
                )
                line.good[standing[went_on > off]] = False

    def _of_line(self, line: _Line) -> npt.NDArray[np.int64]:
        """Run of each sample, REFUSED where its stamp is odd."""
        places = line.times.places
        runs = self.at(places, line.times.stamps)
        if line in self._dense:
            runs = np.searchsorted(self._begins, places, "right").astype(np.int64)
            for number, begin in enumerate(self._begins.tolist()):
                for step in line.steps:
                    if step.before - self._slack < begin <= step.behind:
                        runs[(places >= begin) & (places <= step.before)] = number
        runs[~line.good] = REFUSED
        return runs

    def at(self, places: Numbers, stamps: Numbers) -> npt.NDArray[np.int64]:
        """Run of samples of a stream that is too sparse to show the clock, such as events.

        Near a setting of the clock a message may have overtaken those that tell of it, so its
        stamp decides there.
        """
        runs = np.searchsorted(self._begins, places, "right").astype(np.int64)
        if self._ref is None:
            return runs
        good = self._ref.good
        ref_places, ref_stamps = self._ref.times.places[good], self._ref.times.stamps[good]
        for number, begin in enumerate(self._begins.tolist()):
            edge = int(np.searchsorted(ref_places, begin))
            if not 0 < edge < len(ref_places):
                continue
            old, new = ref_stamps[edge - 1], ref_stamps[edge]
            near = np.abs(places - begin) <= 3 * self._slack
            now = ref_stamps[np.maximum(np.searchsorted(ref_places, places, "right") - 1, 0)]
            closer_to_new = np.abs(stamps - new) < np.abs(stamps - old)
            early = near & (runs == number) & (stamps < now - JUMP_NS) & closer_to_new
            late = near & (runs == number + 1) & (stamps > now + JUMP_NS) & ~closer_to_new
            runs[early], runs[late] = number + 1, number
        return runs


def _line(times: Times) -> _Line:
    stamps = times.stamps
    good = np.ones(len(stamps), dtype=np.bool_)
    steps = np.diff(stamps)
    forward = steps[steps > 0]
    period = int(np.median(forward)) if len(forward) else 1 << 62
    if len(stamps) < _DENSE_COUNT or period > _DENSE_NS:
        back = np.flatnonzero(steps < -JUMP_NS) + 1
        return _Line(times, max(period, _DENSE_NS + 1), good, _steps(times.places, back))
    _mark_odd(times, period, good)
    kept = np.flatnonzero(good)
    # Of a dense stream more than messages overtake one another by; mixed with those of before, the
    # samples of two times would make one episode.
    back = np.flatnonzero(np.diff(stamps[kept]) < -DISORDER_NS) + 1
    if len(back) and not clock_was_set_back([stamps[kept]]):
        # Written in another order, and nothing is there twice.
        return _Line(times, period, np.ones(len(stamps), dtype=np.bool_))
    while len(back):  # too few at one end, or between two steps, are odd stamps as well
        edges = np.concatenate([[0], back, [len(kept)]])
        few = int(np.argmin(np.diff(edges)))
        if edges[few + 1] - edges[few] >= _FEW:
            break
        good[kept[edges[few] : edges[few + 1]]] = False
        kept = np.flatnonzero(good)
        back = np.flatnonzero(np.diff(stamps[kept]) < -DISORDER_NS) + 1
    return _Line(times, period, good, _steps(times.places[kept], back))


def _at(places: Numbers, stamps: Numbers, wanted: Numbers) -> Numbers:
    """The newest stamps at some places in the bag."""
    return stamps[np.maximum(np.searchsorted(places, wanted, "right") - 1, 0)]


def _steps(places: Numbers, back: Numbers) -> list[_StepBack]:
    return [_StepBack(int(places[k - 1]), int(places[k])) for k in back]


def _mark_odd(times: Times, period: int, good: npt.NDArray[np.bool_]) -> None:
    """Mark stamps that leave the line of a stream which comes back to it soon after."""
    stamps = times.stamps
    off = max(_OFF_NS, 3 * period)
    steps = np.diff(stamps)
    ahead = min(max(_RETURN_NS // period, _FEW), 100)
    odd = _lone_ends(times, off)
    resume = 2 if 0 in odd else 0
    for edge in (np.flatnonzero((steps < -off) | (steps > off)) + 1).tolist():
        if edge < resume:
            continue
        last = stamps[edge - 1]
        behind = stamps[edge + 1 : edge + 1 + ahead] - last
        near = (np.arange(len(behind)) + 2) * period + off
        back = np.flatnonzero((behind > -off) & (behind <= near))
        if len(back):
            resume = edge + 1 + int(back[0])
            odd += range(edge, resume)
    good[odd] = False
    line = np.sort(stamps[good])
    for place in odd:
        good[place] = _fills_a_hole(line, int(stamps[place]), period)


def _lone_ends(times: Times, off: int) -> list[int]:
    """First and last sample, where the next two are as far off as the log times do not tell."""
    last = len(times.stamps) - 1
    apart = max(_APART_NS, off)
    found = []
    for end, neighbours in (0, (1, 2)), (last, (last - 1, last - 2)):
        steps = [abs(int(times.stamps[end] - times.stamps[beside])) for beside in neighbours]
        waits = [abs(int(times.logs[end] - times.logs[beside])) for beside in neighbours]
        if all(s > off and abs(s - w) > apart for s, w in zip(steps, waits, strict=True)):
            found.append(end)  # of one odd neighbour, the neighbour is odd
    return found


def _fills_a_hole(line: Numbers, stamp: int, period: int) -> bool:
    """Tell whether a sample came out of order, but at a time that the others leave free."""
    place = int(np.searchsorted(line, stamp))
    if not 0 < place < len(line):
        return False
    left, right = stamp - int(line[place - 1]), int(line[place]) - stamp
    return _FILLS * period <= min(left, right) and max(left, right) <= JUMP_NS
