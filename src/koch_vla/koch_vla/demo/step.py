# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The demo as a list of steps, each done once: interrupted, it goes on where it was."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from koch_core.files import write_atomically

Results = dict[str, Any]
SMALL_PRESET = "tiny"  # of a policy that learns from a few demonstrations, told the true poses
VISION_PRESET = "vision"  # of a policy that learns from cameras


@dataclass(frozen=True)
class DemoSettings:
    """What the user asked for.

    Attributes:
        folder: Everything the demo makes goes there.
        rig: The simulated rig's file.
        episodes: Demonstrations to record.
        rollouts: Rollouts of the trained policy.
        policy: Type of the policy, one that has a preset for so little.
        vision: The policy sees the cameras, not the true poses of block and cup.
        seed: Of the world and the training.
        speed: Simulated seconds per second, while recording and running.
        lockstep: Simulate without nodes and without a clock: this machine is too slow for them.
    """

    folder: Path
    rig: Path
    episodes: int = 20
    rollouts: int = 10
    policy: str = "act"
    vision: bool = False
    seed: int = 0
    speed: float = 1.0
    lockstep: bool = False

    @property
    def variant(self) -> str:
        """Name of the policy's folder."""
        return f"{self.policy}_vision" if self.vision else self.policy


@dataclass
class DemoContext:
    """What a step works with: settings, results of the steps before it, a way to talk.

    Attributes:
        settings: What the user asked for.
        say: Writes a line for the user.
        now: Is told the step that begins, for a sign of life.
        results: By step name.
    """

    settings: DemoSettings
    say: Callable[[str], None]
    now: Callable[[str], None] = lambda _: None
    results: dict[str, Results] = field(default_factory=dict)


@dataclass(frozen=True)
class DemoStep:
    """One step of the demo.

    Attributes:
        name: Also the name of its marker.
        title: What the user reads.
        run: Does it and returns plain values for the report. It may find work of an interrupted
            run and go on with it.
        depends: Settings that its result depends on, besides those of the steps before it.
    """

    name: str
    title: str
    run: Callable[[DemoContext], Results]
    depends: tuple[str, ...] = ()


def run_steps(steps: Sequence[DemoStep], context: DemoContext) -> None:
    """Run the steps that are not done, in order, and fill in the results of all.

    A step is done when its marker holds the same settings as now, for it and all before it.
    """
    inputs: dict[str, Any] = {}
    begun = time.monotonic()
    for number, step in enumerate(steps, start=1):
        settings = context.settings
        inputs |= {name: str(getattr(settings, name)) for name in step.depends}
        marker = settings.folder / "steps" / f"{step.name}.{digest(inputs)}.json"
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
