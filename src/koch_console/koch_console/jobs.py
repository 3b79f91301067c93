# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Long work that the page starts: trainings, evaluations, edits of datasets, policies. No ROS.

Each job is a `koch` command in a process of its own, which outlives the console. What is known of
it is in its folder, so that a console that starts again finds it again:

- `job.json`: what was asked for, and the words behind `koch`;
- `process.json`: the command's process id, and when that process began as Linux counts;
- `log.txt`: what the command says;
- `ended.json`: exit code, once it has ended.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from koch_core.errors import KochError
from koch_core.files import write_atomically

JOB, PROCESS, LOG, ENDED, STOPPED = (
    "job.json", "process.json", "log.txt", "ended.json", "stopped",
)  # fmt: skip
FOLDER = ".koch_jobs"
POLICY = "policy"  # a policy that was loaded: it serves the robot, and is no work at a desk
MOST_RUNNING = 2  # each keeps the cores busy that the robot needs
_MOST_KEPT = 200
_FILMS = 3  # of the first rollouts of an evaluation
_LOG_BYTES = 64_000
_START_S = 10.0
_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,80}", re.ASCII)


class JobError(KochError):
    """A job cannot be started or stopped."""


@dataclass(frozen=True)
class PageJob:
    """One started command.

    Attributes:
        folder: Where its files are.
        kind: train, eval, dataset or policy.
        about: The dataset or run that it works on.
        words: What follows `koch`.
        out: Folder of the result.
        began_s: When it was started, seconds since 1970.
    """

    folder: Path
    kind: str
    about: str
    words: tuple[str, ...]
    out: str
    began_s: float

    @property
    def state(self) -> str:
        """starting, running, finished, failed, stopped or killed."""
        ended = _json(self.folder / ENDED)
        if "code" in ended:
            if (self.folder / STOPPED).exists():
                return "stopped"
            return "finished" if ended["code"] == 0 else "failed"
        process = _json(self.folder / PROCESS)
        if not process:
            return "starting" if time.time() - self.began_s < _START_S else "killed"
        return "running" if _is_alive(process) else "killed"

    @property
    def is_open(self) -> bool:
        """It has not ended."""
        return self.state in ("starting", "running")

    def log(self) -> str:
        """The newest lines of what it has said; of a line that was overwritten the last text."""
        path = self.folder / LOG
        if not path.is_file():
            return ""
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - _LOG_BYTES))
            text = file.read().decode(errors="replace")
        return "\n".join(line.rpartition("\r")[2] for line in text.split("\n"))

    def describe(self) -> Mapping[str, Any]:
        """What the page shows in a list."""
        return {
            "id": self.folder.name,
            "kind": self.kind,
            "about": self.about,
            "command": shlex.join(["koch", *self.words]),
            "out": self.out,
            "began_s": self.began_s,
            "state": self.state,
        }


class Jobs:
    """All jobs of one folder; methods may be called from any thread.

    Args:
        root: Folder of trainings and datasets.
        koch: The words that start the `koch` command; empty: it is not installed.
    """

    def __init__(self, root: Path, koch: Sequence[str]) -> None:
        self.root = root
        self._koch = tuple(koch)
        self._lock = threading.Lock()
        self._known: dict[str, PageJob] = {}
        self._children: list[subprocess.Popen[bytes]] = []

    def jobs(self) -> list[PageJob]:
        """All jobs, the newest first."""
        with self._lock:
            self._children = [child for child in self._children if child.poll() is None]
            folders = sorted((self.root / FOLDER).glob(f"*/{JOB}"), reverse=True)[:_MOST_KEPT]
            for path in folders:
                if path.parent.name not in self._known and (job := _read(path)) is not None:
                    self._known[path.parent.name] = job
            names = [path.parent.name for path in folders]
            return [self._known[name] for name in names if name in self._known]

    def job(self, name: str) -> PageJob:
        """A job by its name.

        Raises:
            JobError: There is none; no name of a browser becomes a path.
        """
        for job in self.jobs():
            if job.folder.name == name:
                return job
        raise JobError("There is no such job.")

    def start(self, kind: str, about: str, words: Sequence[str], out: Path) -> PageJob:
        """Start `koch WORDS`.

        Raises:
            JobError: It cannot be started.
        """
        if not self._koch:
            raise JobError("The koch command is not installed here.")
        running = [job for job in self.jobs() if job.is_open]
        if kind == POLICY and any(job.kind == POLICY for job in running):
            raise JobError("A policy is loaded already; unload it first.")
        if kind != POLICY and sum(job.kind != POLICY for job in running) >= MOST_RUNNING:
            raise JobError(f"{MOST_RUNNING} jobs run already; wait for one, or stop it.")
        if any(job.out == str(out) for job in running):
            raise JobError(f"Another job writes to {out}.")
        began_s = time.time()
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(began_s))
        folder = self.root / FOLDER / f"{stamp}-{kind}-{os.urandom(3).hex()}"
        facts = {"kind": kind, "about": about, "words": list(words), "out": str(out)}
        try:
            folder.mkdir(parents=True)
            write_atomically(
                folder / JOB,
                json.dumps({**facts, "began_s": began_s, "command": [*self._koch, *words]}),
            )
            child = subprocess.Popen(
                [sys.executable, "-m", "koch_console.job_process", str(folder)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C at the console is not meant for it
            )
        except OSError as exc:
            raise JobError(f"{folder}: {exc.strerror or exc}") from exc
        with self._lock:
            self._children.append(child)
        return self.job(folder.name)

    def stop(self, name: str) -> None:
        """Ask a job to end, as Ctrl-C does: a training saves a checkpoint first.

        Raises:
            JobError: There is no such job, or it has ended.
        """
        job = self.job(name)
        process = _json(job.folder / PROCESS)
        if not _is_alive(process):
            raise JobError(f"The job has ended: {job.state}.")
        (job.folder / STOPPED).touch()
        try:
            os.kill(int(process["pid"]), signal.SIGINT)
        except (ProcessLookupError, PermissionError) as exc:
            raise JobError(f"The job cannot be stopped: {exc.strerror}.") from exc


# -- what may be asked for: a choice of options, each checked, and no other word -----------


def training_words(asked: Mapping[str, Any], dataset: Path, runs: Path) -> tuple[list[str], Path]:
    """Words of `koch train` and the folder of the run.

    Raises:
        JobError: Something is not what a training takes.
    """
    _only(asked, {"dataset", "policy", "preset", "steps", "batch_size", "name"})
    out = runs / new_name(asked.get("name"), "name")
    if out.exists():
        raise JobError(f"{out} is there already; give another name.")
    words = ["train", "--dataset", str(dataset), "--out", str(out)]
    words += ["--policy", new_name(asked.get("policy"), "policy")]
    if asked.get("preset"):
        words += ["--preset", new_name(asked["preset"], "preset")]
    for key, most in (("steps", 10_000_000), ("batch_size", 4096)):
        if asked.get(key) is not None:
            words += ["--set", f"train.{key}={_whole(asked[key], key, 1, most)}"]
    return words, out


def evaluation_words(asked: Mapping[str, Any], run: Path) -> tuple[list[str], Path]:
    """Words of `koch eval` and the folder of its report, below the run's.

    In lockstep: it must not meet the graph that may be running here.

    Raises:
        JobError: Something is not what an evaluation takes.
    """
    _only(asked, {"run", "checkpoint", "rollouts", "seed", "scene"})
    policy = _checkpoint(asked, run)
    seed = _whole(asked.get("seed", 100_000), "seed", 0, 2**31 - 1)
    rollouts = _whole(asked.get("rollouts", 50), "rollouts", 1, 1000)
    scene = new_name(asked["scene"], "scene") if asked.get("scene") else ""
    name = "-".join(filter(None, (policy.parent.resolve().name, scene, f"{seed}x{rollouts}")))
    out = run / "eval" / name
    if out.exists():
        raise JobError(f"{out} is there already; give another seed or count.")
    words = ["eval", "--lockstep", "--policy", str(policy), "--out", str(out)]
    words += ["--rollouts", str(rollouts), "--seed", str(seed)]
    words += ["--films", str(min(rollouts, _FILMS))]
    return words + (["--scene", scene] if scene else []), out


def policy_words(asked: Mapping[str, Any], run: Path, rig: Sequence[str]) -> list[str]:
    """Words of `koch up` that run the policy node of a checkpoint beside the graph.

    Args:
        asked: Checkpoint of the run.
        run: Its folder.
        rig: Words that name the rig and the namespace of the graph.

    Raises:
        JobError: The run has no such checkpoint.
    """
    _only(asked, {"run", "checkpoint"})
    return ["up", *rig, "--policy", str(_checkpoint(asked, run)), "--only", "policy"]


def _checkpoint(asked: Mapping[str, Any], run: Path) -> Path:
    step = new_name(asked.get("checkpoint", "last"), "checkpoint")
    policy = run / "checkpoints" / step / "pretrained_model"
    if not policy.is_dir():
        raise JobError(f"{run} has no checkpoint {step}.")
    return policy


def _only(asked: Mapping[str, Any], known: set[str]) -> None:
    if unknown := sorted(set(asked) - known):
        raise JobError(f"{', '.join(unknown)!s:.60}: expected {', '.join(sorted(known))}.")


def _whole(value: object, what: str, low: int, high: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise JobError(f"{what}: got {value!r:.40}, expected {low} to {high}.")
    return value


def new_name(text: object, what: str) -> str:
    """A name for a new folder.

    Raises:
        JobError: It is none: a name is no path.
    """
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise JobError(f"{what}: got {text!r:.60}, expected letters, digits, '.', '_' and '-'.")
    return text


def begin_of(pid: int) -> str:
    """When a process began, in Linux's own count; empty where there is none of that number.

    A number is given out again after a while; number and begin together are not.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return stat.rpartition(")")[2].split()[19]  # field 22 of proc(5); the name may have spaces


def _is_alive(process: Mapping[str, Any]) -> bool:
    began = process.get("began")
    return bool(began) and begin_of(int(process.get("pid", 0))) == began


def _read(path: Path) -> PageJob | None:
    facts = _json(path)
    try:
        words = tuple(str(word) for word in facts["words"])
        began_s = float(facts["began_s"])
        return PageJob(path.parent, facts["kind"], facts["about"], words, facts["out"], began_s)
    except (KeyError, TypeError, ValueError):
        return None  # of a console that was killed while it wrote, or of another program


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
