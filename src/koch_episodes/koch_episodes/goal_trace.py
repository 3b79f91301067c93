# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The way of a goal from the exposure of an image to the motors' bus, stage by stage. No ROS.

Two nodes know one half each and say it in a `koch_interfaces/NamedVector`, once per command of a
policy:

    policy/goal_trace       header.stamp: the command's; values [s] relative to it
    <arm>/command_trace     header.stamp: the command's; frame_id: its source; values likewise

Each value is the moment at which a stage ended, so that the difference of neighbours is what a
stage took, and all of them add up to the time from exposure to bus. Stamps may differ by less than
`SAME_NS`: the driver keeps them on its own clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from koch_core.stream import stamp_ns
from koch_core.terminal import Column, table
from koch_episodes.bag import open_bag
from koch_episodes.bag.types import TypeDecoder

POLICY_TOPIC = "policy/goal_trace"
ARM_TOPIC = "command_trace"
#: What the policy node knows of a goal: the stage that ends at each moment.
POLICY_STAGES = {
    "exposure": "the image's stamp: the beginning",
    "packet": "from the camera to the camera node's publisher",
    "topic": "to the policy node's middleware",
    "wait": "for the tick",
    "decode": "of the frame's images and joints",
    "assemble": "of the observation",
    "queue": "until the inference thread began",
    "compute": "of the chunk",
    "row": "until the chunk's row for the tick was due",
    "command": "published",
}
#: What the driver adds.
ARM_STAGES = {
    "guard": "the driver heard the command and its guard answered it",
    "bus": "the goal is written",
}
STAGES = (*POLICY_STAGES, *ARM_STAGES)
SAME_NS = 1_000_000
_FAR_S = 10.0
_NS = 1_000_000_000
_COLUMNS = (
    Column("stage"),
    Column("p50 ms", right=True),
    Column("p95 ms", right=True),
    Column("p99 ms", right=True),
    Column("what", rank=1),
)
Floats = npt.NDArray[np.float64]
Said = tuple[int, Mapping[str, float]]
"""Stamp of a command [ns], and moments relative to it [s] by stage."""


@dataclass(frozen=True, eq=False)
class GoalTraces:
    """The ways of many goals.

    Attributes:
        stamps_ns: Of the commands, ascending, shape (N,).
        exposed_s: When the image was exposed, after the stamp [s], shape (N,): negative.
        ends_s: When each stage ended after the exposure [s], shape (N, len(STAGES)); NaN from
            `guard` on where no driver told of the command.
    """

    stamps_ns: npt.NDArray[np.int64]
    exposed_s: Floats
    ends_s: Floats

    def stages_s(self) -> dict[str, Floats]:
        """What each stage took [s]; goals of which no driver told are left out."""
        known = self.ends_s[np.isfinite(self.ends_s).all(axis=1)]
        return {
            stage: known[:, place] - known[:, place - 1]
            for place, stage in enumerate(STAGES)
            if place
        }

    def total_s(self) -> Floats:
        """From exposure to bus [s]."""
        total = self.ends_s[:, -1]
        return total[np.isfinite(total)]

    def period_errors_s(self) -> Floats:
        """How far the distance of neighbouring goals on the bus is from the usual one [s]."""
        return _unevenness_s(self.stamps_ns + (self.ends_s[:, -1] + self.exposed_s) * _NS)

    def sent_errors_s(self) -> Floats:
        """The same of the moments at which commands were published [s]."""
        sent_s = self.ends_s[:, STAGES.index("command")] + self.exposed_s
        return _unevenness_s(self.stamps_ns + sent_s * _NS)


def _unevenness_s(moments_ns: Floats) -> Floats:
    known = moments_ns[np.isfinite(moments_ns)]
    if len(known) < 3:
        return np.zeros(0)
    gaps = np.diff(known) / _NS
    found: Floats = np.abs(gaps - np.median(gaps))
    return found


def join(policy: Iterable[Said], arm: Iterable[Said]) -> GoalTraces:
    """Put together what policy node and driver said.

    Args:
        policy: Of `policy/goal_trace`; incomplete ones are left out.
        arm: Of `<arm>/command_trace`, those of the source `policy`.
    """
    heard = sorted(arm, key=lambda said: said[0])
    stamps = np.array([stamp for stamp, _ in heard], dtype=np.int64)
    rows: dict[int, list[float]] = {}
    for stamp, moments in policy:
        if any(stage not in moments for stage in POLICY_STAGES):
            continue
        row = [moments[stage] for stage in POLICY_STAGES] + [float("nan")] * len(ARM_STAGES)
        place = int(np.searchsorted(stamps, stamp))
        for near in (place - 1, place):
            if 0 <= near < len(stamps) and abs(int(stamps[near]) - stamp) < SAME_NS:
                told = heard[near][1]
                row[-len(ARM_STAGES) :] = [told.get(stage, float("nan")) for stage in ARM_STAGES]
        if max(map(abs, row[: len(POLICY_STAGES)])) < _FAR_S:
            rows[stamp] = row
    ordered = sorted(rows)
    ends = np.array([rows[stamp] for stamp in ordered]).reshape(-1, len(STAGES))
    exposed = ends[:, 0]
    return GoalTraces(np.array(ordered, dtype=np.int64), exposed, ends - exposed[:, None])


def read_traces(path: Path) -> dict[str, GoalTraces]:
    """The ways of a bag's goals, by follower; empty where no policy ran.

    Raises:
        BagError: There is no readable bag.
        DecodeError: A message is broken.
    """
    types = TypeDecoder()
    policy: list[Said] = []
    arms: dict[str, list[Said]] = {}
    with open_bag(path) as bag:
        topics = [name for name in bag.topics if name.endswith((POLICY_TOPIC, ARM_TOPIC))]
        for name in topics:
            types.add(bag.topics[name])
        for message in bag.messages(topics):
            value = types.decode(bag.topics[message.topic].type, message.data)
            vector = dict(zip(value.name, map(float, value.value), strict=True))
            said = stamp_ns(value.header.stamp), vector
            if message.topic.endswith(POLICY_TOPIC):
                policy.append(said)
            elif value.header.frame_id == "policy":
                arms.setdefault(message.topic.strip("/").rpartition("/")[0], []).append(said)
    if not policy:
        return {}
    return {arm: join(policy, heard) for arm, heard in arms.items()} or {"": join(policy, [])}


def latency_lines(traces: GoalTraces, width: int | None) -> list[str]:
    """A table of what each stage took, the whole way, and how even the goals come."""
    rows = [
        [name, *_quantiles(values), what]
        for name, values, what in (
            *((n, v, {**POLICY_STAGES, **ARM_STAGES}[n]) for n, v in traces.stages_s().items()),
            ("camera to bus", traces.total_s(), "the whole way"),
            ("period, sent", traces.sent_errors_s(), "of commands: distance from the usual one"),
            ("period, bus", traces.period_errors_s(), "of goals that answer a command: the same"),
        )
    ]
    return table(_COLUMNS, rows, width)


def _quantiles(values_s: Floats) -> list[str]:
    if not len(values_s):
        return ["-", "-", "-"]
    return [f"{1e3 * float(value):.1f}" for value in np.quantile(values_s, [0.5, 0.95, 0.99])]
