# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One publisher is obeyed, two that send at once are not."""

from __future__ import annotations

import pytest

from koch_ros.senders import SoleSender, sender_of


@pytest.mark.parametrize("period_s", [0.01, 0.1, 0.9])
def test_a_second_sender_silences_both(period_s: float) -> None:
    sole = SoleSender()
    assert all(sole.hears("a", k * period_s) for k in range(10))
    now = 10 * period_s
    assert not sole.hears("b", now)
    assert set(sole.rivals) == {"a", "b"}
    assert not sole.hears("a", now + 0.5 * period_s)


def test_a_rival_that_gives_up_leaves_the_other_obeyed() -> None:
    sole = SoleSender()
    sole.hears("a", 0.0)
    assert not sole.hears("b", 0.1)
    assert not any(sole.hears("a", 0.1 * k) for k in range(2, 21))
    assert sole.hears("a", 2.2)
    assert sole.rivals == ()


def test_a_publisher_that_is_gone_is_forgotten_at_once() -> None:
    sole = SoleSender()
    sole.hears("a", 0.0)
    assert not sole.hears("b", 0.01)
    sole.look({"b"}, 0.02)
    assert sole.rivals == ()
    assert sole.hears("b", 0.03)


def test_three_rivals_need_two_to_go() -> None:
    sole = SoleSender()
    for who in "abc":
        sole.hears(who, 0.0)
    sole.look("bc", 0.1)
    assert set(sole.rivals) == {"b", "c"}
    sole.look("c", 0.2)
    assert sole.hears("c", 0.3)


def test_a_hand_over_is_no_conflict() -> None:
    sole = SoleSender()
    assert sole.hears("a", 0.0)
    assert sole.hears("b", 1.1)
    assert sole.hears("b", 1.2)


def test_a_middleware_without_identities_is_one_sender() -> None:
    assert sender_of({"source_timestamp": 1}) is None
    assert sender_of({"publisher_gid": {"data": b"\x01\x02"}}) == b"\x01\x02"
