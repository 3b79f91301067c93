# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Converting one bag into finished episodes; runs in a worker process."""

from __future__ import annotations

import errno
import hashlib
import json
import shutil
import traceback
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.errors import KochError
from koch_core.files import write_atomically
from koch_episodes.bag import Bag, open_bag
from koch_episodes.bag.marks import FILE_NAME as MARKS
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.advice import advice, split_report
from koch_episodes.convert.columns import dataset_columns, joint_units, reward_columns
from koch_episodes.convert.events import (
    DATASET,
    Interventions,
    obey_marks,
    tells_intervention,
    window_fields,
    window_numbers,
    windows_of,
)
from koch_episodes.convert.idle import trimmed
from koch_episodes.convert.lag import delays_of
from koch_episodes.convert.mapping import (
    INTERVENTION,
    FeatureMap,
    FeatureSource,
    check_effect,
    with_names,
)
from koch_episodes.convert.options import ConvertOptions, StampFrom
from koch_episodes.convert.plan import BagPlan, Segment, WindowPlan, part_key, plan_bag
from koch_episodes.convert.render import Broken, BrokenImagesError, VectorGatherer, render
from koch_episodes.convert.report import bag_report, segment_report
from koch_episodes.convert.schema import (
    Schema,
    check_kinds,
    check_numbers,
    check_topics,
    map_of,
    rig_of,
    tally_of,
)
from koch_episodes.convert.segments import (
    damage_told,
    select_segments,
    unused_ends,
    why_nothing,
)
from koch_episodes.convert.survey import (
    Survey,
    load_survey,
    save_survey,
    streams_of,
    survey_bag,
)
from koch_episodes.convert.topics import Form, TopicReader
from koch_episodes.dataset.layout import Codec
from koch_episodes.dataset.selection import as_expression, select
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.stats import Stats, feature_stats
from koch_episodes.dataset.video import VideoSettings, video_info
from koch_episodes.dataset.video_files import probe
from koch_episodes.decode import given_names, named_twice
from koch_episodes.errors import EpisodeError, OutputUnwritableError
from koch_rig.fingerprint import fingerprint

RESULT = "job.json"
NUMBERS = "numbers"  # of a bag's report: the numbers of the episodes that it holds


@dataclass(frozen=True, eq=False)
class LookTask:
    """One bag to look at.

    Attributes:
        bag: Bag path.
        folder: Where its parts will go.
        look_digest: Recognises a finished survey.
        options: What was asked for.
    """

    bag: Path
    folder: Path
    look_digest: str
    options: ConvertOptions

    @property
    def survey(self) -> Path:
        """Where the survey is kept."""
        return self.folder.with_suffix(".survey.npz")

    @property
    def identity(self) -> str:
        """Of the bag, when it was found."""
        return self.folder.name

    @property
    def lease(self) -> Path:
        """Held by the worker that is at the bag."""
        return self.folder.with_suffix(".lease")


@dataclass(frozen=True, eq=False)
class Job(LookTask):
    """One bag to convert.

    Attributes:
        digest: Recognises finished work.
        schema: What all episodes share.
    """

    digest: str
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


@dataclass(frozen=True, eq=False)
class Look:
    """What the first pass over a bag found.

    Attributes:
        tally: Topic to the forms of its messages.
        damage: What of the bag could not be read.
        error: Why there was none, empty otherwise.
        fatal: Whether going on with other bags is senseless (disk full).
        intervened: Whether a human took over from the policy.
    """

    tally: dict[str, Counter[Form]]
    damage: tuple[str, ...] = ()
    error: str = ""
    fatal: bool = False
    intervened: bool = False


def finished(job: Job) -> JobResult | None:
    """Return the result of an earlier run, if it did exactly this job."""
    try:
        raw = json.loads((job.folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    parts = tuple(job.folder / name for name in raw["parts"])
    if raw["digest"] != job.digest or not all(StagedEpisode.is_whole(part) for part in parts):
        return None
    return JobResult(parts, raw["report"], raw["error"])


def look_at_bag(task: LookTask) -> Look:
    """Survey one bag and keep what was found for its conversion; errors become a result."""
    try:
        task.survey.parent.mkdir(parents=True, exist_ok=True)
        return _look_of(survey_of(task))
    except KochError as exc:
        return Look({}, error=str(exc))
    except OSError as exc:
        text = str(OutputUnwritableError(task.survey.parent, exc))
        return Look({}, error=text, fatal=True)
    except Exception as exc:  # the last resort of a worker: the other bags go on
        return Look({}, error=_bug(task.bag, exc))


def _look_of(survey: Survey) -> Look:
    intervened = any(map(tells_intervention, survey.events))
    return Look(tally_of(survey), tuple(survey.damage), intervened=intervened)


def survey_of(task: LookTask) -> Survey:
    """Return the survey of a bag, made now or by an earlier run.

    Raises:
        KochError: It cannot be read, or lacks what the mapping needs.
    """
    survey = load_survey(task.survey, task.look_digest)
    if survey is None:
        with open_bag(task.bag) as bag:
            feature_map = map_of(rig_of(bag, task.options), task.options)
            check_topics(bag, feature_map)
            check_numbers(bag, feature_map)
            survey = survey_bag(bag, feature_map.sources)
        save_survey(survey, task.survey, task.look_digest)
    return survey


def _bug(bag: Path, error: Exception) -> str:
    """Name an error that no one foresaw, with where it was raised."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{Path(last.filename).name}:{last.lineno}"
    return (
        f"Bag {bag.name}: {type(error).__name__}: {error} ({where}). This is an error of the "
        "converter, please report it; the other bags are not affected."
    )


def bag_identity(path: Path) -> str:
    """Return a short hash that tells one bag from another: names, sizes, and their beginnings.

    A bag stays the same one whatever its marks say.
    """
    inside = path.iterdir() if path.is_dir() else [path]
    files = sorted(p for p in inside if p.is_file() and MARKS not in p.name)
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(65536))
    return digest.hexdigest()[:16]


def looked(task: LookTask) -> Look | None:
    """Return what an earlier run, or another worker, found in a bag."""
    survey = load_survey(task.survey, task.look_digest)
    return None if survey is None else _look_of(survey)


def convert_bag(job: Job) -> JobResult:
    """Convert one bag; errors become a result, so that the other bags go on."""
    # One dot, so that its survey is the job's. Another worker may be at the same bag, where it
    # took over a lease that had run out.
    draft = job.folder.with_name(f"{job.folder.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        result = _convert_bag(replace(job, folder=draft))
        now = bag_identity(job.bag)
        if now != job.identity:
            why = "changed while it was converted"
            raise EpisodeError(job.bag.name, why, "Let its recording end, then use --resume.")
        return _publish(draft, job) or result
    except KochError as exc:
        return JobResult((), {"bag": job.bag.name}, str(exc))
    except OSError as exc:
        text = str(OutputUnwritableError(job.folder.parent, exc))
        return JobResult((), {"bag": job.bag.name}, text, fatal=True)
    except Exception as exc:  # the last resort of a worker: the other bags go on
        return JobResult((), {"bag": job.bag.name}, _bug(job.bag, exc))
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _publish(draft: Path, job: Job) -> JobResult | None:
    """Put a finished bag's folder in its place, unless another worker has done so."""
    while True:
        try:
            draft.rename(job.folder)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        result = finished(job)
        if result is not None:
            return result
        # Of other options, or of a worker that was killed by an older version.
        shutil.rmtree(job.folder, ignore_errors=True)


def _convert_bag(job: Job) -> JobResult:
    damage: list[str] = []
    try:
        survey = survey_of(job)
        with open_bag(job.bag) as bag:
            damage = bag.damage
            result = _BagConversion(bag, job, survey).run()
    except KochError as exc:
        told = [line for line in damage_told(damage) if line not in str(exc)]
        result = JobResult((), {"bag": job.bag.name}, "; ".join([str(exc).rstrip("."), *told]))
    raw = {
        "digest": job.digest,
        "parts": [part.name for part in result.parts],
        "report": result.report,
        "error": result.error,
    }
    write_atomically(job.folder / RESULT, json.dumps(raw))  # ASCII: a path may be no UTF-8
    return result


class _BagConversion:
    """From the survey of a bag to its episodes: plan, read what was chosen, write."""

    def __init__(self, bag: Bag, job: Job, survey: Survey) -> None:
        self.bag = bag
        self.job = job
        self.survey = survey
        for line in survey.damage:  # of events too, which are not read again
            bag.note(line)
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
        check_kinds(bag, self.map, job.schema)
        for feature in named.features:
            for source in feature.sources:
                check_effect(
                    source, bag.topics[source.topic].type, f"{named.where}: {feature.key}"
                )
        self.notes: list[str] = []

    def run(self) -> JobResult:
        broken: Broken = {}
        while True:
            self.notes[:] = [f"passed over: {line}" for line in self.bag.passed_over]
            plan = self._plan(broken)
            numbers = window_numbers([each.window for each in plan.windows])
            wanted = self._selected(plan.windows)
            segments = select_segments(wanted, self.options, self.map.fps, self.notes)
            if not wanted:  # another bag's episodes are; that this one has none is no failure
                report = {"bag": self.bag.name, "notes": list(self.notes), NUMBERS: numbers}
                return JobResult((), report)
            self.notes += unused_ends(plan)
            split = split_report(plan, self.map.fps)
            if not segments:
                why = [why_nothing(plan, self.notes, self.bag.damage)]
                why += advice([split], self.options.min_seconds)
                raise EpisodeError(self.bag.name, "; ".join(why))
            lasts = {id(each.segments[-1]) for each in plan.windows if each.segments}
            ends = [id(segment) in lasts for segment in segments]
            folders = [self.job.folder / f"part_{n:04d}" for n in range(len(segments))]
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            try:
                if self.options.trim_idle_s is not None:
                    segments = self._without_rests(segments, self.options.trim_idle_s)
                images = self._render(segments, folders)
                break
            except BrokenImagesError as exc:
                broken |= exc.broken
        reports = []
        by_window = {id(each.window): each for each in plan.windows}
        for segment, folder, stats, is_last in zip(segments, folders, images, ends, strict=True):
            each = by_window[id(segment.window)]
            self._save(segment, folder, stats, is_last=is_last)
            reports.append(segment_report(segment, each, plan.streams, self.map.fps))
        delays = delays_of(plan.streams, frozenset(self.job.schema.sizes))
        report = bag_report(
            self.bag.name, plan.windows, plan.streams, self.bag.damage, self.notes, split, delays
        )
        return JobResult(tuple(folders), {**report, NUMBERS: numbers, "episodes": reports})

    def _plan(self, broken: Broken) -> BagPlan:
        streams, runs = streams_of(
            self.survey, self.map.sources, self.options.stamps, self._why_not, broken
        )
        by_log = all(stream.clock is StampFrom.RECEIVE for stream in streams)
        self.interventions = Interventions(self.survey.events, runs, by_log=by_log)
        windows = windows_of(self.survey.events, self.bag.custom, runs, self.notes, by_log=by_log)
        windows = obey_marks(windows, self.bag.marks, self.notes, by_log=by_log)
        for stream in streams:
            self.notes += [note for note in stream.notes if note not in self.notes]
        return plan_bag(self.map.features, self.map.fps, streams, windows, runs.count)

    def _why_not(self, source: FeatureSource, form: Form) -> str:
        """Why a sound message does not fit a source; empty where it does."""
        if form.size is not None:
            height, width = form.size
            if self.options.codec is Codec.COPY and form.packing == "png":
                return "a PNG, which --vcodec copy cannot store (use h264 or av1)"
            if form.size != self.job.schema.sizes.get(source.topic):
                return f"image of {width}x{height} px, not as the others"
            return ""
        usual = self.job.schema.names.get(source.topic, ())
        nameless = given_names((), len(form.names))
        if len(usual) != len(form.names) and form.names == nameless:
            return f"{len(form.names)} elements without names, most have {len(usual)}"
        if twice := named_twice(form.names, source.names):
            return f"{twice} named twice among {list(form.names)}"
        missing = [name for name in source.names if name not in form.names]
        if missing:
            return f"joint(s) {', '.join(missing)} missing among {list(form.names)}"
        broken = [name for name in source.names if name in form.broken]
        return f"value not finite: {', '.join(broken)}" if broken else ""

    def _settings(self) -> VideoSettings:
        options = self.options
        settings = VideoSettings.for_codec(options.codec, options.encoder_threads)
        return replace(
            settings,
            crf=settings.crf if options.crf is None else options.crf,
            gop=settings.gop if options.gop is None else options.gop,
            preset=settings.preset if options.preset is None else options.preset,
        )

    def _selected(self, plans: Sequence[WindowPlan]) -> Sequence[WindowPlan]:
        """Leave out the episodes that --episodes does not mean."""
        if self.options.episodes is None:
            return plans
        lengths = [sum(segment.length for segment in plan.segments) for plan in plans]
        driven = [
            any(self.interventions.at(s.run, s.ticks_ns).any() for s in plan.segments)
            for plan in plans
        ]
        fields = window_fields(
            [plan.window for plan in plans],
            self.bag.name,
            length=lengths,
            duration_s=[length / self.map.fps for length in lengths],
            intervention=driven,
        )
        text = as_expression(self.options.episodes, "--episodes")
        places = select(text, "--episodes", fields, self.bag.name)
        if len(places) < len(plans):
            count = len(plans) - len(places)
            self.notes.append(f"{count} episode(s) left out (--episodes does not mean them)")
        return [plans[place] for place in places]

    def _without_rests(self, segments: Sequence[Segment], longest_s: float) -> list[Segment]:
        """Read the actions first: they tell where the hand rests."""
        self._read_vectors(segments)
        return [trimmed(segment, longest_s, self.map.fps) for segment in segments]

    def _render(
        self, segments: Sequence[Segment], folders: Sequence[Path]
    ) -> list[dict[str, Stats]]:
        types = TypeDecoder()
        cameras = {
            key: TopicReader(self.bag.topics[source.topic], source, types)
            for key, source, _ in self._parts()
            if source.topic in self.job.schema.sizes
        }
        gathered = {} if segments[0].columns else self._gatherers(segments)
        stats = render(
            self.bag,
            cameras,
            segments,
            folders,
            self._settings(),
            self.map.fps,
            self._check_images(cameras),
            list(gathered.values()),
        )
        self._fill(segments, gathered)
        return stats

    def _read_vectors(self, segments: Sequence[Segment]) -> None:
        gathered = self._gatherers(segments)
        render(
            self.bag, {}, segments, [], self._settings(), self.map.fps, {}, list(gathered.values())
        )
        self._fill(segments, gathered)

    def _gatherers(self, segments: Sequence[Segment]) -> dict[FeatureSource, VectorGatherer]:
        types = TypeDecoder()
        numbers: dict[FeatureSource, list[npt.NDArray[np.int64]]] = {}
        for _, source, part in self._parts():
            if source.topic not in self.job.schema.sizes:
                numbers.setdefault(source, []).extend(s.numbers[part] for s in segments)
        return {
            source: VectorGatherer(
                TopicReader(self.bag.topics[source.topic], source, types),
                np.unique(np.concatenate(found)),
            )
            for source, found in numbers.items()
        }

    def _fill(
        self, segments: Sequence[Segment], gathered: Mapping[FeatureSource, VectorGatherer]
    ) -> None:
        """Give the segments the values that were read."""
        for segment in segments if gathered else ():
            for feature in self.map.features:
                if feature.sources[0] in gathered:
                    parts = [
                        gathered[source].values(segment.numbers[part_key(feature.key, place)])
                        for place, source in enumerate(feature.sources)
                    ]
                    segment.columns[feature.key] = np.concatenate(parts, axis=1)

    def _parts(self) -> Iterator[tuple[str, FeatureSource, str]]:
        """Yield feature key, source and the name of the part that it fills."""
        for feature in self.map.features:
            for place, source in enumerate(feature.sources):
                yield feature.key, source, part_key(feature.key, place)

    def _check_images(self, readers: Mapping[str, TopicReader]) -> dict[str, tuple[int, int]]:
        """Return camera feature to (height, width), [px]; refuse what the codec cannot store."""
        raw = [r.topic.name for r in readers.values() if r.topic.type.endswith("/Image")]
        if raw and self.options.codec is Codec.COPY:
            raise EpisodeError(
                self.bag.name,
                f"{raw[0]} holds raw images",
                "--vcodec copy needs JPEG topics; use h264 or av1.",
            )
        sizes = {key: self.job.schema.sizes[r.topic.name] for key, r in readers.items()}
        for key, (height, width) in sizes.items():
            if self.options.codec is not Codec.COPY and (height % 2 or width % 2):
                raise EpisodeError(
                    self.bag.name,
                    f"{key}: images of {width}x{height} px, h264 and av1 need even sides",
                    "Convert JPEG topics with --vcodec copy, or record another size.",
                )
        return sizes

    def _save(
        self, segment: Segment, folder: Path, images: dict[str, Stats], *, is_last: bool
    ) -> None:
        given = (self.options.task, segment.window.task, self.map.task)
        task = next((text for text in given if text and text.strip()), None)
        if task is None and DATASET in self.bag.custom:
            task = ""  # LeRobot allows it, and the dataset that the bag was made of had it
        if task is None:
            raise EpisodeError(self.bag.name, "no task text in bag or mapping", "Give --task.")
        units = joint_units(self.bag, self.rig, self.map, self.options)
        columns = dataset_columns(segment, self.map, units, self.rig, self.options)
        for key, values in columns.items():
            if not np.isfinite(values).all():
                raise EpisodeError(
                    self.bag.name, f"{key}: values too large for 32 bits", "Check the 'scale'."
                )
        outcome = segment.window.outcome
        if self.job.schema.intervention:
            columns[INTERVENTION] = self.interventions.at(segment.run, segment.ticks_ns)
        if self.options.rewards:
            succeeds = is_last and outcome == "success"
            columns.update(reward_columns(segment.length, succeeds=succeeds))
        stats = {k: feature_stats(values, values.shape[1:]) for k, values in columns.items()}
        videos = {key: folder / f"{key}.mp4" for key in images}
        settings = self._settings()
        info = {
            key: video_info(vars(probe(path)), settings, self.map.fps)
            for key, path in videos.items()
        }
        part = StagedEpisode(
            task, columns, {**stats, **images}, videos, info, segment.length, outcome
        )
        part.save(folder)
