# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch bench`: runs all benchmark scripts into one JSON and one Markdown table."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_core.command_line import from_command_line
from koch_core.options import Option, OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_ros.shared_topics import NAMESPACE_VARIABLE
from koch_vla.errors import BenchmarksNotFoundError
from koch_vla.machine import machine, versions
from koch_vla.paths import find_shared

BUSY_LOAD = 0.5
# Rounds that take long and are asked for by name, with arguments of their own.
ROUNDS = {"faults": "koch_vla.fault_round", "soak": "koch_vla.soak"}


OUTPUT = Option("folder of the results", flags=("--output", "-o"), metavar="DIR")
NOTE = Option("a sentence about the machine for the report")


@dataclass(frozen=True, kw_only=True)
class BenchOptions(OptionModel):
    """What `koch bench` is asked for."""

    only: tuple[str, ...] = option(
        (), "such as driver; default: all", flags=("only",), metavar="NAME"
    )
    folder: Path | None = option(None, "of the bench_*.py scripts")
    output: Path = same_as(OUTPUT, Path("outputs/bench"))
    timeout: float = option(900.0, "for each script [s]", above=0.0)


def find_benchmarks(folder: Path | None, only: Sequence[str]) -> list[Path]:
    """List the scripts to run.

    Args:
        folder: Where to look; the repository's `benchmarks` when None.
        only: Names such as "driver"; empty for all.

    Raises:
        BenchmarksNotFoundError: There are none, or not those that were named.
    """
    folder = folder or find_shared("benchmarks")
    scripts = sorted(folder.glob("bench_*.py")) if folder else []
    names = [name_of(script) for script in scripts]
    missing = [name for name in only if name not in names]
    if not scripts or missing:
        raise BenchmarksNotFoundError(folder or Path("benchmarks"), missing, names)
    return [script for script in scripts if not only or name_of(script) in only]


def name_of(script: Path) -> str:
    """bench_driver.py -> driver."""
    return script.stem.removeprefix("bench_")


def run_script(script: Path, timeout_s: float) -> dict[str, Any]:
    """Run one script in a process of its own; its failure is a result as well."""
    started = time.monotonic()
    # A script starts nodes of its own, under the names that it listens to.
    environment = {k: v for k, v in os.environ.items() if k != NAMESPACE_VARIABLE}
    environment |= {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with tempfile.TemporaryDirectory(prefix="koch_bench_") as folder:
        path = Path(folder) / "result.json"
        try:
            answer = subprocess.run(
                [sys.executable, str(script), "--json", str(path)],
                env=environment,
                timeout=timeout_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return {"failed": f"not done after {timeout_s:.0f} s"}
        if answer.returncode != 0:
            return {"failed": f"exit code {answer.returncode}"}
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            return {"failed": f"wrote no JSON: {error}"}
    result = found if isinstance(found, dict) else {"rows": found}
    return {**result, "seconds": round(time.monotonic() - started, 1)}


def to_markdown(report: Mapping[str, Any]) -> str:
    """Write a report as Markdown: machine, versions, one section for each benchmark."""
    lines = ["# Benchmarks", "", f"Measured on {report['date']}.", ""]
    for title in ("machine", "versions"):
        pairs = [f"{key} {value}" for key, value in report[title].items()]
        lines += [f"{title.capitalize()}: {', '.join(pairs)}.", ""]
    for name, result in report["benchmarks"].items():
        lines += [f"## {name}", ""]
        notes = {k: v for k, v in result.items() if not isinstance(v, (list, dict))}
        lines += [f"- {key}: {_cell(value)}" for key, value in notes.items()] + [""]
        for key, value in result.items():
            rows = [row for row in value if isinstance(row, dict)] if _is_table(value) else []
            if rows:
                lines += [f"{key}:", ""] if key != "rows" else []
                lines += [*_table(rows), ""]
    return "\n".join(lines).rstrip() + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict)


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(column.replace("_", " ") for column in columns) + " |"]
    lines.append("|" + "---|" * len(columns))
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")
    return lines


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value).replace("|", "\\|").replace("\n", " ")
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when a benchmark failed."""
    if argv and argv[0] in ROUNDS:
        module = importlib.import_module(ROUNDS[argv[0]])
        return int(module.main(argv[1:]))
    options = from_command_line(
        BenchOptions,
        "koch bench",
        "Run all benchmarks into one JSON and one Markdown file. `koch bench faults` "
        "and `koch bench soak` are rounds of their own; each has --help.",
        argv,
    )
    scripts = find_benchmarks(options.folder, options.only)
    report: dict[str, Any] = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "benchmarks": {},
    }
    if os.getloadavg()[0] > BUSY_LOAD:
        complain(
            f"koch bench: this machine is busy (load {os.getloadavg()[0]:.1f}); "
            "the figures will be too slow."
        )
    options.output.mkdir(parents=True, exist_ok=True)
    for script in scripts:
        say(f"== {name_of(script)}")
        report["benchmarks"][name_of(script)] = run_script(script, options.timeout)
        (options.output / "bench.json").write_text(json.dumps(report, indent=2))
        (options.output / "bench.md").write_text(to_markdown(report), encoding="utf-8")
    say(f"{options.output / 'bench.json'}\n{options.output / 'bench.md'}")
    failed = [name for name, result in report["benchmarks"].items() if "failed" in result]
    for name in failed:
        complain(f"koch bench: {name} failed: {report['benchmarks'][name]['failed']}")
    return 1 if failed else 0
