# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Making whole bags of what a crash left behind, or setting it aside."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from koch_episodes.bag import metadata
from koch_episodes.bag.mcap_scan import Scan, scan
from koch_episodes.bag.mcap_writer import McapWriter
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.storage import Topic
from koch_episodes.bag.writer import PARTIAL, RECORD, RESERVE, sync_folder
from koch_episodes.errors import BagError
from koch_rig.yaml_source import SAFE_LOADER

QUARANTINE = "quarantine"


@dataclass(frozen=True)
class Repaired:
    """What became of a partial bag.

    Attributes:
        source: The partial folder.
        path: Where it is now.
        whole: A readable bag; else it was set aside.
        messages: Messages in it.
        detail: Readable line for log and screen.
    """

    source: Path
    path: Path
    whole: bool
    messages: int
    detail: str


def repair_all(root: Path, trash: Path) -> list[Repaired]:
    """Repair every ``*.partial`` folder in a root folder; what cannot be goes to quarantine.

    What only the disk prevents (full, read-only) stays where it is, for the next time. No one may
    be writing into them: the caller holds the root's lock.
    """
    results = []
    for folder in sorted(path for path in root.glob(f"*{PARTIAL}") if path.is_dir()):
        try:
            results.append(_repair_or_quarantine(folder, trash / QUARANTINE))
        except OSError as exc:
            why = f"{folder.name} cannot be repaired: {exc.strerror or exc}; it stays as it is"
            results.append(Repaired(folder, folder, False, 0, why))
    return results


def _repair_or_quarantine(folder: Path, where: Path) -> Repaired:
    try:
        return repair(folder)
    except BagError as exc:
        return quarantine(folder, where, str(exc))


def repair(folder: Path) -> Repaired:
    """Give a partial bag its index and metadata, and its name.

    Everything flushed before the crash is kept. The custom data get ``koch.repaired``.

    Raises:
        BagError: There is nothing to save.
        OSError: The disk does not let it.
    """
    (folder / RESERVE).unlink(missing_ok=True)
    files = sorted(folder.glob("*.mcap"))
    if not files:
        raise BagError(folder, "holds no .mcap file", "Nothing can be saved from it.")
    target = _free_name(folder.with_name(folder.name.removesuffix(PARTIAL)))
    if not (folder / metadata.FILE_NAME).is_file():
        messages, detail = _finish(files[0])
    else:  # the crash came between the last byte and the renaming
        messages, detail = scan_count(files[0]), "was whole already"
    if not messages:
        raise BagError(folder, "holds no message", "Nothing can be saved from it.")
    sync_folder(folder)
    folder.rename(target)
    sync_folder(target.parent)
    return Repaired(folder, target, True, messages, f"{target.name} {detail}")


def quarantine(folder: Path, where: Path, why: str) -> Repaired:
    """Set a folder aside, beside a file that says why."""
    where.mkdir(parents=True, exist_ok=True)
    target = _free_name(where / folder.name)
    folder.rename(target)
    (target / "reason.txt").write_text(why + "\n", encoding="utf-8")
    return Repaired(folder, target, False, 0, f"{folder.name} set aside: {why}")


def scan_count(path: Path) -> int:
    """Count the messages of a file."""
    return sum(scan(path, RECORD).counts.values())


def _finish(path: Path) -> tuple[int, str]:
    found = scan(path, RECORD)
    count = sum(found.counts.values()) + len(found.torn)
    if not count:
        raise BagError(path, "holds no message", "Nothing can be saved from it.")
    detail = (
        f"repaired: {count} messages kept, {len(found.torn)} of them from a torn chunk, "
        f"{found.size - found.place} bytes behind the last whole record"
    )
    if found.bad_chunks:
        detail += f", {found.bad_chunks} broken chunk(s) left out"
    custom = {**found.custom, "koch.repaired": detail}
    custom.setdefault("koch.outcome", "unlabelled")
    writer = McapWriter(path, existing=True)
    try:
        writer.adopt(
            found.place, found.schemas, found.channels, found.chunks, found.metadata, found.counts
        )
        for message in found.torn:
            writer.add_message(
                message.channel, message.data, message.log_ns, message.publish_ns, message.sequence
            )
        writer.flush()
        info = _information(path, found, custom, writer)
        writer.add_metadata(RECORD, custom)
        writer.add_metadata("rosbag2", {"serialized_metadata": metadata.dump(info).strip()})
        writer.finish()
    finally:
        writer.close()
    metadata.write(path.parent, info)
    return count, detail


def _information(
    path: Path, found: Scan, custom: Mapping[str, str], writer: McapWriter
) -> dict[str, object]:
    topics = [
        metadata.TopicRecord(
            Topic(name, kind),
            values.get("topic_type_hash", ""),
            _profiles(values.get("offered_qos_profiles", "")),
            writer.counts[number],
        )
        for number, (name, kind, values) in found.topics.items()
    ]
    return metadata.information(
        path.name, topics, custom, start_ns=writer.start_ns, end_ns=writer.end_ns
    )


def _profiles(text: str) -> tuple[OfferedQos, ...]:
    try:
        return tuple(
            OfferedQos(
                reliable=item["reliability"] == "reliable",
                latched=item["durability"] == "transient_local",
                depth=int(item["depth"]),
            )
            for item in yaml.load(text, Loader=SAFE_LOADER) or []
        )
    except (yaml.YAMLError, TypeError, KeyError, ValueError, struct.error):
        return ()


def _free_name(path: Path) -> Path:
    """The path, or the path with a number behind it where something is there."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_name(f"{path.name}_{number}")
    return candidate
