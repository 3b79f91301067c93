# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The record of refused commands: which source, why, how often, from whom."""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite

from koch_core.wording import listed
from koch_driver.guard.rules import Intervention, Rule

# So old a stamp is none at all: 0, or of another clock.
_NO_STAMP_S = 1e8
_TEXTS = {
    Rule.SENDER: "several publishers send on this topic: stop all but one",
    Rule.SOURCE: "no such source",
    Rule.STOP: "the arm is stopped: call resume",
    Rule.PRIORITY: "a source of higher priority drives",
}


@dataclass(frozen=True)
class Refusal:
    """Commands of one source that were refused for one reason.

    Attributes:
        source: The source.
        rule: The reason.
        count: How many.
        text: What was wrong with the newest of them, for people.
        senders: Who sent them, as far as it is known.
        time_s: When the newest was refused, on the guard's clock.
    """

    source: str
    rule: Rule
    count: int
    text: str
    senders: frozenset[Hashable]
    time_s: float


class RefusalLog:
    """Refusals since the start by source and reason; any thread."""

    def __init__(self, joints: Sequence[str]) -> None:
        self._joints = tuple(joints)
        self._lock = threading.Lock()
        self._known: dict[tuple[str, Rule], Refusal] = {}

    def add(
        self,
        source: str,
        refusals: Sequence[Intervention],
        senders: Iterable[Hashable],
        now_s: float,
    ) -> None:
        """Note one refused command; all its refusals have the same rule."""
        rule = refusals[0].rule
        with self._lock:
            old = self._known.get((source, rule))
            count = 1 if old is None else old.count + 1
            self._known[source, rule] = Refusal(
                source, rule, count, _in_words(refusals, self._joints), frozenset(senders), now_s
            )

    def all(self) -> tuple[Refusal, ...]:
        """Every reason that occurred, oldest source first."""
        with self._lock:
            return tuple(self._known.values())


def _in_words(refusals: Sequence[Intervention], joints: Sequence[str]) -> str:
    rule, subjects = refusals[0].rule, [item.joint for item in refusals]
    if rule is Rule.NAMES:
        absent = [name for name in subjects if name in joints]
        strange = [name for name in subjects if name not in joints]
        parts = [f"does not give one position for {listed(absent)}"] if absent else []
        parts += [f"names {listed(strange)}, unknown to this arm"] if strange else []
        return f"{' and '.join(parts)}; expected all of {', '.join(joints)}"
    if rule is Rule.FINITE:
        return ", ".join(f"{item.joint} is {item.requested}" for item in refusals)
    if rule is Rule.AGE:
        age_s = refusals[0].requested
        if not isfinite(age_s) or age_s > _NO_STAMP_S:
            return "no stamp: header.stamp must be the time of the command"
        if age_s < 0.0:
            return f"stamped {-age_s:.2f} s ahead: do the clocks of the two computers agree?"
        return f"stamped {age_s:.2f} s ago: late, or the clocks of the two computers differ"
    return _TEXTS.get(rule) or str(rule.value)
