# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch run`: let a policy drive the follower, watch it, label it; or replay it offline."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.terminal import CommandLine, LinePart, StatusLine, say
from koch_episodes.recorder.keys import Keyboard, Lines
from koch_episodes.recorder.plan import Key

if TYPE_CHECKING:
    from koch_policy.nodes.run_client import RunClient

_STATES = ("loading", "idle", "running", "paused", "shadow", "aborted")
_LOAD_S = 300.0
_FIND_S = 10.0  # discovery is slow on a busy machine
_PERIOD_S = 0.1
LINES = "another task, or q end, s/f end with success/failure"
KEYS = "space pause, q end, s/f end with success/failure"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments."""
    parser = CommandLine(
        prog="koch run",
        description="Run a policy on the arm of a running graph (koch up). Without --policy the "
        "graph's own policy node is used.",
        epilog=f"Keys: {KEYS}.",
    )
    parser.add_argument("--policy", metavar="DIR", help="checkpoint folder or training output")
    parser.add_argument("--rig", type=Path, help="rig file (default: $KOCH_RIG, else the shipped)")
    parser.add_argument("--task", help="task text (default: the rig's)")
    parser.add_argument(
        "--interactive", action="store_true", help=f"read lines while the policy runs: {LINES}"
    )
    parser.add_argument(
        "--strategy", default="", help="queue, temporal_ensemble, blend or rtc (default: fitting)"
    )
    parser.add_argument("--shadow", action="store_true", help="predict, compare, command nothing")
    parser.add_argument(
        "--max-duration", type=float, default=0.0, metavar="S", help="end a run after this time"
    )
    parser.add_argument("--once", action="store_true", help="one run, then exit")
    parser.add_argument("--record", action="store_true", help="record each run as an episode")
    parser.add_argument("--label", default="", help="outcome of recorded runs, where no key tells")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here")
    parser.add_argument("--runtime", default="auto", help="auto, torch, openvino or lerobot")
    parser.add_argument(
        "--allow-mismatch", action="store_true", help="run although the rig's fingerprint differs"
    )
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE",
        help="any other parameter of the policy node",
    )  # fmt: skip
    parser.add_argument(
        "--replay", type=Path, metavar="PATH", help="offline: over a bag or a dataset folder"
    )
    parser.add_argument("--episode", type=int, default=0, help="of the dataset to replay")
    parser.add_argument("--plot", type=Path, help="image of the replay (default: replay.png)")
    options = parser.parse_args(argv)
    if options.replay is not None and options.policy is None:
        parser.error("--replay needs --policy DIR")
    if options.max_duration < 0.0:
        parser.error("--max-duration is negative")
    if options.task is not None and not options.task.strip():
        parser.error("--task is empty; leave it out for the rig's task")
    options.task = options.task or ""
    if options.policy is not None and not Path(options.policy).expanduser().is_dir():
        parser.error(
            f"--policy {options.policy}: there is no such folder; expected a checkpoint, or a "
            "training output that has checkpoints/last"
        )
    return options


def chosen_rig(path: Path | None) -> Path:
    """The rig that the user named, else KOCH_RIG, else the shipped one."""
    from koch_rig.model import default_rig

    return default_rig(path).resolve()


def main(argv: Sequence[str]) -> int:
    """Run the subcommand.

    Returns:
        0 when the last run ended as asked, 1 when it was aborted.
    """
    options = parse(argv)
    if options.replay is not None:
        from koch_policy.offline_cli import replay_command

        return replay_command(options, chosen_rig(options.rig))
    from koch_policy.nodes.run_client import PolicyProcess, RunClient

    results: list[dict[str, Any]] = []
    process = None
    reader: Keyboard | Lines = Lines() if options.interactive else Keyboard()
    with _terminates(), RunClient() as client, reader as keyboard:
        try:
            if options.policy is not None:
                parameters = {"use_sim_time": client.follows_clock(_FIND_S)}
                process = PolicyProcess({**parameters, **node_parameters(options)})
            client.wait_for_node(_LOAD_S if process else _FIND_S, process)
            while True:
                results.append(_one_run(client, options, keyboard))
                if options.once or not keyboard.present or not _again(keyboard, client):
                    break
        finally:
            if process is not None:
                process.close()
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 0 if results[-1]["code"] in (0, 1) else 1


def node_parameters(options: argparse.Namespace) -> dict[str, Any]:
    """The policy node's parameters of a command line; values of --set are YAML."""
    import yaml

    parameters: dict[str, Any] = {
        "rig": str(chosen_rig(options.rig)),
        "checkpoint": str(Path(options.policy).expanduser().resolve()),
        "strategy": options.strategy,
        "shadow": options.shadow,
        "runtime": options.runtime,
        "allow_mismatch": options.allow_mismatch,
    }
    for setting in options.settings:
        name, _, value = setting.partition("=")
        parameters[name] = yaml.safe_load(value)
    return parameters


@contextlib.contextmanager
def _terminates() -> Iterator[None]:
    """Let SIGTERM end a run as Ctrl-C does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _one_run(
    client: RunClient, options: argparse.Namespace, keyboard: Keyboard | Lines
) -> dict[str, Any]:
    """One goal from start to result, with its episode."""
    path = client.start_episode(options.task) if options.record else ""
    if path:
        say(f"recording {path}")
    client.start(options.task, options.max_duration, options.strategy)
    outcome = ""
    try:
        outcome = _watch(client, keyboard)
    except KeyboardInterrupt:
        client.cancel()
    while (result := client.result()) is None:
        client.spin(_PERIOD_S)
    names = ("finished", "cancelled", "stale stream", "policy error", "mismatch", "refused")
    say(f"{names[result.code]}: {result.reason}")
    say(f"{result.steps} actions in {result.duration_s:.1f} s")
    verdict = client.stop_episode(outcome or options.label) if options.record else ""
    if verdict:
        say(f"episode {verdict}")
    return {
        "code": int(result.code),
        "success": bool(result.success),
        "reason": result.reason,
        "steps": int(result.steps),
        "duration_s": float(result.duration_s),
        "outcome": outcome or options.label,
        "episode": path,
    }


def _watch(client: RunClient, keyboard: Keyboard | Lines) -> str:
    """Show the run until it ends; the label that a key gave."""
    outcome, is_paused, line = "", False, StatusLine()
    keyboard.forget()  # typed while the policy loaded
    try:
        while client.result() is None:
            client.spin(_PERIOD_S)
            if client.status is not None and not keyboard.echoes:
                line.show(status_parts(client.status))
            for key in keyboard.read():
                if isinstance(key, str):
                    client.tell(key)
                    say(f"told: {key}")
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


def status_parts(status: Any) -> list[LinePart]:
    """What a run's status line says, and what of it a narrow terminal keeps."""
    p50_ms, p95_ms = 1e3 * status.delay_p50_s, 1e3 * status.delay_p95_s
    return [
        LinePart(f"{_STATES[status.state]:8}", 0, _STATES[status.state]),
        LinePart(f"{status.rate_hz:5.1f} Hz", 2),
        LinePart(f"{status.steps_executed:5} actions", 3),
        LinePart(f"delay {p50_ms:.0f}/{p95_ms:.0f} ms", 4, f"{p50_ms:.0f}/{p95_ms:.0f} ms"),
        LinePart(f"{status.strategy} {status.runtime}", 5, str(status.strategy)),
        *([LinePart(str(status.reason), 1, str(status.reason)[:40])] if status.reason else []),
    ]


def _again(keyboard: Keyboard | Lines, client: RunClient) -> bool:
    """Ask whether to run once more."""
    keyboard.forget()  # a second space, meant for the run that has ended, would move the arm
    say("space: run again, q: quit")
    while True:
        client.spin(_PERIOD_S)
        for key in keyboard.read():
            if key in (Key.NEXT, Key.QUIT):
                return key is Key.NEXT
