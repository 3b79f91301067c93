# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The set point of an emulated servo on its way to a goal."""

import pytest

from koch_driver.emulator.profile import Profile


@pytest.mark.parametrize(("speed", "acceleration"), [(0.0, 0.0), (100.0, 0.0), (100.0, 500.0)])
def test_no_time_moves_nothing_and_later_it_arrives(speed: float, acceleration: float) -> None:
    profile = Profile(0.0)
    profile.aim(10.0, speed, acceleration, None)
    if speed:  # without limits the set point is at the goal at once
        profile.step(0.0)
        assert (profile.position, profile.velocity) == (0.0, 0.0)
    for _ in range(100):
        profile.step(0.01)
    assert profile.position == pytest.approx(10.0)
