# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Running conversion jobs in worker processes that outlive neither a crash nor their parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import forkserver
from types import ModuleType
from typing import TypeVar

from koch_episodes.convert.lease import Watch, leased, pause
from koch_episodes.convert.worker import (
    Job,
    JobResult,
    Look,
    LookTask,
    convert_bag,
    finished,
    look_at_bag,
    looked,
)
from koch_episodes.dataset.layout import Codec
from koch_episodes.errors import EpisodeError

Progress = Callable[[int, int, JobResult], None]
_WATCH_S = 0.2
_KILLED = "the worker process died on it"
T = TypeVar("T")
Task = TypeVar("Task", bound=LookTask)
R = TypeVar("R")


def prepare(codec: Codec) -> None:
    """Start the process that forks the workers; it imports their code while others still plan."""
    context = multiprocessing.get_context("forkserver")
    # Copying needs no OpenCV.
    encodes = codec is not Codec.COPY
    context.set_forkserver_preload(["koch_episodes.convert.worker", *["cv2"] * encodes])
    forkserver.ensure_running()


def look_at_bags(tasks: Sequence[LookTask], jobs: int) -> dict[LookTask, Look]:
    """Survey all bags, in order.

    Raises:
        EpisodeError: The disk is full or not writable.
    """
    found: dict[LookTask, Look] = {}

    def note(task: LookTask, look: Look) -> None:
        found[task] = look
        if look.fatal:
            raise EpisodeError(task.bag.name, look.error)

    _run_all(tasks, jobs, looked, look_at_bag, note, lambda _: Look({}, error=_KILLED))
    return {task: found[task] for task in tasks}


def run_jobs(planned: Sequence[Job], jobs: int, progress: Progress | None) -> dict[Job, JobResult]:
    """Run all jobs that are not finished yet.

    Args:
        planned: Jobs in order.
        jobs: Worker processes; 1: in this process.
        progress: Called after every job.

    Returns:
        A result for every job.

    Raises:
        EpisodeError: The disk is full or not writable.
    """
    results: dict[Job, JobResult] = {}

    def note(job: Job, result: JobResult) -> None:
        results[job] = result
        if progress is not None:
            progress(len(results), len(planned), result)
        if result.fatal:
            raise EpisodeError(job.bag.name, result.error)

    def killed(job: Job) -> JobResult:
        return JobResult((), {"bag": job.bag.name}, _KILLED)

    _run_all(planned, jobs, finished, convert_bag, note, killed)
    return results


def _run_all(
    tasks: Sequence[Task],
    jobs: int,
    known: Callable[[Task], R | None],
    work: Callable[[Task], R],
    note: Callable[[Task, R], None],
    killed: Callable[[Task], R],
) -> None:
    """Do all tasks that are not done, beside other workers at the same folder.

    Args:
        tasks: In order.
        jobs: Worker processes.
        known: Returns what a task came to, where it is done.
        work: Does a task.
        note: Takes what a task came to.
        killed: Says that a task ended its worker process.
    """
    watch = Watch()
    attempt = partial(_attempt, known, work)
    todo = dict.fromkeys(tasks)

    def took(task: Task, result: R | None) -> None:
        if result is not None:
            del todo[task]
            note(task, result)

    for task in tasks:
        took(task, known(task))
    in_this_process = jobs <= 1 or len(todo) == 1
    while todo:
        free = [task for task in todo if watch.is_free(task.lease)]
        if in_this_process:
            for task in free:
                took(task, attempt(task))
        elif free:
            for task in _in_pool(free, jobs, attempt, took):
                # One of them killed its worker; find out which.
                alone = not watch.is_held(task.lease)
                if alone and _in_pool([task], 1, attempt, took):
                    took(task, killed(task))
        if todo:  # others are at the rest
            pause()


def _attempt(known: Callable[[Task], R | None], work: Callable[[Task], R], task: Task) -> R | None:
    """Do a task that nobody else is at; None where somebody is."""
    task.lease.parent.mkdir(parents=True, exist_ok=True)
    with leased(task.lease) as mine:
        return known(task) or (work(task) if mine else None)


def _in_pool(
    todo: Sequence[T], jobs: int, work: Callable[[T], R], note: Callable[[T, R], None]
) -> list[T]:
    """Run jobs in worker processes; returns those that were lost with a crashed worker."""
    lost: list[T] = []
    before = set(multiprocessing.active_children())
    with ProcessPoolExecutor(
        min(jobs, len(todo)),
        mp_context=multiprocessing.get_context("forkserver"),
        initializer=_prepare_worker,
        initargs=(os.getpid(),),
    ) as pool:
        with _without_main():
            futures: dict[Future[R], T] = {pool.submit(work, each): each for each in todo}
        try:
            for future in as_completed(futures):
                try:
                    note(futures[future], future.result())
                except BrokenProcessPool:
                    lost.append(futures[future])
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()
            raise
    return lost


@contextmanager
def _without_main() -> Iterator[None]:
    """Start workers that do not run the caller's script once more.

    They need nothing of it; it takes them a tenth of a second, and one that converts at its top
    level, without asking for its ``__name__``, would do so in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _prepare_worker(converter: int) -> None:
    """Leave Ctrl-C to the converter, and end when that is gone.

    A worker that went on after it was killed would write into the folders of the next run. Its
    parent is the fork server, which ends only after the workers do: so it watches the converter.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(converter,), daemon=True).start()


def _end_with(converter: int) -> None:
    while True:
        try:
            os.kill(converter, 0)
        except ProcessLookupError:
            os._exit(1)
        time.sleep(_WATCH_S)
