# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Resolves requirements/*.in to exact versions in requirements/*.txt, for several Pythons.

Wants a recent pip in the Python that runs it. Usage:
`python requirements/lock.py python3.10 python3.11 python3.12 python3.13`
"""

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
ROS_PARTS = ("ros-kilted", "ros-jazzy")
PARTS = ("base", "build", "console", "dev", "policy", "sim", *ROS_PARTS)
DATA = "weights"  # of these packages only the data is used: no dependencies
HEADER = """# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
# Written by requirements/lock.py from {part}.in; do not edit.
"""
# One pin for each (package, Python): {"numpy": {(3, 10): "2.2.6", (3, 11): "2.4.6"}}
Version = tuple[int, int]
Pins = dict[str, dict[Version, str]]
# Only CUDA builds of torch need these, and those name the exact versions themselves.
_OF_TORCH = ("cuda-", "nvidia-", "triton")


def resolve(python: str, inputs: Iterable[Path], *more: str) -> list[dict[str, Any]]:
    """Return pip's report on what it would install for the inputs with one interpreter.

    Args:
        python: The interpreter.
        inputs: Requirement files.
        more: Options of pip.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        # Our own pip resolves for the other interpreter: old ones take ten times as long.
        command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
        command += [
            "--dry-run",
            "--ignore-installed",
            "--prefer-binary",
            "--report",
            str(report),
            *more,
        ]
        for path in inputs:
            command += ["-r", str(path)]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        installs: list[dict[str, Any]] = json.loads(report.read_text(encoding="utf-8"))["install"]
    return installs


def canonical(name: str) -> str:
    """Write a distribution's name as the index does."""
    return re.sub(r"[-_.]+", "-", name).lower()


def required(lines: Iterable[str], extras: Iterable[str]) -> set[str]:
    """Return the names in requirement lines, those of other extras left out."""
    names = set()
    for line in lines:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*[\"']([^\"']+)", marker)
        match = re.match(r"[\w.-]+", requirement.split("#")[0].strip())
        if match and (extra is None or extra.group(1) in extras):
            names.add(canonical(match.group()))
    return names


def closure(part: str, installs: list[dict[str, Any]]) -> dict[str, str]:
    """Return the versions that one part needs, dependencies included."""
    found = {canonical(item["metadata"]["name"]): item for item in installs}
    lines = (FOLDER / f"{part}.in").read_text(encoding="utf-8").splitlines()
    waiting, pins = required(lines, ()), {}
    while waiting:
        name = waiting.pop()
        # A dependency that is not found belongs to another platform or Python.
        if name in pins or name not in found or name.startswith(_OF_TORCH):
            continue
        item = found[name]
        # "2.13.0+cpu" and "2.13.0" are one version here: the index decides which it has.
        pins[name] = item["metadata"]["version"].split("+")[0]
        dependencies = item["metadata"].get("requires_dist", [])
        waiting |= required(dependencies, item.get("requested_extras", []))
    return pins


def python_version(python: str) -> Version:
    """Ask an interpreter for its major and minor version."""
    code = "import sys; print(*sys.version_info[:2])"
    output = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True)
    major, minor = output.stdout.split()
    return int(major), int(minor)


def platform(part: str, name: str) -> list[str]:
    """Return the marker on the platform that a part names a package with: pip sees only ours."""
    text = (FOLDER / f"{part}.in").read_text(encoding="utf-8")
    found = re.search(rf"^{name} ;.*(platform_machine == \"\w+\")", text, re.MULTILINE)
    return [found.group(1)] if found else []


def pin_lines(
    name: str, versions: dict[Version, str], every: list[Version], more: list[str]
) -> list[str]:
    """Write the pins of one package, with markers where the Pythons differ, and with `more`.

    The first range is open downwards and the last one upwards, so that a Python that was not
    asked gets its neighbour's versions.
    """
    lines = []
    start = 0
    while start < len(every):
        end = start
        while end + 1 < len(every) and versions.get(every[end + 1]) == versions.get(every[start]):
            end += 1
        version = versions.get(every[start])
        bounds = []
        if start > 0:
            bounds.append('python_version >= "{}.{}"'.format(*every[start]))
        if end + 1 < len(every):
            bounds.append('python_version < "{}.{}"'.format(*every[end + 1]))
        if version is not None:
            marker = " and ".join([*bounds, *more])
            lines.append(f"{name}=={version}" + (f" ; {marker}" if marker else ""))
        start = end + 1
    return lines


def main(pythons: list[str]) -> int:
    """Lock every part for the given interpreters."""
    found = sorted((python_version(python), python) for python in pythons)
    locked: dict[str, Pins] = {part: {} for part in (*PARTS, DATA)}
    for version, python in found:
        for item in resolve(python, [FOLDER / f"{DATA}.in"], "--no-deps"):
            metadata = item["metadata"]
            found_pins = locked[DATA].setdefault(canonical(metadata["name"]), {})
            found_pins[version] = metadata["version"]
        for ros in ROS_PARTS:
            parts = [part for part in PARTS if part not in ROS_PARTS or part == ros]
            installs = resolve(python, [FOLDER / f"{part}.in" for part in parts])
            for part in parts:
                for name, pin in closure(part, installs).items():
                    locked[part].setdefault(name, {})[version] = pin
            print(f"{version[0]}.{version[1]} {ros}: {len(installs)} packages", flush=True)
    versions = [version for version, _ in found]
    for part, pins in locked.items():
        lines = [
            line
            for name in sorted(pins)
            for line in pin_lines(name, pins[name], versions, platform(part, name))
        ]
        text = HEADER.format(part=part) + "".join(f"{line}\n" for line in lines)
        (FOLDER / f"{part}.txt").write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
