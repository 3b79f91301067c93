# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch convert`: bags in, LeRobot dataset out."""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from koch_core.errors import KochError
from koch_core.terminal import CommandLine, complain, say
from koch_episodes.convert.advice import advice
from koch_episodes.convert.options import ActionFrom, ConvertOptions, StampFrom
from koch_episodes.convert.report import episode_line
from koch_episodes.convert.run import ConvertResult, convert
from koch_episodes.convert.worker import JobResult
from koch_episodes.dataset.layout import REPORT, Codec, Version
from koch_episodes.errors import OptionError
from koch_rig.units import Units

_GAPS_SHOWN = 3  # per bag

#: A rest that is no longer than a policy's reaction teaches nothing wrong, [s].
_REST_S = 0.2


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="koch convert", description="Convert rosbag2 bags to a LeRobot dataset."
    )
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="IN", help="bag, storage file, or folder of bags"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="dataset folder")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--rig", type=Path, help="rig file (default: the one in each bag)")
    source.add_argument(
        "--map", type=Path, metavar="YAML", help="feature mapping for bags of other robots"
    )
    parser.add_argument("--format", choices=[v.value for v in Version], default="v3.0")
    parser.add_argument("--vcodec", choices=[c.value for c in Codec], default="h264")
    parser.add_argument("--crf", type=int, help="constant rate factor of the encoder")
    parser.add_argument("--gop", type=int, help="frames from key frame to key frame")
    parser.add_argument("--preset", help="speed preset of the encoder")
    parser.add_argument("--fps", type=int, help="frames per second (default: the rig's)")
    parser.add_argument("--units", choices=[u.value for u in Units], default="lerobot")
    parser.add_argument("--action-from", choices=[a.value for a in ActionFrom], default="command")
    parser.add_argument(
        "--include-tcp-pose",
        action="store_true",
        help="add observation.tcp_pose: xyz [m] and 6D rotation",
    )
    parser.add_argument(
        "--delta-actions", action="store_true", help="store action minus observation.state"
    )
    parser.add_argument(
        "--include-rewards",
        action="store_true",
        help="add next.reward, next.done and next.success, by the episodes' outcome",
    )
    parser.add_argument(
        "--split-at-gaps",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="pieces between gaps become episodes (--no-...: left out)",
    )
    parser.add_argument(
        "--min-seconds",
        type=float,
        default=1.0,
        help="leave out pieces between gaps that are shorter (default 1; 0: all of two frames)",
    )
    parser.add_argument(
        "--trim-idle",
        type=float,
        nargs="?",
        const=_REST_S,
        metavar="S",
        help=f"shorten rests, during which no action moves, to this time (default {_REST_S} s)",
    )
    parser.add_argument(
        "--stamps",
        choices=[s.value for s in StampFrom],
        default="auto",
        help="clock that orders messages",
    )
    parser.add_argument("--task", help="task text for all episodes")
    parser.add_argument(
        "--outcome",
        action="append",
        default=[],
        metavar="LABEL",
        help="keep only episodes with this label (repeatable)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        help="worker processes (default: one per core, at most 4, for av1 2: 600 MB in all)",
    )
    parser.add_argument("--append", action="store_true", help="add to the dataset at --out")
    parser.add_argument("--resume", action="store_true", help="go on where a run was interrupted")
    return parser


def _options(args: argparse.Namespace) -> ConvertOptions:
    return ConvertOptions(
        rig=args.rig,
        map=args.map,
        fps=args.fps,
        units=Units(args.units),
        action_from=ActionFrom(args.action_from),
        tcp_pose=args.include_tcp_pose,
        delta_actions=args.delta_actions,
        rewards=args.include_rewards,
        split_at_gaps=args.split_at_gaps,
        min_seconds=args.min_seconds,
        trim_idle_s=args.trim_idle,
        stamps=StampFrom(args.stamps),
        codec=Codec(args.vcodec),
        crf=args.crf,
        gop=args.gop,
        preset=args.preset,
        version=Version(args.format),
        task=args.task,
        outcomes=tuple(args.outcome),
    )


class _Progress:
    """One line per bag on standard error, with the time still to go."""

    def __init__(self) -> None:
        self._begin = time.monotonic()
        self.frames = 0

    def __call__(self, done: int, total: int, result: JobResult) -> None:
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
            for line in result.report.get(name, []):
                complain(f"    {name}: {line}")
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
        f"LeRobot {info.version.value}, valid; took {seconds:.1f} s"
    )
    if result.skipped:
        text += f"\n{len(result.skipped)} bag(s) were in the dataset already, or given twice"
    if result.failed:
        text += f"\n{len(result.failed)} bag(s) failed: {', '.join(result.failed)}"
    return text


def main(argv: list[str]) -> int:
    """Run `koch convert`; 0: all converted, 1: some bags failed, 2: nothing was made."""
    args = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name may hold bytes that are no UTF-8
            stream.reconfigure(errors="backslashreplace")
    begin = time.monotonic()
    try:
        if args.jobs is None:
            args.jobs = min(os.cpu_count() or 1, 2 if args.vcodec == "av1" else 4)
        if args.jobs < 1:
            raise OptionError("--jobs", args.jobs, "1 or more")
        result = convert(
            args.inputs,
            args.out,
            _options(args),
            jobs=args.jobs,
            append=args.append,
            resume=args.resume,
            progress=_Progress(),
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
    for line in advice(splits, args.min_seconds):
        complain(f"koch convert: warning: {line}")
    say(_summary(result, args.out, time.monotonic() - begin))
    return 1 if result.failed else 0


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
