# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics of a rig go into an episode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from koch_episodes.goal_trace import ARM_TOPIC, POLICY_TOPIC
from koch_rig.arm_model import Role
from koch_rig.rig import Rig
from koch_rig.stream import Stream, StreamKind, camera_stream

#: How well a policy knew what was executed; once per chunk.
ENERGY_TOPIC = "policy/energy"
_STATE_DEPTH = 1000  # ten seconds of an arm
_IMAGE_DEPTH = 150  # five seconds of a camera
_SMALL_DEPTH = 300
_SHARED = ("/tf_static", "/diagnostics")
_SIMULATION = ("sim/block_pose", "sim/cup_pose", "sim/task_state", "sim/environment_state")


@dataclass(frozen=True)
class RecordedTopic:
    """A topic to record as soon as someone publishes it.

    Attributes:
        name: Relative to the recorder's namespace, unless it begins with a slash.
        depth: Messages that may wait while the recorder is busy.
        stream: The rig's stream that it is, or None.
        expected_hz: Nominal rate, 0 where the rig names none.
        state_of: The stream of which this topic says whether it is usable, or empty.
    """

    name: str
    depth: int
    stream: Stream | None = None
    expected_hz: float = 0.0
    state_of: str = ""


def topics_to_record(rig: Rig, extra: Sequence[str] = ()) -> list[RecordedTopic]:
    """List the topics: streams, info and state of cameras, descriptions, a simulation's truth.

    Args:
        rig: The rig.
        extra: More topic names.
    """
    found = [_stream(rig, stream) for stream in rig.streams.values()]
    for name in rig.cameras:
        stream = camera_stream(name)
        found.append(RecordedTopic(f"{stream}/camera_info", _IMAGE_DEPTH))
        found.append(RecordedTopic(f"{stream}/state", _SMALL_DEPTH, state_of=stream))
    names = ["robot_description", *(f"{arm}/robot_description" for arm in rig.arms), *_SHARED]
    followers = [arm.name for arm in rig.arms.values() if arm.role is Role.FOLLOWER]
    names += [POLICY_TOPIC, ENERGY_TOPIC, *(f"{arm}/{ARM_TOPIC}" for arm in followers)]
    if rig.simulation is not None:
        names += _SIMULATION
    names += [name for name in extra if name]
    known = {wanted.name for wanted in found}
    for name in names:
        if name not in known and name.lstrip("/") not in known:
            known.add(name)
            found.append(RecordedTopic(name, _SMALL_DEPTH))
    return found


def _stream(rig: Rig, stream: Stream) -> RecordedTopic:
    name, source = stream.topic.lstrip("/"), stream.content.source
    if source in rig.cameras and stream.kind is StreamKind.IMAGE:
        return RecordedTopic(name, _IMAGE_DEPTH, stream, float(rig.cameras[source].fps))
    if source in rig.arms:
        return RecordedTopic(name, _STATE_DEPTH, stream, float(rig.arms[source].rate_hz))
    return RecordedTopic(name, _STATE_DEPTH, stream)
