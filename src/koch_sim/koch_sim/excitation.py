# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A motion that tells much about an arm, as an episode of the lockstep simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from koch_sim.arm_body import CONTROL_PERIOD_S
from koch_sim.errors import SimulationError
from koch_sim.grasp import HOME_RAD
from koch_sim.lockstep import Lockstep
from koch_sim.recording import LockstepRecorder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from koch_rig.rig import Rig


#: Of the motion: how far each joint swings about home, [rad], and the turns per second that its
#: fast part reaches. Joints swing at once, at rates that are no multiples of each other.
_SWING_RAD = (0.5, 0.2, 0.25, 0.4, 0.45, 0.25)
_FASTEST_HZ = (1.3, 1.1, 1.5, 1.7, 1.4, 1.6)
_SLOWEST_HZ = 0.12
MOTION_S = 40.0
_ROUND_S = 10.0


def exciting_motion(home_rad: NDArray[np.float64], time_s: float) -> NDArray[np.float64]:
    """Return where the joints of the motion are at a time, (6,), [rad].

    In rounds of 10 s each joint goes from slow (friction, bias and play) to fast (gain, armature
    and delay) and back. The speed stays below 2.6 rad/s: fast swings are small.
    """
    place = time_s % _ROUND_S / _ROUND_S
    rise = 0.5 - 0.5 * np.cos(2.0 * np.pi * place)  # 0, 1 in the middle, 0
    result: NDArray[np.float64] = home_rad.copy()
    for joint, (swing_rad, fastest_hz) in enumerate(zip(_SWING_RAD, _FASTEST_HZ, strict=True)):
        span_hz = fastest_hz - _SLOWEST_HZ
        turned = _ROUND_S * _rise_integral(place) * span_hz + _SLOWEST_HZ * time_s
        turned += int(time_s / _ROUND_S) * _ROUND_S * 0.5 * span_hz
        narrowed = swing_rad * (1.0 - 0.6 * rise)
        begin = min(1.0, time_s / 2.0)
        result[joint] += begin * narrowed * np.sin(2.0 * np.pi * turned + joint)
    return result


def _rise_integral(place: float) -> float:
    """Integral of the rise from 0 to a place in a round, 0..1."""
    return float(0.5 * place - np.sin(2.0 * np.pi * place) / (4.0 * np.pi))


def record_excitation(rig: Rig, folder: Path) -> float:
    """Let the simulated arm make the motion, through the guard, and write it as an episode.

    Returns:
        How long it takes, [s].

    Raises:
        SimulationError: The rig has no simulated table.
        BagError: Something is in the folder already.
    """
    if not rig.has_simulated_table:
        raise SimulationError(
            f"{rig.path}: got a rig without a simulated table, expected `simulation: {{physics: "
            "mujoco}`, as in config/rig.sim.yaml."
        )
    lockstep = Lockstep(rig)
    recorder = LockstepRecorder(rig)
    arm = rig.follower.name
    lockstep.listen(recorder.hear, [f"{arm}/joint_states", f"{arm}/joint_command"])
    play(lockstep, exciting_motion, MOTION_S)
    lockstep.close()
    recorder.write(folder, "move every joint", 0, "success")
    return MOTION_S


def play(
    lockstep: Lockstep,
    motion: Callable[[NDArray[np.float64], float], NDArray[np.float64]],
    seconds: float,
) -> None:
    """Command a motion about home, by the world's time."""
    begin_s = lockstep.world.time_s
    while (now_s := lockstep.world.time_s - begin_s) < seconds:
        lockstep.command("policy", motion(HOME_RAD, now_s).tolist(), lockstep.time_ns)
        lockstep.run(CONTROL_PERIOD_S)
