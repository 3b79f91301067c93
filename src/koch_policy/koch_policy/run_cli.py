# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch run`: let a policy drive the follower, watch it, label it; or replay it offline."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from koch_core.command_line import from_command_line
from koch_core.terminal import say
from koch_core.working import Working
from koch_episodes.recorder.keys import Keyboard, Lines
from koch_episodes.recorder.plan import Key
from koch_policy.files import resolve_checkpoint
from koch_policy.run_options import RunOptions
from koch_policy.watched_run import RunRecord, RunRequest, tell_highlight, watched_run
from koch_ros.shared_options import absolute

if TYPE_CHECKING:
    from koch_policy.nodes.run_client import RunClient

_LOAD_S = 300.0
_FIND_S = 10.0  # discovery is slow on a busy machine
_PERIOD_S = 0.1
KEYS = "space pause, q end, s/f end with success/failure, h highlight"


def parse(argv: Sequence[str]) -> RunOptions:
    """Parse the arguments."""
    return from_command_line(
        RunOptions,
        "koch run",
        "Run a policy on the arm of a running graph (koch up). Without --policy the graph's own "
        "policy node is used.",
        argv,
        epilog=f"Keys: {KEYS}.",
    )


def chosen_rig(path: Path | None) -> Path:
    """See koch_rig.model.default_rig, which is imported when it is needed."""
    from koch_rig.model import default_rig

    return default_rig(path)


def main(argv: Sequence[str]) -> int:
    """Run the subcommand.

    Returns:
        0 when the last run ended as asked, 1 when it was aborted.

    Raises:
        CheckpointError: The folder of --policy holds none.
    """
    options = parse(argv)
    if options.is_folder:  # before the node, which needs long to say the same
        resolve_checkpoint(Path(options.policy or "").expanduser())
    if options.replay is not None:
        from koch_policy.offline_cli import replay_command

        return replay_command(options, chosen_rig(options.rig))
    from koch_policy.nodes.run_client import PolicyProcess, RunClient

    results: list[RunRecord] = []
    process = None
    reader: Keyboard | Lines = Lines() if options.interactive else Keyboard()
    with _terminates(), RunClient() as client, reader as keyboard:
        try:
            what = "loading the policy" if options.policy else "looking for a policy node"
            with Working(f"koch run: {what}"):
                if options.policy is not None:
                    parameters = {"use_sim_time": client.follows_clock(_FIND_S)}
                    process = PolicyProcess({**parameters, **node_parameters(options)})
                if process is not None:
                    client.wait_for_node(_LOAD_S, process.check)
                else:
                    client.wait_for_node(_FIND_S)
            if isinstance(keyboard, Keyboard) and options.num_episodes:
                results = _judged(client, options, keyboard)
            else:
                results = _free_runs(client, options, keyboard)
        finally:
            if process is not None:
                process.close()
    if options.json is not None:
        options.json.write_text(
            json.dumps([run.to_json() for run in results], indent=2) + "\n", encoding="utf-8"
        )
    return 0 if all(run.went_well for run in results[-1:]) else 1


def node_parameters(options: RunOptions) -> dict[str, Any]:
    """The policy node's parameters of a command line; values of --set are YAML."""
    import yaml

    parameters: dict[str, Any] = {
        "rig": str(chosen_rig(options.rig)),
        "checkpoint": options.policy if options.is_name else absolute(options.policy or ""),
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


def _request(options: RunOptions) -> RunRequest:
    return RunRequest(
        options.task or "",
        options.max_duration,
        options.strategy,
        record=options.record,
        label=options.label,
    )


def _free_runs(
    client: RunClient, options: RunOptions, keyboard: Keyboard | Lines
) -> list[RunRecord]:
    """Run as often as the person likes."""
    results = []
    while True:
        results.append(watched_run(client, _request(options), keyboard))
        if options.once or not keyboard.present or not _again(keyboard, client):
            return results


def _judged(client: RunClient, options: RunOptions, keyboard: Keyboard) -> list[RunRecord]:
    """Run as often as was asked for, with a verdict on each."""
    from koch_policy.judge import Judge, JudgeSettings
    from koch_policy.nodes.onlooker import Onlooker
    from koch_rig.load import load_rig

    onlooker = Onlooker(client.session, load_rig(chosen_rig(options.rig)), None)
    settings = JudgeSettings(
        options.num_episodes, options.reset_time_s, options.out, _request(options)
    )
    judge = Judge(settings, client, keyboard, onlooker, lambda policy: None)
    evaluation = judge.run({"policy": options.policy or "policy"})
    return [trial.run for trial in evaluation.trials]


def _again(keyboard: Keyboard | Lines, client: RunClient) -> bool:
    """Ask whether to run once more."""
    keyboard.forget()  # a second space, meant for the run that has ended, would move the arm
    say("space: run again, h: highlight, q: quit")
    while True:
        client.spin(_PERIOD_S)
        tell_highlight(client)
        for key in keyboard.read():
            if key is Key.HIGHLIGHT:
                tell_highlight(client, pressed=True)
            elif key in (Key.NEXT, Key.QUIT):
                return key is Key.NEXT
