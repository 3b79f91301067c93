# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The validator's rules about mp4 files: they are what breaks LeRobot's loader most often."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from koch_episodes.dataset.findings import Report
from koch_episodes.dataset.format import DatasetInfo, Episode
from koch_episodes.dataset.frames import VideoFrames
from koch_episodes.dataset.video_files import VideoFacts, probe
from koch_episodes.errors import VideoError

_TOLERANCE_S = 1e-4
# LeRobot's own of colour and of depth, and a grey camera's JPEGs; all of a JPEG begin with yuvj.
_USUAL_FORMATS = ("yuv420p", "gray12le", "gray")


def check_videos(
    report: Report, info: DatasetInfo, episodes: list[Episode], *, decode: bool
) -> None:
    """Check every file that an episode refers to."""
    for key in info.video_keys:
        by_file: dict[Path, list[Episode]] = defaultdict(list)
        for episode in episodes:
            by_file[episode.videos[key].path].append(episode)
        for path, shown in by_file.items():
            where = path.relative_to(report.root).as_posix()
            if not path.is_file():
                report.error(where, "missing; LeRobot would try to download it")
                continue
            try:
                facts = probe(path)
            except VideoError as exc:
                report.error(where, str(exc))
                continue
            _check_file(report, info, key, where, facts)
            _check_episodes(report, info, key, where, facts, shown)
    if decode:
        _decode_ends(report, info, episodes)


def _check_file(
    report: Report, info: DatasetInfo, key: str, where: str, facts: VideoFacts
) -> None:
    spec = info.features[key]
    if (facts.height, facts.width) != tuple(spec.shape[:2]):
        report.error(
            where,
            f"images of {facts.height}x{facts.width}, info.json says "
            f"{'x'.join(map(str, spec.shape[:2]))} (height x width)",
        )
    if not facts.frames:
        report.error(where, "holds no frames")
        return
    if abs(facts.times_s[0]) > _TOLERANCE_S:
        report.error(
            where,
            f"first frame at {facts.times_s[0]:.4f} s, expected 0; every frame would be refused",
        )
    steps = np.diff(facts.times_s)
    if len(steps):
        worst = int(np.abs(steps - 1 / info.fps).argmax())
        if abs(steps[worst] - 1 / info.fps) > _TOLERANCE_S:
            report.error(
                where,
                f"frames {worst} and {worst + 1} are {steps[worst]:.4f} s apart, "
                f"expected {1 / info.fps:.4f}",
            )
    if abs(facts.average_fps - info.fps) > 0.01 * info.fps / max(1, facts.frames):
        report.error(
            where,
            f"container states {facts.average_fps:.4f} frames/s, expected "
            f"{info.fps}; torchcodec would pick wrong frames",
        )
    if facts.pix_fmt not in _USUAL_FORMATS and not facts.pix_fmt.startswith("yuvj"):
        report.warning(where, f"pixel format {facts.pix_fmt}; LeRobot writes yuv420p")
    declared = (spec.info or {}).get("video.codec")
    if declared and declared != facts.codec:
        report.warning(where, f"codec {facts.codec}, info.json says {declared}")


def _check_episodes(
    report: Report,
    info: DatasetInfo,
    key: str,
    where: str,
    facts: VideoFacts,
    shown: list[Episode],
) -> None:
    total = sum(episode.length for episode in shown)
    if facts.frames != total:
        report.error(where, f"{facts.frames} frames, its episodes have {total} rows")
    if not facts.frames:
        return
    begin = 0
    for episode in sorted(shown, key=lambda one: one.videos[key].from_s):
        off_s = abs(episode.videos[key].from_s - begin / info.fps)
        if facts.frames == total and off_s > _TOLERANCE_S:
            report.error(
                where,
                f"episode {episode.index} begins at {episode.videos[key].from_s:.4f} s, the one "
                f"before ends at {begin / info.fps:.4f} s; it would show another's images",
            )
        begin += episode.length
    for episode in shown:
        place = episode.videos[key]
        if abs(place.to_s - place.from_s - episode.length / info.fps) > _TOLERANCE_S:
            report.warning(
                where,
                f"episode {episode.index}: {place.from_s:.4f}.."
                f"{place.to_s:.4f} s for {episode.length} frames",
            )
        wanted = place.from_s + np.arange(episode.length) / info.fps
        nearest = np.clip(
            np.searchsorted(facts.times_s, wanted - 0.5 / info.fps), 0, facts.frames - 1
        )
        off = np.abs(facts.times_s[nearest] - wanted)
        if off.max() > _TOLERANCE_S:
            report.error(
                where,
                f"episode {episode.index}: no frame within {_TOLERANCE_S} s of "
                f"row {int(off.argmax())} (nearest is {off.max():.4f} s away)",
            )


def _decode_ends(report: Report, info: DatasetInfo, episodes: list[Episode]) -> None:
    frames = VideoFrames()
    for episode in episodes:
        for key in info.video_keys:
            place = episode.videos[key]
            for index in (0, episode.length - 1):
                try:
                    frames.rgb(place.path, place.from_s + index / info.fps, 0.25 / info.fps)
                except VideoError as exc:
                    report.error(f"episode {episode.index}, {key}", str(exc))
    frames.close()
