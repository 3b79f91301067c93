# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of koch_episodes; every leaf builds its own message."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Mapping
from pathlib import Path

from koch_core.errors import KochError
from koch_core.options import OptionError as OptionError


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "(none)"


class BagError(KochError):
    """A bag cannot be read at all."""

    def __init__(self, path: Path, why: str, advice: str) -> None:
        super().__init__(f"Bag {path}: {why}. {advice}")
        self.path = path


class StorageError(KochError):
    """The recorder cannot write bags as its parameter says."""

    def __init__(self, name: str, expected: str, advice: str) -> None:
        super().__init__(
            f"Parameter storage: got {name!r}, expected {expected}. {advice}".rstrip()
        )


class MessageTypeError(KochError):
    """A topic carries a type that cannot be decoded or does not suit the feature."""

    def __init__(self, topic: str, got: str, expected: str) -> None:
        super().__init__(
            f"Topic {topic} has type {got}, expected {expected}. "
            "Choose another topic for this feature in the rig or the --map file."
        )


class MissingTopicError(KochError):
    """A bag lacks topics that the mapping needs."""

    def __init__(
        self,
        path: Path,
        missing: Iterable[str],
        present: Iterable[str],
        foreign: Mapping[str, str],
    ) -> None:
        topics = [f"{name} ({form} messages, ROS 2 has cdr)" for name, form in foreign.items()]
        super().__init__(
            f"Bag {path} lacks the topic(s) {_listed(missing)}; it holds "
            f"{_listed([*present, *topics])}. Record them, or name the right ones with --map."
        )


class MappingError(KochError):
    """The feature mapping (rig or --map file) is wrong."""

    def __init__(self, where: str, got: object, expected: str) -> None:
        super().__init__(f"Mapping {where}: got {got!r}, expected {expected}.")


class EpisodeError(KochError):
    """One episode cannot be converted; the others go on."""

    def __init__(self, episode: str, why: str, advice: str = "") -> None:
        super().__init__(f"Episode {episode}: {why.rstrip('.')}. {advice}".rstrip())


class DatasetError(EpisodeError):
    """A dataset cannot be learnt from or replayed."""

    def __init__(self, where: str, what: str, advice: str) -> None:
        KochError.__init__(self, f"{where}: {what}. {advice}")


class DatasetFormatError(KochError):
    """A dataset on disk does not follow the LeRobot layout."""

    def __init__(self, where: Path | str, got: object, expected: str) -> None:
        super().__init__(
            f"Dataset {where}: got {got}, expected {expected}. "
            "'koch inspect --validate' lists everything that is wrong with it."
        )


class DatasetWriteError(KochError):
    """A frame or episode does not fit the dataset being written."""

    def __init__(self, where: str, got: object, expected: str) -> None:
        super().__init__(f"Writing {where}: got {got}, expected {expected}.")


class DatasetEditError(KochError):
    """An edit of a dataset makes no sense, or would lose something."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f"{what}. {advice}")


class OutputExistsError(KochError):
    """The output folder is there already."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"Output {path} exists already. Choose another --out, add to it with --append, "
            "or remove it yourself."
        )


class WorkersError(KochError):
    """Workers are converting to the output."""

    def __init__(self, lease: Path) -> None:
        super().__init__(
            f"{lease}: a worker is at this bag, and a new conversion would remove what it makes. "
            "End the workers, or give --resume to join what they convert."
        )


class OutputUnwritableError(KochError):
    """The output cannot be written (rights, full disk)."""

    def __init__(self, path: Path, cause: OSError) -> None:
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "Free space" if full else "Give yourself the right to write there"
        super().__init__(
            f"Output {path} cannot be written: {cause.strerror or cause}. {advice}, or choose "
            "another --out; finished episodes are kept and --resume goes on from them."
        )


class VideoError(KochError):
    """Video encoding, joining or decoding failed."""

    def __init__(self, where: Path | str, why: str) -> None:
        super().__init__(f"Video {where}: {why}.")
