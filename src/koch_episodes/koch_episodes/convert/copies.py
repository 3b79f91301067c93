# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bags whose messages another bag of the same conversion holds too.

A bag that was sorted, cut, repaired or recorded once more while it was played has other files than
its original, but the same messages. As a second bag it would count demonstrations twice. Times
alone tell nothing: simulations begin at zero each time, and two arms are recorded at once into two
bags. So messages are compared, by stamp and checksum, on every topic that is converted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from koch_episodes.convert.survey import Seen, Survey

Marks = npt.NDArray[np.uint64]
_SHARE = 0.9  # of the messages of a stretch of time, from which on it is the same recording
_SPAN_NS = 500_000_000  # pieces of one recording may have a few messages at the seam in common
_SAMPLE = 4096  # marks of a bag that are looked at to find bags worth comparing


@dataclass(frozen=True, eq=False)
class _Content:
    """The messages of one topic: when, and a mark of time and content each."""

    times: npt.NDArray[np.int64]
    marks: Marks


@dataclass
class Copies:
    """What was found.

    Attributes:
        whole: Bag to the other bag that holds all it has.
        overlaps: Pairs that share a stretch of time, with the words that say so.
    """

    whole: dict[int, int] = field(default_factory=dict)
    overlaps: list[tuple[int, int, str]] = field(default_factory=list)


def find_copies(surveys: Sequence[Callable[[], Survey | None]]) -> Copies:
    """Compare bags by their surveys, which are loaded again for each pair worth it.

    Args:
        surveys: One per bag; each returns its survey, or None where there is none.
    """
    found = Copies()
    if len(surveys) < 2:
        return found
    for one, other in _candidates([_sample(_contents(load())) for load in surveys]):
        if one in found.whole or other in found.whole:
            continue
        a, b = _contents(surveys[one]()), _contents(surveys[other]())
        common = _common(a, b)
        if common is None:
            continue
        shared, begin, end = common
        counts = [sum(len(c.marks) for c in each.values()) for each in (a, b)]
        if shared >= _SHARE * min(counts):
            lesser, greater = (other, one) if counts[1] <= counts[0] else (one, other)
            found.whole[lesser] = greater
        else:
            text = f"the same {shared} messages over {(end - begin) / 1e9:.1f} s"
            found.overlaps.append((one, other, text))
    return found


def _contents(survey: Survey | None) -> dict[str, _Content]:
    if survey is None:
        return {}
    return {reading.topic: _content(seen) for reading, seen in survey.seen.items()}


def _content(seen: Seen) -> _Content:
    stamps = seen.column("stamps")
    times = np.where(stamps > 0, stamps, seen.column("logs"))
    mixed = times.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= seen.column("marks").astype(np.uint64)
    mixed ^= mixed >> np.uint64(31)  # so that the low bits tell bags' marks apart as well
    mixed *= np.uint64(0xBF58476D1CE4E5B9)
    return _Content(times, mixed ^ (mixed >> np.uint64(29)))


def _sample(contents: dict[str, _Content]) -> Marks:
    """Keep about _SAMPLE marks: those with zeros at the end, so that a copy keeps the same."""
    marks = np.concatenate([np.empty(0, np.uint64), *(c.marks for c in contents.values())])
    bits = max(0, int(np.ceil(np.log2(max(1, len(marks)) / _SAMPLE))))
    return np.unique(marks[marks & np.uint64((1 << bits) - 1) == 0])


def _candidates(samples: Sequence[Marks]) -> Iterator[tuple[int, int]]:
    """Yield pairs of bags that share a mark."""
    marks = np.concatenate(samples)
    if not len(marks):
        return
    owners = np.repeat(np.arange(len(samples)), [len(sample) for sample in samples])
    order = np.argsort(marks, kind="stable")
    marks, owners = marks[order], owners[order]
    begins = np.flatnonzero(np.append(True, marks[1:] != marks[:-1]))
    firsts = np.repeat(owners[begins], np.diff(np.append(begins, len(marks))))
    pairs = np.unique(np.stack([firsts, owners], axis=1)[firsts != owners], axis=0)
    yield from ((int(one), int(other)) for one, other in pairs)


def _common(a: dict[str, _Content], b: dict[str, _Content]) -> tuple[int, int, int] | None:
    """Return count, begin and end [ns] of what two bags share; None if they are two recordings."""
    total, begin, end = 0, 1 << 62, 0
    for topic in a.keys() & b.keys():
        one, other = a[topic], b[topic]
        if not len(one.marks) or not len(other.marks):
            continue
        low = max(one.times.min(), other.times.min())
        high = min(one.times.max(), other.times.max())
        insides = [c.marks[(c.times >= low) & (c.times <= high)] for c in (one, other)]
        least = min(len(inside) for inside in insides)
        shared = np.isin(one.marks, insides[1])
        count = int(shared.sum())
        if count < _SHARE * least:
            return None
        if count:
            times = one.times[shared]
            begin, end = min(begin, int(times.min())), max(end, int(times.max()))
            total += count
    # A whole bag may be shorter than the seam between two pieces.
    shortest = min(sum(len(c.marks) for c in each.values()) for each in (a, b))
    if not total or (end - begin < _SPAN_NS and total < _SHARE * shortest):
        return None
    return total, begin, end
