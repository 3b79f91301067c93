# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch dataset` can be asked for; imports neither pyarrow nor FFmpeg, which the edits do."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.options import OptionError, OptionModel, option
from koch_core.registry import Registry
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.selection import NUMBERS_OR_EXPRESSION

if TYPE_CHECKING:
    from koch_episodes.dataset.edit.pieces import Plan

REST_S = 0.2  # that `trim --idle` leaves at an end


@dataclass(frozen=True, kw_only=True)
class OneDataset(OptionModel):
    """The dataset that is meant."""

    root: Path = option(..., "dataset folder", flags=("root",), metavar="DATASET")


@dataclass(frozen=True, kw_only=True)
class Info(OptionModel):
    """Look at datasets and bags."""

    roots: tuple[Path, ...] = option(
        ..., "dataset folders, bags, folders of bags", flags=("roots",), metavar="DATASET|BAG"
    )
    episodes: str | None = option(
        None, f"show what this selects: {NUMBERS_OR_EXPRESSION}", metavar="EPISODES"
    )
    json: bool = option(False, "as JSON, for programs")


@dataclass(frozen=True, kw_only=True)
class Doctor(OptionModel):
    """Look for demonstrations that would teach something wrong."""

    roots: tuple[Path, ...] = option(
        ...,
        "dataset folders, bags, folders of bags; all bags are compared with one another",
        flags=("roots",),
        metavar="DATASET|BAG",
    )
    report: Path | None = option(
        None, "page with curves and images of what was found", metavar="HTML"
    )
    images: bool = option(True, "decode some images of each episode")
    json: bool = option(False, "as JSON, for programs")


@dataclass(frozen=True, kw_only=True)
class EditOptions(OptionModel):
    """What all edits can be asked for."""

    dry_run: bool = option(False, "say what would be done, and write nothing")

    @property
    def replaces(self) -> bool:
        """Whether the result goes to the place of a dataset that is there."""
        return False


def real_folder(root: Path) -> Path:
    """Return a dataset's folder by its own name: where a link leads, and what `.` is called."""
    return root.resolve() if root.is_symlink() or root.name in ("", "..") else root


@dataclass(frozen=True, kw_only=True)
class Target(EditOptions, OneDataset):
    """Where the result of an edit of one dataset goes."""

    out: Path | None = option(None, "folder of the new dataset", metavar="DIR")
    in_place: bool = option(False, "put the new dataset in the place of DATASET, at once")

    @property
    def replaces(self) -> bool:
        """Whether the result goes to the place of a dataset that is there."""
        return self.in_place

    @property
    def folder(self) -> Path:
        """Folder of the new dataset.

        Raises:
            OptionError: Neither --out nor --in-place is given, or both are.
        """
        if self.in_place and self.out is not None:
            raise OptionError("--out", str(self.out), "nothing beside --in-place")
        if self.in_place:
            return real_folder(self.root)
        if self.out is None:
            raise OptionError("--out", None, "a folder for the new dataset, or --in-place")
        return self.out


@dataclass(frozen=True, kw_only=True)
class Markable(Target):
    """An edit that a bag can have as well: it is marked, and nothing of it is changed."""

    root: Path = option(
        ..., "dataset folder, bag, or folder of bags", flags=("root",), metavar="DATASET|BAG"
    )
    more: tuple[Path, ...] = option((), "more bags", flags=("more",), metavar="BAG")


@dataclass(frozen=True, kw_only=True)
class Undo(EditOptions):
    """Take back the last edit of bags."""

    roots: tuple[Path, ...] = option(
        ..., "bags, or folders of bags", flags=("roots",), metavar="BAG"
    )
    all: bool = option(False, "take back all edits")


@dataclass(frozen=True, kw_only=True)
class Trim(Markable):
    """Leave out frames at the ends of episodes. An episode without frames is an error."""

    episodes: str | None = option(None, f"{NUMBERS_OR_EXPRESSION} (default: all)")
    start: float = option(0.0, "seconds to cut off the begin", low=0.0, metavar="S")
    end: float = option(0.0, "seconds to cut off the end", low=0.0, metavar="S")
    keep: tuple[str, ...] = option(
        (), "what to keep of an episode, in seconds, like 3:0.5-7 (repeatable)", metavar="E:A-B"
    )
    idle: float | None = option(
        None,
        f"cut rests at the ends, in which no action moves, down to S seconds (default: {REST_S})",
        low=0.0,
        metavar="S",
        bare=REST_S,
    )


@dataclass(frozen=True, kw_only=True)
class Delete(Markable):
    """Leave episodes out. The others are numbered without holes."""

    episodes: str | None = option(None, NUMBERS_OR_EXPRESSION)
    outcome: tuple[str, ...] = option(
        (), "episodes that ended so (repeatable); with --episodes, those of them", metavar="LABEL"
    )


@dataclass(frozen=True, kw_only=True)
class Split(EditOptions, OneDataset):
    """Put each episode into at most one of several datasets."""

    into: tuple[str, ...] = option(
        ...,
        "name and share or episodes of a part, like train=0.8, val=0,3-5 or "
        "good=outcome == 'success' (repeatable); shares are taken in order",
        metavar="NAME=PART",
    )
    episodes: str | None = option(None, f"{NUMBERS_OR_EXPRESSION} (default: all)")
    out: Path | None = option(
        None, "folder of the parts (default: DATASET_NAME beside DATASET)", metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class Merge(EditOptions):
    """Join datasets that have the same features, rate and meaning."""

    roots: tuple[Path, ...] = option(
        ..., "dataset folders, in order", flags=("roots",), metavar="DATASET"
    )
    out: Path = option(..., "folder of the new dataset", metavar="DIR")


@dataclass(frozen=True, kw_only=True)
class Relabel(Markable):
    """Change task texts and outcomes. Tasks that no frame has any more are left out."""

    episodes: str | None = option(None, f"{NUMBERS_OR_EXPRESSION} (default: all)")
    task: str | None = option(None, "task text in place of all that they have", metavar="TEXT")
    rename: tuple[str, ...] = option(
        (), "one task text in place of another, as OLD=NEW (repeatable)", metavar="OLD=NEW"
    )
    outcome: str | None = option(
        None, "outcome: success, failure, a word of your own, or empty", metavar="LABEL"
    )


@dataclass(frozen=True, kw_only=True)
class Apply(Target):
    """Apply all pending edits of the console's page at once: trims, labels, deletions."""

    edits: Path | None = option(
        None, "list of edits (default: DATASET.edits.json beside DATASET)", metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class DropFeature(Target):
    """Leave columns and cameras out. The index columns stay."""

    feature: tuple[str, ...] = option(..., "key of a feature (repeatable)", metavar="KEY")


@dataclass(frozen=True, kw_only=True)
class Reencode(Target):
    """Encode the videos with another codec or other settings."""

    vcodec: Codec = option(Codec.H264, "video codec")
    crf: int | None = option(None, "constant rate factor (default: the codec's)", low=0, high=63)
    gop: int | None = option(None, "frames from key frame to key frame (default: 2)", low=1)
    preset: str | None = option(None, "speed preset of the encoder (default: the codec's)")


@dataclass(frozen=True, kw_only=True)
class RecomputeStats(Target):
    """Work out all statistics again from what the dataset holds."""


@dataclass(frozen=True, kw_only=True)
class Repair(Target):
    """Keep what is sound of a damaged dataset. Each thing that is not is named."""


@dataclass(frozen=True)
class Edit:
    """One kind of edit.

    Attributes:
        summary: One line of the help.
        options: What can be asked for; its docstring describes the edit.
        work: ``MODULE:FUNCTION`` that turns options into plans, imported when it is called:
            --help and a wrong word shall not wait for FFmpeg and pyarrow.
    """

    summary: str
    options: type[EditOptions]
    work: str

    def plans(self, options: Any) -> list[Plan]:
        """Return the datasets to be made."""
        work: Callable[[Any], list[Plan]] = pkgutil.resolve_name(self.work)
        return work(options)


#: Edits by the word of the command line.
EDITS: Registry[Edit] = Registry("edit of a dataset", "koch_vla.dataset_edits")

_EDITS = "koch_episodes.dataset.edit.edits"
EDITS.add(Edit("cut seconds or rests off the ends of episodes", Trim, f"{_EDITS}:trim"), "trim")
EDITS.add(Edit("leave episodes out", Delete, f"{_EDITS}:delete"), "delete")
EDITS.add(Edit("make several datasets of one", Split, f"{_EDITS}:split"), "split")
EDITS.add(Edit("put datasets one behind the other", Merge, f"{_EDITS}:merge"), "merge")
EDITS.add(Edit("change task texts and outcomes", Relabel, f"{_EDITS}:relabel"), "relabel")
EDITS.add(
    Edit("do all that is marked", Apply, "koch_episodes.dataset.edit.pending:apply"), "apply"
)
EDITS.add(
    Edit("leave features out, cameras too", DropFeature, f"{_EDITS}:drop_feature"), "drop-feature"
)
EDITS.add(Edit("encode the videos again", Reencode, f"{_EDITS}:reencode"), "reencode")
EDITS.add(
    Edit("work out all statistics again", RecomputeStats, f"{_EDITS}:recompute_stats"),
    "recompute-stats",
)
EDITS.add(
    Edit(
        "keep what is sound of a damaged dataset",
        Repair,
        "koch_episodes.dataset.edit.repair:repair",
    ),
    "repair",
)
