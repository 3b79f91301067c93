# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch doctor`: looks at the machine and says what to repair. Needs neither a rig nor ROS."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option
from koch_core.terminal import fold, limit, paint, say, wants_colour
from koch_vla.doctor import devices, graphics, ros, system
from koch_vla.doctor.finding import Finding, Status, fail, ok

__all__ = ["Finding", "Status", "examine", "main"]

COLOURS = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}
_MARGIN = " " * 23  # under the message


def examine(folder: Path, rig: Path | None = None) -> Iterator[Finding]:
    """Run all checks.

    Args:
        folder: Where episodes will be written.
        rig: A rig file to check as well.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        system.check_python,
        system.check_compiler,
        system.check_processor,
        system.check_fastconv,
        system.check_clock,
        lambda: system.check_disk(folder),
        ros.check_home,
        ros.check_middleware,
        ros.check_domain,
        ros.check_shared_memory,
        ros.check_messages,
        ros.check_companions,
        devices.check_ports,
        devices.check_cameras,
        graphics.check_gpu,
        graphics.check_egl,
    )
    for check in checks:
        yield from check()
    if rig is not None:
        yield from check_rig(rig)


def check_rig(path: Path) -> Iterator[Finding]:
    """A rig file, and whether the ports that it names are there."""
    from koch_core.errors import KochError
    from koch_rig.load import load_rig

    try:
        rig = load_rig(path)
    except KochError as error:
        remedy = f"Edit {path}." if path.is_file() else "Name a rig file: --rig FILE."
        yield fail("rig", str(error), remedy)
        return
    yield ok("rig", f"{rig.name}: arms {', '.join(rig.arms)}; cameras {', '.join(rig.cameras)}")
    for arm in rig.arms.values():
        if not arm.calibration_path.is_file():
            yield fail(
                f"arm {arm.name}",
                f"no calibration {arm.calibration_path}",
                f"koch calibrate {arm.name} --rig {path}",
            )
        elif rig.simulation is None and not Path(arm.port).exists():
            yield fail(
                f"arm {arm.name}",
                f"no port {arm.port}",
                f"Plug the arm in, or write its port (ls /dev/serial/by-id) into {path}.",
            )
        else:
            yield ok(f"arm {arm.name}", f"{arm.port}, {arm.calibration_path.name}")


def write_line(finding: Finding, *, colour: bool, width: int | None = None) -> str:
    """One finding as text: status, check, message, and the fix below it.

    Args:
        finding: What was found.
        colour: Escape sequences are understood.
        width: Columns of the terminal; None for no limit.
    """
    status = paint(f"{finding.status.value:<4}", COLOURS[finding.status], enabled=colour)
    texts = [finding.message, *([f"-> {finding.fix}"] if finding.fix else [])]
    if width is not None:
        texts = [fold(text, width - len(_MARGIN)) for text in texts]
    lines = "\n".join(texts).split("\n")
    return f"{status}  {finding.check:<16} " + f"\n{_MARGIN}".join(lines)


@dataclass(frozen=True, kw_only=True)
class DoctorOptions(OptionModel):
    """What `koch doctor` is asked for."""

    json: bool = option(False, "write the findings as JSON")
    rig: Path | None = option(None, "check this rig file as well", metavar="FILE")
    root: Path = option(Path(), "where episodes will be written", metavar="DIR")


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when a finding is FAIL."""
    about = "Check this machine; each finding comes with its fix."
    options = from_command_line(DoctorOptions, "koch doctor", about, argv)
    findings = []
    for finding in examine(options.root.resolve(), options.rig):
        findings.append(finding)
        if not options.json:
            say(write_line(finding, colour=wants_colour(sys.stdout), width=limit()))
    counts = {s: sum(f.status is s for f in findings) for s in Status}
    if options.json:
        say(json.dumps([finding.as_json() for finding in findings], indent=2))
    else:
        say(f"\n{counts[Status.OK]} OK, {counts[Status.WARN]} WARN, {counts[Status.FAIL]} FAIL")
    return 1 if counts[Status.FAIL] else 0
