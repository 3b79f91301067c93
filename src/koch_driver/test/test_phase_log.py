# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The log of a driver: an emulated arm that is not there yet is waited for, a real one missed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from koch_driver.arm.control_loop import LoopPhase
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.phase_log import PhaseLog
from koch_rig.rig import Role

RIG = Path(__file__).parents[3] / "config" / "rig.emulated.yaml"
REASON = "port /tmp/x does not exist. Serial ports of this computer:\n  none: is the cable in?"


def setup(simulated: bool) -> ArmSetup:
    made = ArmSetup.load(str(RIG), "follower", Role.FOLLOWER)
    if simulated:
        return made
    return dataclasses.replace(made, rig=dataclasses.replace(made.rig, simulation=None))


@pytest.mark.parametrize(
    ("simulated", "phase", "level", "text"),
    [
        (
            True,
            LoopPhase.CONNECTING,
            logging.INFO,
            "waiting for the emulated arm: port /tmp/x does not exist",
        ),
        (False, LoopPhase.CONNECTING, logging.ERROR, f"connecting: {REASON}"),
        (True, LoopPhase.FAULT, logging.ERROR, f"fault: {REASON}"),
        (True, LoopPhase.RUNNING, logging.INFO, "running"),
    ],
)
def test_level_and_text_fit_phase_and_rig(
    simulated: bool, phase: LoopPhase, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    PhaseLog(logging.getLogger("driver"), setup(simulated)).note(phase, REASON)
    assert caplog.record_tuples == [("driver", level, f"follower: {text}")]


def test_what_keeps_an_emulated_arm_away_for_long_is_said_whole_and_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    clock = iter([100.0, 100.0, 101.0, 105.0, 109.9, 110.1, 110.1, 200.0, 200.0])
    log = PhaseLog(logging.getLogger("driver"), setup(True), lambda: next(clock))
    log.note(LoopPhase.CONNECTING, "port /tmp/x does not exist. Look there.")
    for _ in range(3):
        log.tick()
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    for _ in range(3):
        log.tick()
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.ERROR]
    words = "no emulated arm for 10 s: port /tmp/x does not exist. Look there."
    assert words in caplog.text
    log.note(LoopPhase.CONNECTING, "wrong servo models on /tmp/x")
    assert caplog.records[-1].levelno == logging.ERROR, "patience has ended"
    assert "wrong servo models" in caplog.text


def test_an_arm_that_came_is_not_said_to_be_away(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now_s = 0.0
    log = PhaseLog(logging.getLogger("driver"), setup(True), lambda: now_s)
    log.note(LoopPhase.CONNECTING, REASON)
    log.note(LoopPhase.RUNNING, "")
    now_s = 60.0
    log.tick()
    assert [record.levelno for record in caplog.records] == [logging.INFO, logging.INFO]
