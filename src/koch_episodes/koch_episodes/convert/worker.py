# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Converting one bag into finished episodes; runs in a worker process."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from koch_episodes.bag import Bag, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.cdr import stream_state
from koch_episodes.convert.advice import advice, split_report
from koch_episodes.convert.choose import choose, unused_ends, why_nothing
from koch_episodes.convert.columns import dataset_columns, joint_units
from koch_episodes.convert.events import windows_of
from koch_episodes.convert.idle import trimmed
from koch_episodes.convert.mapping import FeatureMap, with_names
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import Planner, Segment, WindowPlan
from koch_episodes.convert.render import Broken, BrokenPicturesError, Picture, render
from koch_episodes.convert.report import bag_report, segment_report
from koch_episodes.convert.schema import Schema, check_kind, check_topics, map_of, rig_of
from koch_episodes.convert.topics import TopicReader, size_of
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.part import EpisodePart
from koch_episodes.dataset.stats import Stats, column_stats
from koch_episodes.dataset.video import VideoSettings, video_info
from koch_episodes.dataset.video_files import probe
from koch_episodes.decode import is_png
from koch_episodes.errors import DecodeError, EpisodeError, OutputUnwritableError
from koch_rig.errors import KochError
from koch_rig.files import write_whole
from koch_rig.fingerprint import fingerprint

RESULT = "job.json"
_STREAM_STATE = "koch_interfaces/msg/StreamState"


@dataclass(frozen=True, eq=False)
class Job:
    """One bag to convert.

    Attributes:
        bag: Bag path.
        folder: Where its parts go.
        digest: Recognises finished work.
        options: What was asked for.
        schema: What all episodes share.
    """

    bag: Path
    folder: Path
    digest: str
    options: ConvertOptions
    schema: Schema


@dataclass(frozen=True)
class JobResult:
    """What became of a bag.

    Attributes:
        parts: Folders of finished episodes, in order of time.
        report: Of the bag, with one entry per episode.
        error: Why nothing came of it, empty otherwise.
        fatal: Whether going on with other bags is senseless (disk full).
    """

    parts: tuple[Path, ...]
    report: dict[str, Any]
    error: str = ""
    fatal: bool = False


def finished(job: Job) -> JobResult | None:
    """Return the result of an earlier run, if it did exactly this job."""
    try:
        raw = json.loads((job.folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    parts = tuple(job.folder / name for name in raw["parts"])
    if raw["digest"] != job.digest or not all(EpisodePart.is_whole(part) for part in parts):
        return None
    return JobResult(parts, raw["report"], raw["error"])


def convert_bag(job: Job) -> JobResult:
    """Convert one bag; errors become a result, so that the other bags go on."""
    try:
        with _alone(job):
            return _convert_bag(job)
    except OSError as exc:
        text = str(OutputUnwritableError(job.folder.parent, exc))
        return JobResult((), {"bag": job.bag.name}, text, fatal=True)


@contextmanager
def _alone(job: Job) -> Iterator[None]:
    """Wait until a worker left over from a killed run has let go of the job's folder."""
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    with job.folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(job.folder, ignore_errors=True)
        job.folder.mkdir()
        yield


def _convert_bag(job: Job) -> JobResult:
    try:
        with open_bag(job.bag) as bag:
            result = _BagConversion(bag, job).run()
    except KochError as exc:
        result = JobResult((), {"bag": job.bag.name}, str(exc))
    raw = {
        "digest": job.digest,
        "parts": [part.name for part in result.parts],
        "report": result.report,
        "error": result.error,
    }
    write_whole(job.folder / RESULT, json.dumps(raw))  # ASCII: a path may be no UTF-8
    return result


class _BagConversion:
    """The two passes over one bag."""

    def __init__(self, bag: Bag, job: Job) -> None:
        self.bag = bag
        self.job = job
        self.options = job.options
        self.rig = rig_of(bag, job.options)
        if self.rig is not None and fingerprint(self.rig) != job.schema.fingerprint:
            raise EpisodeError(
                bag.name,
                "was recorded with another rig than the first bag",
                "Convert them apart, or give the rig for all of them with --rig.",
            )
        named = map_of(self.rig, job.options)
        features = tuple(with_names(f, job.schema.names) for f in named.features)
        self.map: FeatureMap = replace(named, features=features)
        check_topics(bag, self.map)
        self.notes: list[str] = []

    def run(self) -> JobResult:
        broken: Broken = {}
        while True:
            self.notes.clear()
            planner, plans = self._plan(broken)
            segments = choose(plans, self.options, self.map.fps, self.notes)
            self.notes += unused_ends(planner, plans)
            if self.options.trim_idle_s is not None:
                longest_s = self.options.trim_idle_s
                segments = [trimmed(segment, longest_s, self.map.fps) for segment in segments]
            split = split_report(planner, plans, self.map.fps)
            if not segments:
                why = [why_nothing(planner, plans, self.notes)]
                why += advice([split], self.options.min_seconds)
                raise EpisodeError(self.bag.name, "; ".join(why))
            folders = [self.job.folder / f"part_{n:04d}" for n in range(len(segments))]
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            try:
                pictures = self._render(segments, folders)
                break
            except BrokenPicturesError as exc:
                broken |= exc.broken
        reports = []
        tracks = {s.topic: t for s, t in zip(planner.sources, planner.tracks, strict=True)}
        refused: dict[str, Counter[str]] = {topic: Counter() for topic in tracks}
        for source, track in zip(planner.sources, planner.tracks, strict=True):
            refused[source.topic] |= track.refused  # of several features, the most refused
        by_window = {id(plan.window): plan for plan in plans}
        for segment, folder, stats in zip(segments, folders, pictures, strict=True):
            self._save(segment, folder, stats)
            plan = by_window[id(segment.window)]
            reports.append(segment_report(segment, plan, tracks, self.map.fps))
        report = bag_report(self.bag.name, plans, refused, self.bag.damage, self.notes, split)
        return JobResult(tuple(folders), {**report, "episodes": reports})

    def _readers(self, planner: Planner) -> list[TopicReader]:
        types = TypeDecoder()
        readers = []
        for source in planner.sources:
            topic = self.bag.topics[source.topic]
            reader = TopicReader(topic, source, types, self.options.stamps)
            check_kind(topic, reader, source.topic in self.job.schema.sizes)
            readers.append(reader)
        return readers

    def _plan(self, broken: Broken) -> tuple[Planner, list[WindowPlan]]:
        planner = Planner(self.map.features, self.map.fps, windows_of(self.bag, self.notes))
        readers = self._readers(planner)
        by_topic: dict[str, list[int]] = {}
        for number, reader in enumerate(readers):
            by_topic.setdefault(reader.topic.name, []).append(number)
        self._mark(planner)
        for message in self.bag.messages(by_topic):
            for number in by_topic[message.topic]:
                reader = readers[number]
                try:
                    if reader.is_picture:
                        stamp, picture = reader.picture(message)
                        self._check_picture(message.topic, stamp, picture, broken)
                        planner.push(number, stamp, None)
                    else:
                        planner.push(number, *reader.vector(message))
                except DecodeError as exc:
                    planner.tracks[number].refused[exc.why] += 1
        for reader in readers:
            if reader.used_receive_time:
                self.notes.append(f"{reader.topic.name}: timed by the recorder's clock")
        return planner, planner.finish()

    def _mark(self, planner: Planner) -> None:
        """Tell the planner which images their camera called unusable, and when."""
        states = {
            name: name.rpartition("/")[0] + "/"
            for name, topic in self.bag.topics.items()
            if topic.type == _STREAM_STATE
        }
        if not states:
            return
        for message in self.bag.messages(states):
            try:
                state = stream_state(message.data)
            except DecodeError as exc:
                self.notes.append(f"{message.topic}: {exc.why}")
                continue
            for number, source in enumerate(planner.sources):
                if source.topic.startswith(states[message.topic]):
                    planner.mark(number, *state)

    def _check_picture(self, topic: str, stamp: int, picture: Picture, broken: Broken) -> None:
        if why := broken.get((topic, stamp)):
            raise DecodeError(topic, why)
        size, wanted = size_of(picture), self.job.schema.sizes.get(topic)
        if self.options.codec is Codec.COPY and isinstance(picture, bytes) and is_png(picture):
            raise DecodeError(topic, "a PNG, which --vcodec copy cannot store (use h264 or av1)")
        if size != wanted:
            raise DecodeError(topic, f"picture of {size[1]}x{size[0]} px, not as the others")

    def _settings(self) -> VideoSettings:
        options = self.options
        settings = VideoSettings.for_codec(options.codec, options.encoder_threads)
        return replace(
            settings,
            crf=settings.crf if options.crf is None else options.crf,
            gop=settings.gop if options.gop is None else options.gop,
            preset=settings.preset if options.preset is None else options.preset,
        )

    def _render(
        self, segments: Sequence[Segment], folders: Sequence[Path]
    ) -> list[dict[str, Stats]]:
        types = TypeDecoder()
        readers = {}
        for feature in self.map.features:
            source = feature.sources[0]
            reader = TopicReader(self.bag.topics[source.topic], source, types, self.options.stamps)
            if reader.is_picture:
                readers[feature.key] = reader
        if not readers:
            return [{} for _ in segments]
        raw = [r.topic.name for r in readers.values() if r.topic.type.endswith("/Image")]
        if raw and self.options.codec is Codec.COPY:
            raise EpisodeError(
                self.bag.name,
                f"{raw[0]} holds raw pictures",
                "--vcodec copy needs JPEG topics; use h264 or av1.",
            )
        sizes = {key: self.job.schema.sizes[r.topic.name] for key, r in readers.items()}
        for key, (height, width) in sizes.items():
            if self.options.codec is not Codec.COPY and (height % 2 or width % 2):
                raise EpisodeError(
                    self.bag.name,
                    f"{key}: pictures of {width}x{height} px, h264 and av1 need even sides",
                    "Convert JPEG topics with --vcodec copy, or record another size.",
                )
        return render(self.bag, readers, segments, folders, self._settings(), self.map.fps, sizes)

    def _save(self, segment: Segment, folder: Path, pictures: dict[str, Stats]) -> None:
        given = (self.options.task, segment.window.task, self.map.task)
        task = next((text for text in given if text and text.strip()), None)
        if task is None:
            raise EpisodeError(self.bag.name, "no task text in bag or mapping", "Give --task.")
        units = joint_units(self.bag, self.rig, self.map, self.options)
        columns = dataset_columns(segment, self.map, units, self.rig, self.options)
        for key, values in columns.items():
            if not np.isfinite(values).all():
                raise EpisodeError(
                    self.bag.name, f"{key}: values too large for 32 bits", "Check the 'scale'."
                )
        stats = {key: column_stats(values) for key, values in columns.items()}
        videos = {key: folder / f"{key}.mp4" for key in pictures}
        settings = self._settings()
        info = {
            key: video_info(vars(probe(path)), settings, self.map.fps)
            for key, path in videos.items()
        }
        EpisodePart(task, columns, {**stats, **pictures}, videos, info, segment.length).save(
            folder
        )
