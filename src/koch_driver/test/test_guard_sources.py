# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A command stream plays what it was given, whenever it arrives."""

from koch_driver.guard.sources import CommandStream
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)


def test_a_command_that_arrives_while_the_cycle_runs_is_its_own_target():
    stream = CommandStream("teleop", 0.01)
    stream.put((0.1,) * J, stamp_s=5.0, arrival_s=5.001)
    assert stream.sample(5.0) == (0.1,) * J
