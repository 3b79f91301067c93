# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One run of a policy that a person watches: its status line, its keys, its label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from koch_core.terminal import LinePart, StatusLine, say
from koch_episodes.recorder.plan import Key

if TYPE_CHECKING:
    from koch_episodes.recorder.keys import Keyboard, Lines
    from koch_policy.nodes.run_client import RunClient

_STATES = ("loading", "idle", "running", "paused", "shadow", "aborted")
_CODES = ("finished", "cancelled", "stale stream", "policy error", "mismatch", "refused")
_PERIOD_S = 0.1


@dataclass(frozen=True)
class RunRequest:
    """What is asked of each run.

    Attributes:
        task: Task text; empty for the rig's.
        max_duration_s: The run ends by itself after this time; 0: never.
        strategy: Of chunk execution; empty for the policy's own.
        record: An episode is recorded beside.
        label: Outcome where no key tells.
        blind: The status line tells nothing by which a policy can be known.
    """

    task: str = ""
    max_duration_s: float = 0.0
    strategy: str = ""
    record: bool = False
    label: str = ""
    blind: bool = False


@dataclass(frozen=True)
class RunRecord:
    """How a run ended.

    Attributes:
        code: Of koch_interfaces/action/RunPolicy.
        reason: In words.
        steps: Actions that were sent.
        duration_s: From the first command to the end.
        outcome: success or failure, as a key or the label said; empty where neither did.
        episode: Folder of the recording; empty without.
        quit: The person wants no more runs.
    """

    code: int
    reason: str
    steps: int
    duration_s: float
    outcome: str = ""
    episode: str = ""
    quit: bool = False

    @property
    def went_well(self) -> bool:
        """It ended by itself, or because someone asked for it."""
        return self.code in (0, 1)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object; `success` is null where no one judged."""
        values = asdict(self)
        del values["quit"]
        return {**values, "success": {"success": True, "failure": False}.get(self.outcome)}


def watched_run(client: RunClient, request: RunRequest, keyboard: Keyboard | Lines) -> RunRecord:
    """One goal from start to result, with its episode."""
    path = client.start_episode(request.task) if request.record else ""
    if path:
        say(f"recording {path}")
    client.start(request.task, request.max_duration_s, request.strategy)
    outcome, quits = "", False
    try:
        outcome = _watch(client, keyboard, blind=request.blind)
    except KeyboardInterrupt:
        client.cancel()
        quits = True
    while (result := client.result()) is None:
        client.spin(_PERIOD_S)
    say(f"{_CODES[result.code]}: {result.reason}")
    say(f"{result.steps} actions in {result.duration_s:.1f} s")
    outcome = outcome or request.label
    verdict = client.stop_episode(outcome) if request.record else ""
    if verdict:
        say(f"episode {verdict}")
    return RunRecord(
        int(result.code),
        str(result.reason),
        int(result.steps),
        float(result.duration_s),
        outcome,
        path,
        quits,
    )


def _watch(client: RunClient, keyboard: Keyboard | Lines, *, blind: bool) -> str:
    """Show the run until it ends; the label that a key gave."""
    outcome, is_paused, line = "", False, StatusLine()
    keyboard.forget()  # typed while the policy loaded
    try:
        while client.result() is None:
            client.spin(_PERIOD_S)
            if client.status is not None and not keyboard.echoes:
                line.show(status_parts(client.status)[: 1 if blind else None])
            tell_highlight(client, line=line)
            for key in keyboard.read():
                if isinstance(key, str):
                    client.tell(key)
                    say(f"told: {key}")
                elif key is Key.HIGHLIGHT:
                    tell_highlight(client, pressed=True, line=line)
                elif key is Key.NEXT:
                    is_paused = not is_paused
                    line.end()
                    say(client.switch("pause" if is_paused else "resume"))
                elif key in (Key.QUIT, Key.SUCCESS, Key.FAILURE):
                    outcome = {Key.SUCCESS: "success", Key.FAILURE: "failure"}.get(key, "")
                    client.cancel()
    finally:
        line.end()
    return outcome


def tell_highlight(
    client: RunClient, *, pressed: bool = False, line: StatusLine | None = None
) -> None:
    """Ask for a highlight where its key was pressed; say what came of an earlier one."""
    told = (client.highlight.ask() if pressed else "") or client.highlight.answer()
    if told:
        if line is not None:
            line.end()
        say(told)


def status_parts(status: Any) -> list[LinePart]:
    """What a run's status line says, and what of it a narrow terminal keeps."""
    p50_ms, p95_ms = 1e3 * status.delay_p50_s, 1e3 * status.delay_p95_s
    way = f"camera to {status.way_stages[-2]} " if status.way_stages else ""
    return [
        LinePart(f"{_STATES[status.state]:8}", 0, _STATES[status.state]),
        LinePart(f"{status.rate_hz:5.1f} Hz", 2),
        LinePart(f"{status.steps_executed:5} actions", 3),
        LinePart(f"delay {p50_ms:.0f}/{p95_ms:.0f} ms", 4, f"{p50_ms:.0f}/{p95_ms:.0f} ms"),
        *([LinePart(f"{way}{1e3 * status.way_p95_s[-1]:.0f} ms", 6)] if way else []),
        LinePart(f"{status.strategy} {status.runtime}", 5, str(status.strategy)),
        *([LinePart(str(status.reason), 1, str(status.reason)[:40])] if status.reason else []),
    ]
