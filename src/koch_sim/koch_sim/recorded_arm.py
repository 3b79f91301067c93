# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What an arm was commanded and did, out of a bag."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from koch_core.errors import DecodeError
from koch_core.stream import NS_PER_S
from koch_episodes import StampedBag, joint_vector, open_bag
from koch_episodes.errors import EpisodeError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from koch_rig.rig import Arm

#: Where commands or states are absent for longer, a recording falls apart, [s].
LONGEST_GAP_S = 0.15
_EXCITE = "Record with the driver running; 'koch identify --excite DIR' makes a motion for it."


@dataclass(frozen=True, eq=False)
class ArmRecording:
    """Commands and states of one arm on one clock.

    Attributes:
        name: Of the bag.
        command_s: Times of the commands, growing, (N,), [s].
        command_rad: Joint angles commanded, (N, J), [rad].
        state_s: Times of the states, growing, (M,), [s].
        state_rad: Joint angles measured, (M, J), [rad].
    """

    name: str
    command_s: NDArray[np.float64]
    command_rad: NDArray[np.float64]
    state_s: NDArray[np.float64]
    state_rad: NDArray[np.float64]

    @property
    def spans_s(self) -> list[tuple[float, float]]:
        """Where there are commands and states without a gap, begin and end, [s]."""
        spans = []
        first = max(self.command_s[0], self.state_s[0])
        last = min(self.command_s[-1], self.state_s[-1])
        holes = sorted(
            (float(times[k]), float(times[k + 1]))
            for times in (self.command_s, self.state_s)
            for k in np.flatnonzero(np.diff(times) > LONGEST_GAP_S)
        )
        begin = float(first)
        for hole_begin, hole_end in holes:
            if hole_begin > begin:
                spans.append((begin, min(hole_begin, float(last))))
            begin = max(begin, hole_end)
        spans.append((begin, float(last)))
        return [(low, high) for low, high in spans if high > low]


def read_recording(path: Path, arm: Arm) -> ArmRecording:
    """Read commands and states of an arm from a bag.

    Raises:
        EpisodeError: It has none, they are of another arm, or a value is not finite.
        BagError: It cannot be read.
    """
    command, state = f"/{arm.name}/joint_command", f"/{arm.name}/joint_states"
    times: dict[str, list[int]] = {command: [], state: []}
    values: dict[str, list[NDArray[np.float64]]] = {command: [], state: []}
    with open_bag(path) as bag:
        for topic in times:
            if topic not in bag.topics:
                raise EpisodeError(
                    bag.name, f"has no {topic}; it has {sorted(bag.topics)}", _EXCITE
                )
        for message in StampedBag(bag, list(times)).messages():
            stamps = times[message.topic]
            if stamps and message.stamp_ns <= stamps[-1]:
                continue
            try:
                vector = joint_vector(message.value.name, message.value.position, arm.model.joints)
            except DecodeError as exc:
                raise EpisodeError(bag.name, f"{message.topic}: {exc}") from exc
            stamps.append(message.stamp_ns)
            values[message.topic].append(vector)
        for topic, stamps in times.items():
            if len(stamps) < 2:
                raise EpisodeError(bag.name, f"{topic} has {len(stamps)} messages", _EXCITE)
    # Differences first: nanoseconds since 1970 do not fit into a double.
    zero_ns = min(stamps[0] for stamps in times.values())
    seconds = {
        topic: np.array([(stamp - zero_ns) / NS_PER_S for stamp in stamps])
        for topic, stamps in times.items()
    }
    return ArmRecording(
        path.name,
        seconds[command],
        np.array(values[command]),
        seconds[state],
        np.array(values[state]),
    )
