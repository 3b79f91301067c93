# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Recorded episodes as ticks: frames of a dataset, or a bag assembled as the live node does.

Also what a bag tells about a policy that ran while it was recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.frame import Missing
from koch_core.stream import stamp_ns
from koch_episodes.decode import sample_reader
from koch_policy.chunks import Grid
from koch_policy.chunks.seams import SeamStatistics, seams_of_messages
from koch_policy.dataset_view import DatasetView
from koch_policy.errors import DatasetError
from koch_policy.execution.compatibility import action_layout, check_policy
from koch_policy.execution.observation import ObservationBuilder
from koch_policy.offline import Tick
from koch_policy.policy import Policy
from koch_policy.shadow import CommandedActions
from koch_rig.rig import Rig
from koch_rig.units import JointUnits

_NS = 1_000_000_000
_SETTLE_NS = _NS // 5  # a tick is looked at when the bag is this much further


def dataset_ticks(
    path: Path, episode: int, policy: Policy, convert: Callable[[Any], NDArray[np.float64]]
) -> Iterator[Tick]:
    """The frames of one episode of a LeRobot dataset.

    Args:
        path: Dataset folder.
        episode: Its `episode_index`.
        policy: Tells the inputs.
        convert: From the dataset's units to those of the replay.

    Raises:
        DatasetError: The dataset does not fit the policy; see `DatasetView`.
    """
    view = DatasetView(path, policy.config, policy.extras, getattr(policy, "rename", {}))
    row = view.data.reader.episode_numbered(episode)
    return _view_ticks(view, range(row.from_index, row.to_index), convert)


def _view_ticks(
    view: DatasetView, rows: range, convert: Callable[[Any], NDArray[np.float64]]
) -> Iterator[Tick]:
    for index in rows:
        yield Tick(partial(view.observation, index), convert(view.actions[index]))


def bag_ticks(
    path: Path,
    rig: Rig,
    policy: Policy,
    units: dict[str, JointUnits],
    say: Callable[[str], None] = print,
) -> Iterator[Tick]:
    """The ticks of a bag, assembled as the live node assembles them.

    Raises:
        MismatchError: The policy does not fit the rig, as when it runs live.
        EpisodeError: The bag's stamps cannot be followed; see `StampedBag`.
    """
    from koch_episodes.bag import open_bag
    from koch_episodes.bag.stamped import StampedBag

    check_policy(policy, rig, str(path), allow=True)
    builder = ObservationBuilder(policy, rig, units)
    actions = CommandedActions.of_rig(rig, action_layout(policy, rig))
    buffers = {buffer.name: buffer for buffer in actions.buffers.values()}
    topics = {rig.streams[name].topic: name for name in {*builder.streams, *buffers}}
    types = {name: rig.streams[name].content.message_type for name in topics.values()}
    read = {name: sample_reader(kind) for name, kind in types.items()}
    with open_bag(path) as bag:
        missing = sorted(set(topics) - set(bag.topics))
        if missing:
            raise DatasetError(str(path), f"lacks {', '.join(missing)}", "Record these topics.")
        task = bag.marks.over(bag.custom).get("koch.task") or rig.task
        states = {f"/{name}/state": name for name in builder.streams}
        stamped = StampedBag(bag, {*topics, *(states.keys() & set(bag.topics))})
        for line in stamped.notes:
            say(line)
        grid: Grid | None = None
        tick = 0
        for message in stamped.messages():
            stamp, value = message.stamp_ns, message.value
            if message.topic in states:
                since_ns = stamp_ns(value.since)
                reason = "" if value.usable else value.reason
                builder.mark(states[message.topic], since_ns, reason)
                continue
            name = topics[message.topic]
            sample = read[name](value)
            if name in buffers:
                buffers[name].push(stamp, sample)
            if name in builder.streams:
                builder.push(name, stamp, sample)
            grid = grid or Grid(stamp, float(rig.fps))
            while grid.time_ns(tick) + _SETTLE_NS <= stamp:
                yield _bag_tick(tick, grid.time_ns(tick), builder, actions, task)
                tick += 1


def seams_of_bag(path: Path) -> dict[str, SeamStatistics]:
    """Recompute the smoothness at the chunks' seams from a bag of a running policy.

    Args:
        path: A bag with `.../command/policy` and `policy/action_chunk`, in any namespace, for
            instance of `ros2 bag record -a`.

    Returns:
        Statistics per strategy that ran.

    Raises:
        DatasetError: The bag lacks one of the topics, or holds several policies.
    """
    from koch_episodes.bag import open_bag
    from koch_episodes.bag.stamped import StampedBag

    with open_bag(path) as bag:
        wanted = {}
        for suffix in ("/command/policy", "/policy/action_chunk"):
            found = [name for name in bag.topics if name.endswith(suffix)]
            if len(found) != 1:
                got = ", ".join(found) or "none"
                raise DatasetError(
                    str(path), f"needs one topic ...{suffix}, has {got}", "Record both topics."
                )
            wanted[found[0]] = suffix
        commands: list[tuple[int, tuple[float, ...]]] = []
        chunks: list[tuple[str, int, int, float]] = []
        for message in StampedBag(bag, wanted).messages():
            value = message.value
            if wanted[message.topic] == "/command/policy":
                commands.append((message.stamp_ns, tuple(map(float, value.position))))
            else:
                first = stamp_ns(value.first_step_time)
                chunks.append((value.strategy, first, int(value.entry_index), float(value.step_s)))
    return _per_strategy(sorted(commands), chunks)


def _per_strategy(
    commands: list[tuple[int, tuple[float, ...]]], chunks: list[tuple[str, int, int, float]]
) -> dict[str, SeamStatistics]:
    """Give each command to the strategy of the newest chunk that had begun by then."""
    chunks = sorted(chunks, key=lambda chunk: chunk[1] + chunk[2] * chunk[3] * _NS)
    due = np.array([first + entry * step_s * _NS for _, first, entry, step_s in chunks])
    newest = np.searchsorted(due, [stamp + _NS // 1000 for stamp, _ in commands], "right") - 1
    result = {}
    for strategy in dict.fromkeys(chunk[0] for chunk in chunks):
        mine = [chunk for chunk in chunks if chunk[0] == strategy]
        said = [
            c for c, n in zip(commands, newest, strict=True) if chunks[max(n, 0)][0] == strategy
        ]
        result[strategy] = seams_of_messages(said, [each[1:3] for each in mine], mine[0][3])
    return result


def _bag_tick(
    tick: int, time_ns: int, builder: ObservationBuilder, actions: CommandedActions, task: str
) -> Tick:
    gone: Missing | None = (
        builder.observe(tick, time_ns) if builder.has_history else builder.missing(time_ns)
    )
    action = actions.at(time_ns)

    def observe() -> dict[str, Any]:
        builder.observe(tick, time_ns)
        return builder.observation(tick, task)

    return Tick(observe, action, "" if gone is None else str(gone))
