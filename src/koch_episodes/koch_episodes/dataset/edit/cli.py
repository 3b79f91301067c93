# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch dataset`: look at LeRobot datasets and bags, and edit them; LeRobot is not needed."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from koch_core.command_line import CommandLine, add_options
from koch_core.errors import KochError
from koch_core.options import OptionError
from koch_core.terminal import complain, say
from koch_episodes.dataset.edit.options import (
    EDITS,
    Doctor,
    EditOptions,
    Info,
    Markable,
    Target,
    Undo,
)
from koch_episodes.errors import OutputExistsError

if TYPE_CHECKING:
    from koch_episodes.dataset.edit.doctor import Complaint
    from koch_episodes.dataset.edit.make import EditResult
    from koch_episodes.dataset.edit.pieces import Plan

# What needs pyarrow or FFmpeg is imported in the functions: --help shall not wait for it.
_TOLD = 20  # lines of one plan
_MB = 1e6


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(prog="koch dataset", description=__doc__)
    edits = parser.add_subparsers(dest="edit", required=True, metavar="EDIT")
    info = edits.add_parser("info", help="what datasets or bags hold", description=Info.__doc__)
    add_options(info, Info)
    doctor = edits.add_parser(
        "doctor", help="what is wrong with demonstrations", description=Doctor.__doc__
    )
    add_options(doctor, Doctor)
    undo = edits.add_parser(
        "undo", help="take back the last edit of bags", description=Undo.__doc__
    )
    add_options(undo, Undo)
    for name in EDITS:
        edit = EDITS[name]
        inner = edits.add_parser(name, help=edit.summary, description=edit.options.__doc__)
        add_options(inner, edit.options)
    return parser


def main(argv: list[str]) -> int:
    """Run `koch dataset`; 0: done, 1: the doctor found something, 2: nothing was changed."""
    words = _parser().parse_args(argv)
    try:
        if words.edit == "info":
            return _tell(Info.of(words))
        if words.edit == "undo":
            return _take_back(Undo.of(words))
        if words.edit == "doctor":
            return _examine(Doctor.of(words))
        edit = EDITS[words.edit]
        options = edit.options.of(words)
        if not _mark(options):
            _run(edit.plans(options), options)
    except KochError as exc:
        complain(f"koch dataset {words.edit}: {exc}")
        return 2
    except OSError as exc:
        complain(f"koch dataset {words.edit}: {exc.filename or ''}: {exc.strerror or exc}")
        return 2
    except KeyboardInterrupt:
        complain(f"koch dataset {words.edit}: interrupted; nothing was changed")
        return 2
    return 0


def _mark(options: EditOptions) -> bool:
    """Mark bags, if bags are named."""
    if not isinstance(options, Target):
        return False
    from koch_episodes.dataset.edit.bags import are_bags, edit_bags

    roots = [options.root, *(options.more if isinstance(options, Markable) else ())]
    if not are_bags(roots[0]):
        if len(roots) > 1:
            expected = "one dataset; several may be bags"
            raise OptionError("DATASET", ", ".join(map(str, roots)), expected)
        return False
    for edit in edit_bags(roots, options):
        if not options.dry_run:
            edit.make()
        say(f"{edit.bag}: {'would mark: ' * (options.dry_run and bool(edit.marks))}{edit.told}")
    return True


def _take_back(options: Undo) -> int:
    from koch_episodes.dataset.edit.bags import undo

    found = undo(options)
    for bag, told in found:
        for line in told:
            say(f"{bag}: {'would take' if options.dry_run else 'took'} back: {line}")
        if not told:
            say(f"{bag}: has no marks")
    return 0


def _run(plans: Sequence[Plan], options: EditOptions) -> None:
    from koch_episodes.dataset.edit.make import look, make

    for plan in plans:
        if plan.out.exists() and not options.replaces:
            raise OutputExistsError(plan.out)
    for plan in plans:
        for line in plan.told[:_TOLD]:
            say(line)
        if len(plan.told) > _TOLD:
            say(f"and {len(plan.told) - _TOLD} more")
        if options.dry_run:
            say(_would(plan, look(plan), replaces=options.replaces))
        else:
            begin = time.monotonic()
            made = make(plan, replaces=options.replaces, progress=_progress)
            say(_did(plan, made, time.monotonic() - begin))


def _progress(done: int, total: int) -> None:
    if sys.stderr.isatty() and (done == total or done % 10 == 0):
        complain(f"[{done}/{total}] episodes")


def _would(plan: Plan, made: EditResult, *, replaces: bool) -> str:
    frames = sum(piece.length for piece in plan.pieces)
    where = f"in the place of {plan.out}" if replaces else f"as {plan.out}"
    return (
        f"would write {len(plan.pieces)} episodes, {frames} frames, LeRobot "
        f"{plan.source.info.format.name}, {where}{_images(made)}"
    )


def _did(plan: Plan, made: EditResult, seconds: float) -> str:
    info = made.info
    assert info is not None
    return (
        f"{plan.out}: {info.total_episodes} episodes, {info.total_frames} frames, LeRobot "
        f"{info.format.name}, valid; took {seconds:.1f} s{_images(made)}"
    )


def _images(made: EditResult) -> str:
    from koch_episodes.dataset.edit.cut import Way

    if not made.ways:
        return ""
    parts = [f"{made.ways[way]} {way.value}" for way in Way if made.ways[way]]
    again = f"; {made.encoded} images encoded again" if made.encoded else ""
    return f"\nvideos of episodes: {', '.join(parts)}{again}"


def _examine(options: Doctor) -> int:
    from koch_episodes.dataset.edit.bag_doctor import bag_shots, look_at_bags
    from koch_episodes.dataset.edit.bags import are_bags
    from koch_episodes.dataset.edit.doctor import dataset_shots, look_at, to_json

    bags = [root for root in options.roots if are_bags(root)]
    sections: list[Any] = []
    for root in options.roots:
        if root not in bags:
            looks, found = look_at(root, images=options.images)
            sections.append((str(root), looks, found, dataset_shots(root)))
    if bags:
        looked, found = look_at_bags(bags, images=options.images)
        title = str(bags[0]) if len(bags) == 1 else "bags"
        sections.append((title, looked, found, bag_shots))
    if options.report is not None:
        from koch_episodes.dataset.edit.doctor_report import write_report

        write_report(options.report, sections)
    if options.json:
        plain = {title: to_json(found) for title, _, found, _ in sections}
        say(json.dumps(plain, ensure_ascii=False, indent=2))
    else:
        for title, _, found, _ in sections:
            _tell_complaints(title, found)
        if options.report is not None:
            say(f"page: {options.report}")
    return 1 if any(found for _, _, found, _ in sections) else 0


def _tell_complaints(title: str, found: Sequence[Complaint]) -> None:
    say(f"{title}: {len(found) or 'no'} complaint(s)")
    for complaint in found:
        say(f"  {complaint.kind}: {complaint.text}")
        names = complaint.bags or complaint.episodes
        if names:
            shown = ", ".join(map(str, names[:_TOLD]))
            say(f"    episodes {shown}" + ", ..." * (len(names) > _TOLD))
        say(f"    {complaint.remedy}")


def _tell(options: Info) -> int:
    from koch_episodes.bag import find_bags
    from koch_episodes.dataset.edit.bags import are_bags, describe_bag
    from koch_episodes.dataset.edit.edits import describe
    from koch_episodes.dataset.selection import NothingSelectedError

    found = []
    for root in options.roots:
        if are_bags(root):
            bags = [(describe_bag(bag, options.episodes), _tell_bag) for bag in find_bags([root])]
            if options.episodes is not None and not any(bag["episodes"] for bag, _ in bags):
                raise NothingSelectedError(options.episodes, str(root))
            found += bags
        else:
            found.append((describe(root, options.episodes), _tell_dataset))
    if options.json:
        plain = [facts for facts, _ in found]
        say(json.dumps(plain if len(plain) > 1 else plain[0], ensure_ascii=False, indent=2))
        return 0
    for facts, tell in found:
        tell(facts)
    return 0


def _tell_bag(found: Mapping[str, Any]) -> None:
    say(f"{found['root']}: bag of {len(found['episodes'])} episode(s), {found['verdict']}")
    for each in found["episodes"]:
        begin, end = each["keep"]
        words = [f"  episode {each['episode']}: {each['seconds']:.2f} s"]
        if (begin, end) != (0.0, each["seconds"]):
            words.append(f"{begin:.2f} to {end:.2f} s are kept")
        words += ["deleted"] * each["deleted"]
        words.append(each["outcome"] or "no outcome")
        say(", ".join(words) + f", {each['task']!r}")
    for line in found["edits"]:
        say(f"  marked: {line}")


def _tell_dataset(found: Mapping[str, Any]) -> None:
    say(
        f"{found['root']}: LeRobot {found['format']}, robot {found['robot_type']}, "
        f"{found['fps']} frames/s, {found['bytes'] / _MB:.1f} MB"
    )
    say(f"  {found['episodes']} episodes, {found['frames']} frames, {found['seconds']:.1f} s")
    for key, spec in found["features"].items():
        size = "x".join(map(str, spec["shape"]))
        names = spec["codec"] or (" ".join(spec["names"]) if spec["names"] else "")
        say(f"  {key:<32} {spec['dtype']:<8} {size:<12} {names}".rstrip())
    for task in found["tasks"]:
        say(f"  task: {task!r}")
    say("  outcomes: " + ", ".join(f"{count} {word}" for word, count in found["outcomes"].items()))
    lengths = [length / found["fps"] for length in found["lengths"].values()]
    say(f"  episodes of {min(lengths):.2f} to {max(lengths):.2f} s")
    for line in found["edits"]:
        say(f"  edited: {line}")
    if "selected" in found:
        _tell_selected(found)


def _tell_selected(found: Mapping[str, Any]) -> None:
    selected = found["selected"]
    frames = sum(each["length"] for each in selected)
    say(
        f"  selected: {len(selected)} of {found['episodes']} episodes, {frames} frames, "
        f"{frames / found['fps']:.1f} s"
    )
    for each in selected[:_TOLD]:
        seconds = each["length"] / found["fps"]
        words = [f"{seconds:.2f} s", each["outcome"] or "no outcome", *map(repr, each["tasks"])]
        say(f"    episode {each['episode']}: {', '.join(words)}")
    if len(selected) > _TOLD:
        say(f"    and {len(selected) - _TOLD} more")


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
