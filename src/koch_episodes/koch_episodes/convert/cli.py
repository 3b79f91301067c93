# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch convert`: bags in, LeRobot dataset out; with --to-bag the other way."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.command_line import command_line
from koch_core.errors import KochError
from koch_core.options import OptionError
from koch_core.terminal import complain, say
from koch_episodes.convert.options import ConvertOptions, ConvertRun
from koch_episodes.dataset.layout import REPORT, Codec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from koch_episodes.convert.run import ConvertResult
    from koch_episodes.convert.worker import JobResult

_GAPS_SHOWN = 3  # per bag
_LINES_SHOWN = 8  # of damage and of notes, per bag: a bag may tell of hundreds of episodes


def _parser() -> argparse.ArgumentParser:
    about = "Convert rosbag2 bags to a LeRobot dataset, or a dataset to bags (--to-bag)."
    return command_line("koch convert", about, ConvertRun, ConvertOptions)


class _Progress:
    """One line per bag on standard error, with the time still to go."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.frames = 0

    def __call__(self, done: int, total: int, result: JobResult) -> None:
        from koch_episodes.convert.report import episode_line

        episodes: list[Any] = result.report.get("episodes", [])
        self.frames += sum(episode["frames"] for episode in episodes)
        spent = time.monotonic() - self._begin
        left = spent / done * (total - done)
        head = f"[{done}/{total}] {result.report['bag']}"
        tail = f"  ({left:.0f} s to go)" if done < total else ""
        if result.error:
            complain(f"{head}: FAILED: {result.error}{tail}")
            return
        for episode in episodes:
            complain(f"{head}: {episode_line(episode)}{tail}")
        for name in ("damage", "notes"):
            lines = result.report.get(name, [])
            for line in lines[:_LINES_SHOWN]:
                complain(f"    {name}: {line}")
            if len(lines) > _LINES_SHOWN:
                complain(f"    and {len(lines) - _LINES_SHOWN} more {name} (in {REPORT})")
        for topic, reasons in result.report.get("refused", {}).items():
            for why, count in reasons.items():
                complain(f"    refused: {count} of {topic}: {why}")
        for delay in result.report.get("clocks", {}).values():
            if delay["fault"]:
                complain(f"    warning: {delay['fault']}")
        gaps = result.report.get("gaps", [])
        for gap in gaps[:_GAPS_SHOWN]:
            complain(f"    gap: {gap['duration_s']:.2f} s at {gap['at_s']:.2f} s: {gap['why']}")
        if len(gaps) > _GAPS_SHOWN:
            complain(f"    and {len(gaps) - _GAPS_SHOWN} more gaps (in {REPORT})")


def _summary(result: ConvertResult, out: Path, seconds: float) -> str:
    info = result.info
    text = (
        f"{out}: {info.total_episodes} episodes, {info.total_frames} frames, "
        f"LeRobot {info.format.name}, valid; took {seconds:.1f} s"
    )
    if result.skipped:
        text += f"\n{len(result.skipped)} bag(s) were in the dataset already, or given twice"
    if result.failed:
        text += f"\n{len(result.failed)} bag(s) failed: {', '.join(result.failed)}"
    return text


def _to_bags(run: ConvertRun, options: ConvertOptions) -> None:
    for flag, given in (
        ("--append", run.append),
        ("--worker", run.worker),
        ("--jobs", run.jobs is not None),
        ("--allow-overlap", run.allow_overlap),
    ):
        if given:
            raise OptionError(flag, "given", "nothing beside --to-bag, where it has no effect")
    if len(run.inputs) != 1:
        raise OptionError("IN", ", ".join(map(str, run.inputs)), "one dataset beside --to-bag")
    from koch_episodes.convert.to_bag import to_bags

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty() and (done == total or done % 10 == 0):
            complain(f"[{done}/{total}] episodes")

    begin = time.monotonic()
    made = to_bags(run.inputs[0], run.out, options, resume=run.resume, progress=progress)
    say(
        f"{run.out}: {made.episodes} bags, {made.frames} frames; "
        f"took {time.monotonic() - begin:.1f} s"
    )
    for line in made.told:
        say(f"  {line}")
    say(f"back: {made.way_back}")


def _worked(shards: Sequence[JobResult], out: Path) -> int:
    failed = [shard.report["bag"] for shard in shards if shard.error]
    text = f"{out}: {len(shards) - len(failed)} bag(s) are converted, --resume joins them"
    if failed:
        text += f"\n{len(failed)} bag(s) failed: {', '.join(failed)}"
    say(text)
    return 1 if failed else 0


def main(argv: list[str]) -> int:
    """Run `koch convert`; 0: all converted, 1: some bags failed, 2: nothing was made."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold bytes that are no UTF-8
            stream.reconfigure(errors="backslashreplace")
    begin = time.monotonic()
    try:
        run, options = ConvertRun.of(args), ConvertOptions.of(args)
        if run.to_bag:
            _to_bags(run, options)
            return 0
        if run.worker and run.resume:
            raise OptionError("--resume", "given", "nothing beside --worker, which always goes on")
        # Here, because --help and a wrong word shall not wait for FFmpeg and pyarrow.
        from koch_episodes.convert.advice import advice
        from koch_episodes.convert.run import convert, convert_shards

        most = 2 if options.codec is Codec.AV1 else 4
        common = run.common(run.jobs or min(os.cpu_count() or 1, most))
        if run.worker:
            shards = convert_shards(run.inputs, run.out, options, **common, progress=_Progress())
            return _worked(shards, run.out)
        result = convert(
            run.inputs, run.out, options, **common, resume=run.resume, progress=_Progress()
        )
    except KochError as exc:
        complain(f"koch convert: {exc}")
        return 2
    except KeyboardInterrupt:
        complain("koch convert: interrupted; --resume goes on from the finished episodes")
        return 1
    for line in result.passed_over:
        complain(f"koch convert: passed over: {line}")
    splits = (report.get("split", {}) for report in result.reports)
    for line in advice(splits, options.min_seconds):
        complain(f"koch convert: warning: {line}")
    say(_summary(result, run.out, time.monotonic() - begin))
    return 1 if result.failed else 0


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
