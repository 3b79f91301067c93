# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The way of goals: what two nodes said, put together and measured."""

from __future__ import annotations

import numpy as np
import pytest

from koch_episodes.goal_trace import (
    ARM_STAGES,
    POLICY_STAGES,
    SAME_NS,
    STAGES,
    Said,
    join,
    latency_lines,
)

NS = 1_000_000_000
T0 = 1_760_000_000 * NS
# Milliseconds after the command's stamp, from exposure to bus.
ENDS_MS = (-15, -9, -8, 0, 3, 4, 4.5, 6, 7, 8, 11, 12)


def _said(count: int = 100, off_ns: int = 0) -> tuple[list[Said], list[Said]]:
    policy: list[Said] = []
    arm: list[Said] = []
    split = len(POLICY_STAGES)
    for k in range(count):
        stamp = T0 + k * NS // 30
        ends = [1e-3 * ms for ms in ENDS_MS]
        policy.append((stamp, dict(zip(POLICY_STAGES, ends[:split], strict=True))))
        arm.append((stamp + off_ns, dict(zip(ARM_STAGES, ends[split:], strict=True))))
    return policy, arm


@pytest.mark.parametrize("off_ns", [0, 300, -SAME_NS + 1])
def test_stages_add_up_to_the_whole_way(off_ns: int) -> None:
    traces = join(*_said(off_ns=off_ns))
    assert traces.total_s() == pytest.approx(np.full(100, 0.027))
    stages = traces.stages_s()
    assert tuple(stages) == STAGES[1:]
    assert sum(values for values in stages.values()) == pytest.approx(traces.total_s())
    assert stages["wait"] == pytest.approx(np.full(100, 0.008))


def test_a_goal_of_which_no_driver_told_is_not_counted() -> None:
    policy, arm = _said()
    traces = join(policy, arm[::2])
    assert len(traces.stamps_ns) == 100
    assert len(traces.total_s()) == 50
    assert len(join(policy, []).total_s()) == 0


def test_another_commands_word_is_not_taken() -> None:
    policy, arm = _said(off_ns=SAME_NS)
    assert len(join(policy, arm).total_s()) == 0


def test_an_incomplete_word_is_left_out() -> None:
    policy, arm = _said(3)
    partial = {key: value for key, value in policy[1][1].items() if key != "decode"}
    assert len(join([policy[0], (policy[1][0], partial), policy[2]], arm).stamps_ns) == 2


def test_uneven_goals_are_measured() -> None:
    policy, arm = _said()
    late = [(stamp, {**said, "bus": said["bus"] + 0.005 * (k == 50)})
            for k, (stamp, said) in enumerate(arm)]  # fmt: skip
    errors = join(policy, late).period_errors_s()
    assert np.sort(errors)[-2:] == pytest.approx([0.005, 0.005], abs=1e-6)
    assert np.sort(errors)[-3] < 1e-6


def test_the_table_names_every_stage() -> None:
    lines = latency_lines(join(*_said()), None)
    for stage in (*STAGES[1:], "camera to bus", "period, sent", "period, bus"):
        assert any(line.startswith(stage) for line in lines), stage
    whole = next(line for line in lines if line.startswith("camera to bus"))
    assert whole.split()[3:6] == ["27.0", "27.0", "27.0"]


def test_nothing_said_is_an_empty_table() -> None:
    assert len(latency_lines(join([], []), None)) > len(STAGES)
