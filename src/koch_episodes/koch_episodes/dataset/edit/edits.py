# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The edits: each turns its options into plans of new datasets, and touches no file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.options import OptionError
from koch_episodes.convert.options import check_encoder
from koch_episodes.dataset.edit.options import (
    Delete,
    DropFeature,
    Merge,
    RecomputeStats,
    Reencode,
    Relabel,
    Split,
    Target,
    Trim,
    real_folder,
)
from koch_episodes.dataset.edit.pieces import (
    Piece,
    Plan,
    StatsFrom,
    chosen,
    features_of,
    whole,
)
from koch_episodes.dataset.edit.source import SourceDataset
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.layout import DEFAULT_FEATURES, KOCH, Codec, FeatureSpec
from koch_episodes.dataset.load import column_array
from koch_episodes.dataset.video import VideoSettings
from koch_episodes.errors import DatasetEditError
from koch_rig.action_layout import JOINT

_STILL = 0.01  # of the widest motion of an element, as in `koch convert --trim-idle`
_SHARE = re.compile(r"-?\d*\.\d*")  # a number without a point names an episode
_DEPTH_FACTS = (
    "depth_unit", "video.depth_min", "video.depth_max", "video.shift", "video.use_log",
)  # fmt: skip
_MADE_ALIKE = ("fingerprint", "units", "action_from", "delta_actions")


def _plan(target: Target, source: SourceDataset, pieces: Sequence[Piece], *told: str) -> Plan:
    return Plan(target.folder, features_of(source), pieces, list(told))


def _list(episodes: Sequence[Episode]) -> str:
    shown = ", ".join(str(episode.index) for episode in episodes[:12])
    return shown + (f" and {len(episodes) - 12} more" if len(episodes) > 12 else "")


# -- trim -------------------------------------------------------------------------------------


def trim(options: Trim) -> list[Plan]:
    """Leave out frames at the ends of episodes; an episode of no frames is an error."""
    source = SourceDataset(options.root)
    if not (options.start or options.end or options.keep or options.idle is not None):
        raise DatasetEditError("trim: nothing to cut", "Give --start, --end, --keep or --idle.")
    mine = {episode.index for episode in chosen(source, options.episodes)}
    kept: dict[int, tuple[int, int]] = {}
    for word in options.keep:
        number, span = _kept(source, word)
        if kept.setdefault(number, span) != span:
            raise OptionError("--keep", word, f"one part of episode {number}")
    if options.keep and options.episodes is None and not (options.start or options.end):
        mine = set(kept) if options.idle is None else mine
    pieces, told = [], []
    for episode in source.episodes:
        piece = whole(source, episode)
        if episode.index in mine:
            piece = _trimmed(piece, options, kept.get(episode.index))
        if piece.length < 1:
            seconds = episode.length / source.info.fps
            raise DatasetEditError(
                f"trim: nothing is left of episode {episode.index}, which has {seconds:g} s",
                f"Leave it out with 'koch dataset delete --episodes {episode.index}'.",
            )
        if not piece.is_whole:
            told.append(
                f"episode {episode.index}: frames {piece.start} to {piece.stop - 1} of "
                f"{episode.length} are kept"
            )
        pieces.append(piece)
    return [_plan(options, source, pieces, *told)]


def _kept(source: SourceDataset, word: str) -> tuple[int, tuple[int, int]]:
    number, begin, end = keep_of(word)
    (episode,) = chosen(source, number, option="--keep")
    fps = source.info.fps
    last = episode.length if end is None else min(round(end * fps), episode.length)
    return episode.index, (round(begin * fps), last)


def keep_of(word: str) -> tuple[str, float, float | None]:
    """Return number, first and last second of a text like ``3:0.5-7``; None: to the end."""
    number, _, span = word.partition(":")
    begin, _, end = span.partition("-")
    try:
        found = int(number), float(begin or 0), float(end) if end else None
    except ValueError as exc:
        raise OptionError("--keep", word, "EPISODE:FROM-TO in seconds, like 3:0.5-7") from exc
    if not all(math.isfinite(second or 0.0) for second in found):
        raise OptionError("--keep", word, "EPISODE:FROM-TO in seconds, like 3:0.5-7")
    return number, *found[1:]


def _trimmed(piece: Piece, options: Trim, kept: tuple[int, int] | None) -> Piece:
    fps = piece.source.info.fps
    start = round(options.start * fps)
    stop = piece.episode.length - round(options.end * fps)
    if kept is not None:
        start, stop = max(start, kept[0]), min(stop, kept[1])
    if options.idle is not None:
        first, last = moving_frames(piece.source, piece.episode, round(options.idle * fps))
        start, stop = max(start, first), min(stop, last)
    return replace(piece, start=start, stop=stop)


def moving_frames(source: SourceDataset, episode: Episode, rest: int) -> tuple[int, int]:
    """Return the frames between the first and last motion of an action, and some at rest."""
    keys = [k for k, s in source.features.items() if k.startswith("action") and s.is_numeric]
    if not keys:
        return 0, episode.length
    rows = source.rows(episode, keys)
    columns = [
        column_array(rows[key], source.features[key].shape).reshape(episode.length, -1)
        for key in keys
    ]
    return moving_span(np.concatenate(columns, axis=1).astype(np.float64), rest)


def moving_span(actions: npt.NDArray[np.float64], rest: int) -> tuple[int, int]:
    """Return the frames between the first and last motion, and some at rest; all if none moves.

    Args:
        actions: Shape (T, N).
        rest: Count of frames at rest that stay at either end.
    """
    widest = float(np.ptp(actions, axis=0).max(initial=0.0))
    steps = np.abs(np.diff(actions, axis=0)).max(axis=1, initial=0.0)
    moving = np.flatnonzero(steps > _STILL * widest)
    if not len(moving):
        return 0, len(actions)
    return max(0, int(moving[0]) - rest), min(len(actions), int(moving[-1]) + 2 + rest)


# -- delete, split, merge -----------------------------------------------------------------------


def delete(options: Delete) -> list[Plan]:
    """Leave episodes out; the others are numbered without holes."""
    source = SourceDataset(options.root)
    if options.episodes is None and not options.outcome:
        raise DatasetEditError("delete: no episodes named", "Give --episodes or --outcome.")
    gone = chosen(source, options.episodes)
    if options.outcome:
        gone = [episode for episode in gone if episode.outcome in options.outcome]
    numbers = {episode.index for episode in gone}
    left = [whole(source, e) for e in source.episodes if e.index not in numbers]
    if not left:
        raise DatasetEditError("delete: no episode would be left", "Remove the folder yourself.")
    return [_plan(options, source, left, f"left out: episodes {_list(gone) or '(none)'}")]


def split(options: Split) -> list[Plan]:
    """Put each episode into at most one of several datasets."""
    source = SourceDataset(options.root)
    mine = chosen(source, options.episodes)
    numbers = {episode.index for episode in mine}
    parts: dict[str, list[Episode]] = {}
    rest, taken = 0.0, 0
    for word in options.into:
        name, _, part = word.partition("=")
        if name in ("", ".", "..") or not part or name in parts or "/" in name:
            raise OptionError("--into", word, "NAME=SHARE or NAME=EPISODES, each name once")
        if not _SHARE.fullmatch(part):
            named = chosen(source, part, option="--into")
            parts[name] = [episode for episode in named if episode.index in numbers]
            continue
        try:
            rest += float(part)
        except ValueError as exc:
            raise OptionError("--into", word, "a share like 0.8") from exc
        if not 0 < float(part) < 1 or rest > 1 + 1e-9:
            raise OptionError("--into", word, "shares between 0 and 1, not above 1 together")
        stop = round(rest * len(mine))
        parts[name], taken = mine[taken:stop], stop
    _check_apart(parts)
    root, plans = real_folder(options.root), []
    for name, episodes in parts.items():
        out = options.out / name if options.out else root.with_name(f"{root.name}_{name}")
        pieces = [whole(source, episode) for episode in episodes]
        plans.append(
            Plan(out, features_of(source), pieces, [f"{name}: episodes {_list(episodes)}"])
        )
    return plans


def _check_apart(parts: Mapping[str, Sequence[Episode]]) -> None:
    owners: dict[int, str] = {}
    for name, episodes in parts.items():
        if not episodes:
            raise DatasetEditError(f"split: {name} would have no episodes", "Give it more.")
        for episode in episodes:
            if owners.setdefault(episode.index, name) != name:
                raise DatasetEditError(
                    f"split: episode {episode.index} is in {owners[episode.index]} and in {name}",
                    "Give either shares or episodes for all parts.",
                )


def merge(options: Merge) -> list[Plan]:
    """Join datasets that have the same features, rate and meaning."""
    sources = [SourceDataset(root) for root in options.roots]
    first = sources[0]
    for other in sources[1:]:
        _check_alike(first, other)
    pieces = [whole(source, episode) for source in sources for episode in source.episodes]
    told = [f"{source.root}: {len(source.episodes)} episodes" for source in sources]
    silent = [str(source.root) for source in sources if not source.koch]
    if 0 < len(silent) < len(sources):
        told.insert(
            0,
            f"{KOCH} is left out, since {', '.join(silent)} has none: units, rig and bags are "
            "lost. Check that the units are the same",
        )
    return [Plan(options.out, features_of(first), pieces, told)]


def _check_alike(first: SourceDataset, other: SourceDataset) -> None:
    facts: list[tuple[str, Any, Any]] = [
        ("fps", first.info.fps, other.info.fps),
        ("robot_type", first.info.robot_type, other.info.robot_type),
        ("features", sorted(features_of(first)), sorted(features_of(other))),
    ]
    facts += [
        (f"feature {key}", spec, other.features.get(key))
        for key, spec in features_of(first).items()
    ]
    shared = [k for k, s in features_of(first).items() if s.is_video and k in other.features]
    for key in shared:
        one, two = ((f.features[key].info or {}).get("video.codec") for f in (first, other))
        if one is not None and two is not None:
            facts.append((f"codec of {key}", one, two))
    for key in (k for k, spec in features_of(first).items() if spec.is_depth):
        one, two = (_depth_facts(source.features.get(key)) for source in (first, other))
        facts.append((f"depth of {key}", one, two))
    if first.koch and other.koch:
        facts += [(key, first.koch.get(key), other.koch.get(key)) for key in _MADE_ALIKE]
        spaces = [each.koch.get("action_space", JOINT) for each in (first, other)]
        facts.append(("action_space", *spaces))
    for name, got, expected in ((name, b, a) for name, a, b in facts if a != b):
        raise DatasetEditError(
            f"merge: {name} of {other.root} is {got}, of {first.root} {expected}",
            "Bring one to the other with 'koch dataset reencode' or 'drop-feature', or convert "
            "the bags again.",
        )


def _depth_facts(spec: FeatureSpec | None) -> dict[str, Any]:
    """What a value of a depth map means: its unit, and how it is quantised."""
    info = dict((spec.info if spec else None) or {})
    return {name: info.get(name) for name in _DEPTH_FACTS}


# -- relabel, drop-feature ----------------------------------------------------------------------


def relabel(options: Relabel) -> list[Plan]:
    """Change the words of episodes; tasks that no frame has any more are left out."""
    source = SourceDataset(options.root)
    if options.task is None and options.outcome is None and not options.rename:
        raise DatasetEditError("relabel: nothing to change", "Give --task, --rename or --outcome.")
    renamed = dict(_renaming(source, word) for word in options.rename)
    mine = {episode.index for episode in chosen(source, options.episodes)}
    pieces = []
    for episode in source.episodes:
        piece = whole(source, episode)
        if episode.index in mine:
            piece = replace(piece, outcome=options.outcome, task=options.task, renamed=renamed)
        pieces.append(piece)
    told = [f"episodes {_list(chosen(source, options.episodes))}:"]
    if options.task is not None:
        told.append(f"  task {options.task!r}")
    told += [f"  task {old!r} becomes {new!r}" for old, new in renamed.items()]
    if options.outcome is not None:
        told.append(f"  outcome {options.outcome!r}")
    return [_plan(options, source, pieces, *told)]


def _renaming(source: SourceDataset, word: str) -> tuple[str, str]:
    for old in sorted(source.tasks, key=len, reverse=True):  # a task may hold a '=' itself
        if word.startswith(f"{old}="):
            return old, word[len(old) + 1 :]
    known = "; ".join(map(repr, source.tasks[:8]))
    raise OptionError("--rename", word, f"OLD=NEW, where OLD is one of {known}")


def drop_feature(options: DropFeature) -> list[Plan]:
    """Leave columns and cameras out; the index columns stay."""
    source = SourceDataset(options.root)
    features = features_of(source)
    for key in options.feature:
        if key in DEFAULT_FEATURES:
            raise OptionError("--feature", key, "a feature that LeRobot does not need")
        if features.pop(key, None) is None:
            raise OptionError("--feature", key, f"one of {', '.join(features_of(source))}")
    pieces = [whole(source, episode) for episode in source.episodes]
    plan = _plan(options, source, pieces, f"left out: {', '.join(options.feature)}")
    return [replace(plan, features=features)]


# -- reencode, recompute-stats ------------------------------------------------------------------


def reencode(options: Reencode) -> list[Plan]:
    """Encode the videos with another codec or other settings."""
    source = SourceDataset(options.root)
    if options.vcodec is Codec.COPY:
        raise OptionError("--vcodec", "copy", "h264 or av1, which encode")
    check_encoder(options.vcodec, options.crf, options.gop, options.preset)
    if not source.info.video_keys:
        raise DatasetEditError("reencode: the dataset has no videos", "Nothing is to be done.")
    usual = VideoSettings.for_codec(options.vcodec)
    settings = replace(
        usual,
        crf=usual.crf if options.crf is None else options.crf,
        gop=usual.gop if options.gop is None else options.gop,
        preset=usual.preset if options.preset is None else options.preset,
    )
    pieces = [whole(source, episode) for episode in source.episodes]
    depth = [key for key in source.info.video_keys if source.features[key].is_depth]
    coloured = [key for key in source.info.video_keys if key not in depth]
    told = [f"{', '.join(coloured) or 'none'} as {options.vcodec.value}, crf {settings.crf}"]
    told += [f"{', '.join(depth)}: stays as it is, depth"] * bool(depth)
    return [replace(_plan(options, source, pieces, *told), encode=settings)]


def recompute_stats(options: RecomputeStats) -> list[Plan]:
    """Work out all statistics again from what the dataset holds."""
    source = SourceDataset(options.root)
    pieces = [whole(source, episode) for episode in source.episodes]
    told = ["statistics of all features from all values and of sampled images"]
    depth = [key for key, spec in source.features.items() if spec.is_depth]
    told += [f"{', '.join(depth)}: those of depth maps are kept"] * bool(depth)
    return [replace(_plan(options, source, pieces, *told), stats=StatsFrom.IMAGES)]


def describe(root: Path, episodes: str | None = None) -> dict[str, Any]:
    """What `koch dataset info` tells of a dataset, as plain values.

    Args:
        root: Dataset folder.
        episodes: Numbers or an expression; what it selects is told as well.
    """
    source = SourceDataset(root)
    selected = {} if episodes is None else {"selected": _selected(source, episodes)}
    outcomes: dict[str, int] = {}
    for episode in source.episodes:
        outcomes[episode.outcome or "(none)"] = outcomes.get(episode.outcome or "(none)", 0) + 1
    return {
        "root": str(root),
        "format": source.info.format.name,
        "robot_type": source.info.robot_type,
        "fps": source.info.fps,
        "episodes": len(source.episodes),
        "frames": sum(episode.length for episode in source.episodes),
        "seconds": round(source.seconds, 3),
        "bytes": sum(path.stat().st_size for path in root.rglob("*") if path.is_file()),
        "features": {
            key: {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "names": None if spec.names is None else list(spec.names),
                "codec": (spec.info or {}).get("video.codec"),
            }
            for key, spec in source.features.items()
        },
        "tasks": list(source.tasks),
        "outcomes": outcomes,
        "lengths": {str(episode.index): episode.length for episode in source.episodes},
        "units": source.koch.get("units"),
        "edits": source.koch.get("edits", []),
        **selected,
    }


def _selected(source: SourceDataset, text: str) -> list[dict[str, Any]]:
    return [
        {
            "episode": episode.index,
            "length": episode.length,
            "tasks": list(dict.fromkeys(source.tasks_of(episode))),
            "outcome": episode.outcome,
        }
        for episode in chosen(source, text)
    ]
