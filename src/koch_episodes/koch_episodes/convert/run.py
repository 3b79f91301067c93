# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A whole conversion: bags in parallel, resumable, the dataset appears when it is valid."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from koch_core.errors import KochError
from koch_core.files import sole_writer
from koch_episodes.bag import find_bags
from koch_episodes.bag.marks import load_marks
from koch_episodes.convert.camera_info import infos_of_bags, infos_of_dataset, to_koch
from koch_episodes.convert.columns import calibrations_of
from koch_episodes.convert.copies import find_copies
from koch_episodes.convert.lease import Watch
from koch_episodes.convert.mapping import INTERVENTION, FeatureMap
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.pool import Progress, look_at_bags, prepare, run_jobs
from koch_episodes.convert.schema import Schema, dataset_features, decide_schema, find_map
from koch_episodes.convert.survey import load_survey
from koch_episodes.convert.worker import NUMBERS, Job, JobResult, LookTask, bag_identity, survey_of
from koch_episodes.dataset.append import append_state
from koch_episodes.dataset.format import FORMATS, DatasetInfo, load_info
from koch_episodes.dataset.layout import (
    DEFAULT_FEATURES,
    KOCH,
    REPORT,
    FeatureSpec,
    read_json,
)
from koch_episodes.dataset.selection import (
    NoSuchEpisodeError,
    NothingSelectedError,
    is_expression,
    numbers_of,
)
from koch_episodes.dataset.staged import StagedEpisode
from koch_episodes.dataset.writer import DatasetWriter, bring_back
from koch_episodes.errors import (
    DatasetWriteError,
    EpisodeError,
    OptionError,
    OutputExistsError,
    OutputUnwritableError,
    WorkersError,
)
from koch_rig.action_layout import JOINT
from koch_rig.rig import Rig


@dataclass
class ConvertResult:
    """What came out.

    Attributes:
        info: The dataset's info.json.
        reports: One per bag, in order.
        failed: Bag name to reason.
        skipped: Bags that the dataset held already (--append), and copies of others.
        passed_over: What is among the bags and was not taken for one, with the reason.
    """

    info: DatasetInfo
    reports: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


def convert(
    inputs: Sequence[Path],
    out: Path,
    options: ConvertOptions,
    *,
    jobs: int = 1,
    append: bool = False,
    resume: bool = False,
    allow_overlap: bool = False,
    progress: Progress | None = None,
) -> ConvertResult:
    """Convert bags to a dataset folder.

    Args:
        inputs: Bags, or folders of bags.
        out: Dataset folder. Must not exist, unless `append`.
        options: What to make.
        jobs: Worker processes.
        append: Add to the dataset at `out`; bags that it holds already are skipped.
        resume: Go on with an interrupted conversion to `out`.
        allow_overlap: Convert bags that hold the same messages as another one, too.
        progress: Called after every bag: done, total, its result.

    Raises:
        BagError: An input holds no bag.
        OptionError: `out` is no UTF-8, which Arrow cannot open.
        OutputExistsError: `out` exists.
        OutputUnwritableError: The disk is full or the folder not writable.
        EpisodeError: Not one episode came out.
        DatasetFormatError: The finished dataset is not valid (a bug; nothing is left of it).
    """
    out = _checked_out(out, append=append)
    work = _work_of(out)
    passed_over: list[str] = []
    bags = _without_deleted(find_bags(inputs, passed_over), passed_over)
    try:
        with sole_writer(out):
            work.mkdir(exist_ok=True)
            bring_back(out)
            if out.exists() and not append:
                raise OutputExistsError(out)
            if not resume:
                _clear(work)
            try:
                conversion = _Conversion(
                    out=out,
                    work=work,
                    options=options,
                    jobs=jobs,
                    append=append,
                    allow_overlap=allow_overlap,
                    progress=progress,
                )
                result = conversion.run(bags)
            except KochError:
                made = [*work.glob("*/part_*"), *work.glob("*.lease")]
                if not made:  # nothing that --resume could go on from
                    shutil.rmtree(work, ignore_errors=True)
                raise
            result.passed_over = [*passed_over, *result.passed_over]
            return result
    except OSError as exc:
        raise OutputUnwritableError(out, exc) from exc


def convert_shards(
    inputs: Sequence[Path],
    out: Path,
    options: ConvertOptions,
    *,
    jobs: int = 1,
    append: bool = False,
    allow_overlap: bool = False,
    progress: Progress | None = None,
) -> list[JobResult]:
    """Convert the bags that no other worker is at, and wait for those that others are at.

    Nothing appears at `out`: `convert` with `resume` joins the episodes to the dataset that it
    would have made alone. Workers may run on any computers that share the folder of `out`, and may
    be killed at any time.

    Args: As those of `convert`, and the same for all workers and for the joining.

    Raises: As `convert`.
    """
    out = _checked_out(out, append=append)
    work = _work_of(out)
    try:
        work.mkdir(parents=True, exist_ok=True)
        conversion = _Conversion(
            out=out,
            work=work,
            options=options,
            jobs=jobs,
            append=append,
            allow_overlap=allow_overlap,
            progress=progress,
        )
        _, results = conversion.episodes(_without_deleted(find_bags(inputs, []), []))
        return list(results.values())
    except OSError as exc:
        _checked_out(out, append=append)  # joined meanwhile
        raise OutputUnwritableError(out, exc) from exc


def _checked_out(out: Path, *, append: bool) -> Path:
    """Return the place of the dataset as an absolute path.

    Raises:
        OptionError: It is no UTF-8, which Arrow cannot open.
        OutputExistsError: It exists.
    """
    # "." has no name to put the hidden folders beside, and what a link leads to is appended to.
    out = Path(os.path.realpath(out) if out.is_symlink() else os.path.abspath(out))
    try:
        str(out).encode()
    except UnicodeEncodeError as exc:
        raise OptionError("--out", str(out), "a path in UTF-8") from exc
    if out.exists() and not append:
        raise OutputExistsError(out)
    return out


def _work_of(out: Path) -> Path:
    return out.with_name(f".{out.name}.parts")


def _without_deleted(bags: Sequence[Path], passed_over: list[str]) -> list[Path]:
    """Leave out bags that are marked as deleted, and name them.

    Raises:
        BagError: The marks of a bag cannot be read.
        EpisodeError: None is left.
    """
    deleted = [bag for bag in bags if load_marks(bag).delete_all]
    passed_over += [f"{bag}: marked as deleted" for bag in deleted]
    left = [bag for bag in bags if bag not in deleted]
    if not left:
        advice = "'koch dataset undo BAG' takes the last mark back."
        raise EpisodeError(str(bags[0]), "every bag is marked as deleted", advice)
    return left


@dataclass(frozen=True)
class _Plan:
    """What was decided before the first episode is converted.

    Attributes:
        feature_map: Which streams make which features.
        rig: The bags' rig, where they hold one.
        schema: What all episodes share.
        features: Of the dataset, in order.
        jobs: One per bag to convert.
        copies: Bags that are left out, all of whose messages another one holds; with the words.
    """

    feature_map: FeatureMap
    rig: Rig | None
    schema: Schema
    features: dict[str, FeatureSpec]
    jobs: list[Job]
    copies: dict[LookTask, str]


@dataclass(kw_only=True)
class _Conversion:
    """One conversion, step by step: choose bags, look at them, decide, convert, write.

    Attributes: As the arguments of `convert`, and
        work: Folder beside `out` for staged episodes; --resume goes on from it.
    """

    out: Path
    work: Path
    options: ConvertOptions
    jobs: int
    append: bool
    allow_overlap: bool
    progress: Progress | None

    def run(self, bags: Sequence[Path]) -> ConvertResult:
        """Take all the steps."""
        plan, results = self.episodes(bags)
        failed = {job.bag.name: results[job].error for job in plan.jobs if results[job].error}
        reports = [results[job].report for job in plan.jobs]
        skipped = [bag.name for bag in bags if bag not in self._chosen]
        skipped += [task.bag.name for task in plan.copies]
        passed_over = [*plan.copies.values(), *self._not_found(reports, [*failed, *skipped])]
        info = self._write(plan, results, reports, failed)
        shutil.rmtree(self.work, ignore_errors=True)
        return ConvertResult(info, reports, failed, skipped, passed_over)

    def episodes(self, bags: Sequence[Path]) -> tuple[_Plan, dict[Job, JobResult]]:
        """Convert the bags that the dataset lacks to episodes, which are not in it yet."""
        self._identities = {bag: bag_identity(bag) for bag in bags}
        self._earlier = _read(self.out / KOCH, dict) if self.append else {}
        self._known = dict(self._earlier.get("bags", {}))
        self._chosen = self._choose()
        if not self._chosen:
            why = "every bag is in the dataset already"
            raise EpisodeError(str(self.out), why, "Nothing to append.")
        plan = self._plan(self._chosen)
        return plan, run_jobs(plan.jobs, self.jobs, self.progress)

    def _not_found(
        self, reports: Sequence[dict[str, Any]], not_read: Sequence[str]
    ) -> Iterator[str]:
        """Refuse a number of --episodes that no bag has; name it, where a bag was not read.

        Raises:
            NoSuchEpisodeError: All bags were read.
        """
        text = self.options.episodes
        if text is None or is_expression(text):
            return
        known = sorted({number for report in reports for number in report.get(NUMBERS, ())})
        there = frozenset(known)
        number = next((n for n in numbers_of(text, "--episodes") if n not in there), None)
        if number is None:
            return
        if not not_read:
            shutil.rmtree(self.work, ignore_errors=True)  # --resume with these words is no use
            raise NoSuchEpisodeError(text, number, f"{len(reports)} bag(s)", known)
        yield f"--episodes {text}: no bag that was read has episode {number}"

    def _choose(self) -> list[Path]:
        """Return the bags that the dataset lacks, each once, however often it was given."""
        firsts: dict[str, Path] = {}
        for bag, number in self._identities.items():
            if number not in self._known:
                firsts.setdefault(number, bag)
        return list(firsts.values())

    def _plan(self, bags: Sequence[Path]) -> _Plan:
        """Look at all bags and decide what their episodes share."""
        if self.jobs > 1 and len(bags) > 1:
            prepare(self.options.codec)
        feature_map, rig, rig_print = find_map(bags, self.options)
        contents = {
            str(path): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (self.options.rig, self.options.map)
            if path is not None
        }
        tasks = [self._look_task(bag, contents) for bag in bags]
        looks = look_at_bags(tasks, self.jobs)
        copies = {} if self.allow_overlap else _copies(self.out, tasks)
        tasks = [task for task in tasks if task not in copies]
        if all(look.error for look in looks.values()):
            survey_of(tasks[0])  # raises what is wrong with the first one
            why = f"no bag could be read; {looks[tasks[0]].error.rstrip('.')}"
            raise EpisodeError(str(self.out), why)
        schema = decide_schema(
            feature_map,
            {task.bag.name: looks[task].tally for task in tasks},
            rig_print,
            [line for task in tasks for line in looks[task].damage],
        )
        intervened = any(look.intervened for look in looks.values())
        schema = self._with_interventions(schema, feature_map, intervened)
        features = dataset_features(feature_map, schema, self.options)
        self._check_fits(feature_map, schema, features)
        jobs = self._jobs(tasks, contents, schema, len(bags))
        return _Plan(feature_map, rig, schema, features, jobs, copies)

    def _look_task(self, bag: Path, contents: dict[str, str]) -> LookTask:
        number = self._identities[bag]
        digest = self.options.digest({**contents, "bag": number})
        return LookTask(bag, self.work / number, digest, self.options)

    def _with_interventions(
        self, schema: Schema, feature_map: FeatureMap, intervened: bool
    ) -> Schema:
        """Add the column where a human took over, or has one in what is appended to."""
        mapped = any(feature.key == INTERVENTION for feature in feature_map.features)
        held = self.append and INTERVENTION in load_info(self.out).features
        return replace(schema, intervention=(intervened or held) and not mapped)

    def _check_fits(
        self, feature_map: FeatureMap, schema: Schema, features: dict[str, FeatureSpec]
    ) -> None:
        """Refuse what cannot be appended, before an hour of converting."""
        koch = _sidecar(self.options, schema.fingerprint, None, {})
        _check_same_making(self.out, self._earlier, koch)
        if self.append:
            made = DatasetInfo(
                FORMATS[self.options.version],
                feature_map.fps,
                {**features, **DEFAULT_FEATURES},
                feature_map.robot_type,
            )
            append_state(self.out, made, self.options.codec)

    def _jobs(
        self, tasks: Sequence[LookTask], contents: dict[str, str], schema: Schema, bags: int
    ) -> list[Job]:
        threads = max(1, (os.cpu_count() or 1) // max(1, min(self.jobs, bags)))
        options = replace(self.options, encoder_threads=threads)
        jobs = []
        for task in tasks:
            made_of = {
                **contents,
                "bag": self._identities[task.bag],
                "schema": schema.to_json(),
                "marks": load_marks(task.bag).digest,
            }
            digest = options.digest(made_of)
            jobs.append(Job(task.bag, task.folder, task.look_digest, options, digest, schema))
        return jobs

    def _write(
        self,
        plan: _Plan,
        results: dict[Job, JobResult],
        reports: list[dict[str, Any]],
        failed: dict[str, str],
    ) -> DatasetInfo:
        """Join the staged episodes to a dataset, validate it, and put it in its place."""
        with DatasetWriter(
            self.out,
            plan.features,
            fps=plan.feature_map.fps,
            robot_type=plan.feature_map.robot_type,
            version=self.options.version,
            append=self.append,
        ) as writer:
            done = [job for job in plan.jobs if results[job].parts]
            for job in done:
                for folder in results[job].parts:
                    writer.add_part(StagedEpisode.load(folder))
            if not done and not failed and self.options.episodes is not None:
                raise NothingSelectedError(self.options.episodes, f"{len(plan.jobs)} bag(s)")
            if not done:
                why = f"no episode could be converted; {_first(failed)}"
                raise EpisodeError(str(self.out), why)
            koch = self._koch(plan, done)
            earlier = _read(self.out / REPORT, list) if self.append else []
            writer.finalize_valid({KOCH: koch, REPORT: earlier + reports})
        return writer.info

    def _koch(self, plan: _Plan, done: Sequence[Job]) -> dict[str, Any]:
        """Return what koch.json says of the dataset, once these jobs are in it."""
        held = {self._identities[task.bag]: task.bag.name for task in [*done, *plan.copies]}
        rig = plan.rig.text if plan.rig else None
        bags = {**self._known, **held}
        koch = _sidecar(self.options, plan.schema.fingerprint, rig, bags)
        found = calibrations_of([job.bag for job in done])
        if found and (not self.append or self._earlier.get("calibrations") == found):
            koch["calibrations"] = found
        infos = infos_of_bags([job.bag for job in done], plan.feature_map, plan.features)
        if self.append:
            before = infos_of_dataset(self.out, self._earlier, plan.features)
            infos = {key: info for key, info in infos.items() if before.get(key) == info}
        return {**koch, **to_koch(infos)}


def _copies(out: Path, tasks: Sequence[LookTask]) -> dict[LookTask, str]:
    """Find bags all of whose messages another one holds, with the words that say so.

    Raises:
        EpisodeError: Two bags share a part of what they hold: neither can be left out.
    """
    found = find_copies([partial(load_survey, task.survey, task.look_digest) for task in tasks])
    for one, other, what in found.overlaps:
        raise EpisodeError(
            str(out),
            f"{tasks[one].bag} and {tasks[other].bag} hold {what}: demonstrations would count "
            "twice",
            "Give one of them, or --allow-overlap.",
        )
    return {
        tasks[copy]: f"{tasks[copy].bag}: its messages are in {tasks[whole].bag} too"
        for copy, whole in found.whole.items()
    }


def _first(failed: dict[str, str]) -> str:
    return next(iter(failed.values()), "no bags").rstrip(".")


def _clear(work: Path) -> None:
    """Remove what an earlier run left.

    Raises:
        WorkersError: One is at it now.
    """
    watch = Watch()
    held = next((lease for lease in work.glob("*.lease") if watch.is_held(lease)), None)
    if held is not None:
        raise WorkersError(held)
    for path in work.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix == ".npz":
            path.unlink(missing_ok=True)


def _read(path: Path, kind: type[Any]) -> Any:
    """Read an earlier conversion's JSON file; an empty object where there is none.

    Raises:
        DatasetFormatError: It is damaged. Nothing else says what the numbers of a dataset mean.
    """
    return read_json(path, kind) if path.exists() else kind()


def _check_same_making(out: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Refuse to append numbers of another meaning, or images of another codec.

    LeRobot's files cannot tell the first apart; info.json names one codec for all.
    """
    for key in ("fingerprint", "units", "action_from", "delta_actions", "vcodec"):
        if key in old and old[key] != new[key]:
            raise DatasetWriteError(f"{out} (append), {key}", new[key], f"{old[key]} as it has")
    before, got = old.get("action_space", JOINT), new["action_space"]  # older ones do not tell
    if old and before != got:
        raise DatasetWriteError(f"{out} (append), action_space", got, f"{before} as it has")


def _sidecar(
    options: ConvertOptions, fingerprint: str | None, rig: str | None, bags: dict[str, str]
) -> dict[str, Any]:
    plain = options.to_json()
    return {
        "fingerprint": fingerprint,
        "units": plain["units"],
        "action_from": plain["action_from"],
        "delta_actions": options.delta_actions,
        "action_space": options.action_space,
        "tcp_pose": options.tcp_pose,
        "vcodec": plain["codec"],
        "bags": bags,
        "rig": rig,
    }
