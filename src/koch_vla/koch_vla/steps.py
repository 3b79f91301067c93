# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Long work as a list of steps, each done once: interrupted, it goes on where it was.

`koch demo` and `koch improve` are such lists. A step runs subcommands of koch (`run_subcommand`)
and returns plain values. Its marker in `FOLDER/steps` says that it is done, and with which
settings.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from koch_core.files import locked, write_atomically
from koch_vla.errors import StepError
from koch_vla.executables import environment

Results = dict[str, Any]
SHOWN_EVERY_S = 10.0
KEPT_LINES = 8
LINE_ENDS = re.compile(rb"[\r\n]+")
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class StepSettings(Protocol):
    """What the user asked for; steps name what their results depend on."""

    @property
    def folder(self) -> Path:
        """Everything that the steps make goes there."""
        ...


S = TypeVar("S", bound=StepSettings)


@dataclass
class StepContext(Generic[S]):
    """What a step works with: settings, results of the steps before it, a way to talk.

    Attributes:
        settings: What the user asked for.
        say: Writes a line for the user.
        now: Is told the step that begins, for a sign of life.
        results: By step name.
        digest: Names the settings that the present step depends on: what it may find in a folder
            of this name, and go on with, was made with the same ones.
    """

    settings: S
    say: Callable[[str], None]
    now: Callable[[str], None] = lambda _: None
    results: dict[str, Results] = field(default_factory=dict)
    digest: str = ""


@dataclass(frozen=True)
class Step(Generic[S]):
    """One step.

    Attributes:
        name: Also the name of its marker.
        title: What the user reads.
        run: Does it and returns plain values for the report. It may find work of an interrupted
            run and go on with it.
        depends: Settings that its result depends on, besides those of the steps before it.
    """

    name: str
    title: str
    run: Callable[[StepContext[S]], Results]
    depends: tuple[str, ...] = ()


def run_steps(steps: Sequence[Step[S]], context: StepContext[S]) -> None:
    """Run the steps that are not done, in order, and fill in the results of all.

    A step is done when its marker holds the same settings as now, for it and all before it.
    """
    inputs: dict[str, Any] = {}
    begun = time.monotonic()
    for number, step in enumerate(steps, start=1):
        settings = context.settings
        inputs |= {name: str(getattr(settings, name)) for name in step.depends}
        context.digest = digest(inputs)
        marker = settings.folder / "steps" / f"{step.name}.{context.digest}.json"
        heading = f"[{number}/{len(steps)}] {step.title}"
        known = read_marker(marker)
        if known is not None:
            context.say(f"{heading}: done before")
            context.results[step.name] = known
            continue
        context.say(heading)
        context.now(f"      {step.title}")
        started = time.monotonic()
        results = step.run(context)
        seconds = time.monotonic() - started
        results["seconds"] = round(seconds, 1)
        context.results[step.name] = results
        write_marker(marker, inputs, results)
        total = time.monotonic() - begun
        context.say(f"      {seconds:.0f} s (since start {total / 60:.1f} min)")


def digest(inputs: Mapping[str, Any]) -> str:
    """A short name for a set of settings."""
    text = json.dumps(inputs, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def read_marker(path: Path) -> Results | None:
    """Return the results of a step that is done, None when it is not."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    results = found.get("results") if isinstance(found, dict) else None
    return results if isinstance(results, dict) else None


def write_marker(path: Path, inputs: Mapping[str, Any], results: Results) -> None:
    """Write a marker whole or not at all."""
    write_atomically(path, json.dumps({"inputs": dict(inputs), "results": results}, indent=2))


@contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """Hold a folder of steps for one process.

    Raises:
        StepError: Another one works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(folder / "lock", wait=False))
        except BlockingIOError as error:
            raise StepError(
                f"another {command} works in {folder}. Wait for it, or choose --folder."
            ) from error
        yield


def run_subcommand(
    words: Sequence[str],
    log: Path,
    say: Callable[[str], None],
    good: Sequence[int] = (0,),
) -> None:
    """Run `koch WORDS`, showing its newest line from time to time.

    Args:
        words: The command.
        log: Gets all of its output.
        say: Is shown a line.
        good: Exit codes that are no failure.

    Raises:
        StepError: It ended with an error; the message holds its last lines.
    """
    command = [sys.executable, "-m", "koch_vla", *words]
    log.parent.mkdir(parents=True, exist_ok=True)
    last: deque[str] = deque(maxlen=KEPT_LINES)
    with log.open("ab") as file:
        file.write(f"koch {' '.join(words)}\n".encode())
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment(command),
        )
        try:
            _follow(process, file.write, last, say)
        finally:
            if process.poll() is None:
                process.terminate()
            code = process.wait()
    if code not in good:
        raise StepError(
            f"`koch {words[0]}` ended with exit code {code}. All of its output is in {log}; "
            "the end:\n" + "\n".join(f"  {line}" for line in last)
        )


def _follow(
    process: subprocess.Popen[bytes],
    write: Callable[[bytes], int],
    last: deque[str],
    say: Callable[[str], None],
) -> None:
    """Copy output to the log; keep the last lines and show one now and then."""
    assert process.stdout is not None
    shown_s = time.monotonic()
    rest = b""
    while data := os.read(process.stdout.fileno(), 65536):
        write(data)
        *lines, rest = LINE_ENDS.split(rest + data)
        texts = [ESCAPES.sub("", line.decode("utf-8", "replace")).rstrip() for line in lines]
        last.extend(text for text in texts if text)
        if last and time.monotonic() - shown_s >= SHOWN_EVERY_S:
            shown_s = time.monotonic()
            say(f"      {last[-1].strip()[:110]}")
