# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A recorded motion of one arm, read from a bag or a dataset. No ROS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError
from koch_core.stream import NS_PER_S
from koch_core.wording import listed
from koch_episodes.bag import is_bag, open_bag
from koch_episodes.bag.stamped import StampedBag
from koch_episodes.decode import joint_vector
from koch_episodes.errors import EpisodeError
from koch_rig.action_layout import ACTION_SPACES, ActionLayout
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.joints import model_of
from koch_rig.rig import Rig
from koch_rig.units import JointUnits, Units

if TYPE_CHECKING:
    from koch_episodes.dataset.format import Episode

ACTION = "action"
_JOINT_STATE = "sensor_msgs/msg/JointState"
_LARGEST_HOLE_S = 0.5
Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Motion:
    """Joint positions over time.

    Attributes:
        name: Where it comes from, for messages.
        times_s: Strictly increasing, first one 0, shape (N,), [s].
        positions_rad: In the order of `joints`, shape (N, J), [rad].
        joints: Their plain names.
        notes: What was passed over in the recording, for the user.
    """

    name: str
    times_s: Array
    positions_rad: Array
    joints: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check what a motion must be.

        Raises:
            EpisodeError: Too short, not finite, times not increasing, or a hole in it.
        """
        if len(self.times_s) < 2:
            raise EpisodeError(self.name, f"holds {len(self.times_s)} poses", "Two are needed.")
        if not (np.isfinite(self.positions_rad).all() and np.isfinite(self.times_s).all()):
            raise EpisodeError(self.name, "holds values that are not finite")
        steps = np.diff(self.times_s)
        if steps.min() <= 0.0:
            raise EpisodeError(self.name, "holds stamps that do not increase")
        if steps.max() > _LARGEST_HOLE_S:
            place = int(steps.argmax())
            raise EpisodeError(
                self.name,
                f"has a hole of {steps[place]:.2f} s at {self.times_s[place]:.2f} s",
                "Replay a part of it with --from-s and --to-s.",
            )

    @property
    def duration_s(self) -> float:
        """Length in [s]."""
        return float(self.times_s[-1])

    def at(self, time_s: float) -> Array:
        """The pose at a time, linear between samples, the ends' poses outside; shape (J,)."""
        columns = range(self.positions_rad.shape[1])
        return np.array(
            [np.interp(time_s, self.times_s, self.positions_rad[:, c]) for c in columns]
        )


def _motion(
    name: str,
    times: Array,
    positions: Array,
    joints: tuple[str, ...],
    from_s: float,
    to_s: float,
) -> Motion:
    """Cut a part out and let it begin at zero."""
    times = times - times[0] if len(times) else times
    inside = (times >= from_s) & (times <= to_s)
    times, positions = times[inside], positions[inside]
    return Motion(name, times - times[0] if len(times) else times, positions, joints)


def load_motion(
    path: Path,
    *,
    arm: str | None = None,
    episode: int | str = 0,
    rig: Rig | None = None,
    units: Units | None = None,
    from_s: float = 0.0,
    to_s: float = float("inf"),
) -> tuple[str, Motion]:
    """Read what was commanded in an episode.

    Args:
        path: Bag folder or file, or dataset folder.
        arm: Follower's name; None: the only one in the bag, or the rig's.
        episode: Episode of a dataset: its number, or an expression that selects it.
        rig: For datasets in LeRobot's units: whose calibration applies.
        units: Units of a dataset; None: what its meta/koch.json says, else LeRobot's.
        from_s: First time wanted, [s] from the beginning.
        to_s: Last time wanted, [s] from the beginning.

    Returns:
        The arm's name and the motion.

    Raises:
        KochError: It cannot be read or replayed.
    """
    if (path / "meta/info.json").is_file():
        if rig is None:
            raise EpisodeError(str(path), "is a dataset", "Give --rig, whose calibration applies.")
        name = arm or rig.follower.name
        return name, _from_dataset(path, episode, rig, name, units, from_s, to_s)
    if isinstance(episode, str):
        raise EpisodeError(str(path), "is no dataset", "Leave --episodes out.")
    if not is_bag(path):
        raise EpisodeError(str(path), "is neither a bag nor a LeRobot dataset")
    return _from_bag(path, arm, from_s, to_s)


def _from_bag(path: Path, arm: str | None, from_s: float, to_s: float) -> tuple[str, Motion]:
    with open_bag(path) as bag:
        states = {t.name for t in bag.topics.values() if t.type == _JOINT_STATE}
        commanded = sorted(name for name in states if name.endswith("/joint_command"))
        topic = f"/{arm}/joint_command" if arm else (commanded or [""])[0]
        if not arm and len(commanded) > 1:
            raise EpisodeError(
                bag.name, f"moves several arms ({', '.join(commanded)})", "Choose one with --arm."
            )
        if arm and topic not in states:
            topic = f"/{arm}/joint_states"  # recorded without commands: the measured path
        if topic not in states:
            raise EpisodeError(
                bag.name,
                f"holds no joint commands; it has {sorted(states)}",
                "Choose an arm with --arm.",
            )
        stamped = StampedBag(bag, [topic])
        times: list[int] = []
        poses: list[Array] = []
        joints = KOCH_V1_1.joints
        for message in stamped.messages():
            try:
                if not poses:
                    joints = (model_of(message.value.name) or KOCH_V1_1).joints
                pose = joint_vector(message.value.name, message.value.position, joints)
            except DecodeError as exc:
                raise EpisodeError(bag.name, f"{topic}: {exc}") from exc
            if not times or message.stamp_ns > times[-1]:
                times.append(message.stamp_ns)
                poses.append(pose)
    # Differences first: nanoseconds since 1970 do not fit into a double.
    seconds = np.array([(stamp - times[0]) / NS_PER_S for stamp in times], dtype=np.float64)
    positions = np.array(poses, dtype=np.float64).reshape(len(poses), len(joints))
    motion = _motion(path.name, seconds, positions, joints, from_s, to_s)
    return topic.split("/")[-2], replace(motion, notes=tuple(stamped.notes))


def _only(chosen: Sequence[Episode], text: str, path: Path) -> Episode:
    if len(chosen) > 1:
        numbers = listed([str(each.index) for each in chosen])
        why = f"has {len(chosen)} episodes that --episodes {text!r} selects ({numbers})"
        raise EpisodeError(str(path), why, "One can be replayed: add 'and index == N'.")
    return chosen[0]


def _from_dataset(
    path: Path,
    episode: int | str,
    rig: Rig,
    arm: str,
    units: Units | None,
    from_s: float,
    to_s: float,
) -> Motion:
    from koch_episodes.dataset.recorded import STATE, RecordedDataset, is_unnamed

    data = RecordedDataset(path)
    if isinstance(episode, str):
        row = _only(data.reader.chosen(episode), episode, path)
    else:
        row = data.reader.episode_numbered(episode)
    name = f"{path.name}, episode {row.index}"
    _, names = data.vectors([ACTION])
    if is_unnamed(names):
        raise EpisodeError(name, "does not name its actions", "Name them in meta/info.json.")
    # A dataset of two arms carries the arm in front of its joints' names, as LeRobot's do.
    known = rig.arm(arm)
    joints = known.model.joints
    chosen = Units(data.units(None if units is None else units.value) or Units.LEROBOT.value)
    layout, converter = ActionLayout.of([(arm, joints)]), JointUnits.for_arm(known)
    codec = ACTION_SPACES[data.made.action_space].codec(layout, {arm: converter}, chosen)
    prefix = f"{arm}_" if any(each.startswith(f"{arm}_") for each in names) else ""

    def rows(key: str, wanted: Sequence[str]) -> Array:
        values = data.ordered([key], [f"{prefix}{each}" for each in wanted])
        return values[row.from_index : row.to_index].astype(np.float64)

    start = rows(STATE, joints)[0] if codec.space.needs_state else None
    decoded = codec.decode(rows(ACTION, codec.names), start)
    if decoded.trouble is not None:
        raise EpisodeError(name, str(decoded.trouble), "Replay the bag it was converted from.")
    times = np.arange(len(decoded.rows), dtype=np.float64) / data.fps
    return _motion(name, times, decoded.rows, joints, from_s, to_s)
