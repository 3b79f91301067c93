# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The log of a driver: an emulated arm that is not there yet is waited for, a real one missed."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path

import pytest

from koch_driver.control_loop import Phase
from koch_driver.nodes.arm_setup import ArmSetup
from koch_driver.nodes.phase_log import log_phase
from koch_rig.rig import Role

RIG = Path(__file__).parents[3] / "config" / "rig.emulated.yaml"
REASON = "port /tmp/x does not exist. Serial ports of this computer:\n  none: is the cable in?"


@pytest.mark.parametrize(
    ("simulated", "phase", "level", "text"),
    [
        (
            True,
            Phase.CONNECTING,
            logging.INFO,
            "waiting for the emulated arm: port /tmp/x does not exist",
        ),
        (False, Phase.CONNECTING, logging.ERROR, f"connecting: {REASON}"),
        (True, Phase.FAULT, logging.ERROR, f"fault: {REASON}"),
        (True, Phase.RUNNING, logging.INFO, "running"),
    ],
)
def test_level_and_text_fit_phase_and_rig(
    simulated: bool, phase: Phase, level: int, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    setup = ArmSetup.load(str(RIG), "follower", Role.FOLLOWER)
    if not simulated:
        setup = dataclasses.replace(setup, rig=dataclasses.replace(setup.rig, simulation=None))
    log_phase(logging.getLogger("driver"), setup, phase, REASON)
    assert caplog.record_tuples == [("driver", level, f"follower: {text}")]
