# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Takes a snapshot out of a bag or a recorded episode."""

from __future__ import annotations

from pathlib import Path

from koch_episodes.bag import open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_rig.rig import Rig
from koch_vla.errors import BagMomentError, EmptyBagError
from koch_vla.look.snapshot import GraphSnapshot, SnapshotBuilder


def snapshot_at(rig: Rig, path: Path, at_s: float | None, duration_s: float) -> GraphSnapshot:
    """Read the messages up to a moment of a bag.

    Args:
        rig: Says which topics there are.
        path: Bag folder or file.
        at_s: Seconds after the bag's first message; None for its end.
        duration_s: How long the paths before that moment are [s].

    Raises:
        BagError: There is no bag.
        EmptyBagError: It holds nothing of this rig.
        BagMomentError: It does not reach to that moment.
    """
    with open_bag(path) as bag:
        builder = SnapshotBuilder(rig, "")
        wanted = [topic for topic in builder.topics if topic in bag.topics]
        times = [message.log_ns for message in bag.messages(wanted)]
        if not times:
            raise EmptyBagError(path, sorted(builder.topics), sorted(bag.topics))
        start_ns, last_ns = min(times), max(times)
        end_ns = last_ns if at_s is None else start_ns + int(at_s * 1e9)
        if not start_ns <= end_ns <= last_ns:
            raise BagMomentError(path, at_s or 0.0, (last_ns - start_ns) / 1e9)
        offset_s = (end_ns - start_ns) / 1e9
        builder = SnapshotBuilder(rig, f"{bag.name} at {offset_s:.2f} s")
        decoder = TypeDecoder()
        for topic in wanted:
            decoder.add(bag.topics[topic])
        # A second of run-up, so that slow streams have a value at the beginning of the path.
        first_ns = end_ns - int((duration_s + 1.0) * 1e9)
        for message in bag.messages(wanted):
            if first_ns <= message.log_ns <= end_ns:
                kind = bag.topics[message.topic].type
                builder.add(message.topic, decoder.decode(kind, message.data))
        return builder.finish()
