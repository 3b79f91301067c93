# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What of the page koch commands do: edits of datasets, trainings, policies, jobs. No ROS.

Who looks only may read all of it; whatever starts a process or writes a file is for operators.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from koch_console.answers import HEADERS, asked_of, json_answer, must_operate
from koch_console.datasets import Datasets
from koch_console.episodes import Episodes
from koch_console.jobs import POLICY, Jobs, PageJob, evaluation_words, policy_words, training_words
from koch_core.errors import KochError

_T = TypeVar("_T")
_PERIOD_S = 1.0
_FILMS = {"film": "rollouts.mp4", "sheet": "contact_sheet.png"}


class Workshop:
    """Routes of datasets, trainings and jobs.

    Args:
        episodes: Recordings.
        datasets: Datasets below the folder of runs.
        jobs: Long work in processes of its own.
        runs: Describes the training runs.
        rig: Words that name the rig and its namespace to `koch up`.
    """

    def __init__(
        self,
        episodes: Episodes,
        datasets: Datasets,
        jobs: Jobs,
        runs: Callable[[], Sequence[Mapping[str, Any]]],
        rig: Sequence[str],
    ) -> None:
        self._episodes = episodes
        self._datasets, self._jobs, self._runs = datasets, jobs, runs
        self._rig = tuple(rig)
        self._ranking = asyncio.Lock()
        self._looked_s = -_PERIOD_S
        self._state: Mapping[str, Any] = {}

    def routes(self) -> list[web.RouteDef]:
        """All of them."""
        one = "/datasets/{name}"
        film = "{what:film|sheet|rollout_\\d{1,10}}"
        return [
            web.get("/datasets", self._on_list),
            web.get(one, self._on_dataset),
            web.get(f"{one}/quality", self._on_quality),
            web.get("/quality", self._on_quality),
            web.get(one + "/episodes/{number:\\d{1,9}}", self._on_episode),
            web.get(one + "/episodes/{number:\\d{1,9}}/{camera}", self._on_video),
            web.post(f"{one}/edit", self._on_edit),
            web.post(f"{one}/undo", self._on_undo),
            web.post(f"{one}/apply", self._on_apply),
            web.post("/episodes/{name}/{what:edit|undo}", self._on_mark),
            web.get("/runs", self._on_runs),
            web.get("/runs/{name}/{evaluation}/" + film, self._on_film),
            web.get("/jobs", self._on_jobs),
            web.get("/jobs/{id}/log", self._on_log),
            web.post("/jobs/{id}/stop", self._on_stop),
            web.post("/train", self._on_train),
            web.post("/evaluate", self._on_evaluate),
            web.post("/policy", self._on_policy),
        ]

    def state(self) -> Mapping[str, Any]:
        """What every page must know at once: how often datasets were edited, how jobs are."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= _PERIOD_S:
            self._looked_s = now_s
            jobs = self._jobs.jobs()
            self._state = {
                "edited": self._datasets.edited + self._episodes.edited,
                "jobs": {job.folder.name: job.state for job in jobs[:20]},
                "policy": next((_loaded(job) for job in jobs if job.kind == POLICY), None),
            }
        return self._state

    # -- datasets -------------------------------------------------------------------------------

    async def _on_list(self, _: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(self._datasets.facts)
        return json_answer({"root": str(self._datasets.root), "datasets": found})

    async def _on_dataset(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        return json_answer(await _found(self._datasets.describe, name))

    async def _on_quality(self, request: web.Request) -> web.StreamResponse:
        """The episodes of a dataset, or the recordings, the most doubtful first."""
        must_operate(request)  # it costs seconds
        if self._ranking.locked():
            raise web.HTTPServiceUnavailable(text="Episodes are being ranked already.\n")
        async with self._ranking:
            if "name" in request.match_info:
                rows = await _found(self._datasets.quality, request.match_info["name"])
            else:
                rows = await _found(self._episodes.quality)
            return json_answer(rows)

    async def _on_episode(self, request: web.Request) -> web.StreamResponse:
        words = request.match_info
        return json_answer(
            await _found(self._datasets.episode, words["name"], int(words["number"]))
        )

    async def _on_video(self, request: web.Request) -> web.StreamResponse:
        """A file of videos; the browser asks for ranges of its bytes."""
        words = request.match_info
        path = await _found(
            self._datasets.video, words["name"], int(words["number"]), words["camera"]
        )
        return web.FileResponse(path, headers=HEADERS)

    async def _on_edit(self, request: web.Request) -> web.StreamResponse:
        name, edit = request.match_info["name"], await asked_of(request)
        await _done(self._datasets.edit, name, edit)
        return await self._on_dataset(request)

    async def _on_undo(self, request: web.Request) -> web.StreamResponse:
        await asked_of(request)
        await _done(self._datasets.undo, request.match_info["name"])
        return await self._on_dataset(request)

    async def _on_mark(self, request: web.Request) -> web.StreamResponse:
        """Mark a recording, or take the newest mark back."""
        asked, name = await asked_of(request), request.match_info["name"]
        if request.match_info["what"] == "edit":
            await _done(self._episodes.edit, name, asked)
        else:
            await _done(self._episodes.undo, name)
        return json_answer({})

    async def _on_apply(self, request: web.Request) -> web.StreamResponse:
        await asked_of(request)
        name = request.match_info["name"]
        words, out = await _done(self._datasets.application, name)
        return json_answer((await _done(self._jobs.start, "dataset", name, words, out)).describe())

    # -- runs and jobs --------------------------------------------------------------------------

    async def _on_runs(self, _: web.Request) -> web.StreamResponse:
        return json_answer(await asyncio.to_thread(self._runs))

    async def _run(self, name: object) -> Mapping[str, Any]:
        """A training run that was listed; no name becomes a path.

        Raises:
            HTTPNotFound: There is none of that name.
        """
        for run in await asyncio.to_thread(self._runs):
            if run["name"] == name:
                return run
        raise web.HTTPNotFound(text="There is no such run.\n")

    async def _on_film(self, request: web.Request) -> web.StreamResponse:
        words = request.match_info
        run = await self._run(words["name"])
        for evaluation in run.get("evaluations", ()):
            file = _FILMS.get(words["what"], f"{words['what']}.mp4")
            path = Path(run["folder"], evaluation["name"], file)
            if evaluation["name"] == words["evaluation"] and path.is_file():
                return web.FileResponse(path, headers=HEADERS)
        raise web.HTTPNotFound(text="There is no such film.\n")

    async def _on_jobs(self, _: web.Request) -> web.StreamResponse:
        jobs = await asyncio.to_thread(self._jobs.jobs)
        return json_answer([job.describe() for job in jobs])

    async def _on_log(self, request: web.Request) -> web.StreamResponse:
        job = await _found(self._jobs.job, request.match_info["id"])
        text = await asyncio.to_thread(job.log)
        return json_answer({**job.describe(), "log": text})

    async def _on_stop(self, request: web.Request) -> web.StreamResponse:
        await asked_of(request)
        await _done(self._jobs.stop, request.match_info["id"])
        return json_answer({})

    async def _on_train(self, request: web.Request) -> web.StreamResponse:
        asked = await asked_of(request)
        name = str(asked.get("dataset", ""))
        dataset = await _done(self._datasets.root_of, name)
        words, out = await _done(training_words, asked, dataset, self._datasets.root)
        return json_answer((await _done(self._jobs.start, "train", name, words, out)).describe())

    async def _on_evaluate(self, request: web.Request) -> web.StreamResponse:
        asked = await asked_of(request)
        run = await self._run(asked.get("run"))
        words, out = await _done(evaluation_words, asked, Path(run["folder"]))
        job = await _done(self._jobs.start, "eval", run["name"], words, out)
        return json_answer(job.describe())

    async def _on_policy(self, request: web.Request) -> web.StreamResponse:
        """Run the node of a policy; one at a time, since the arm obeys one."""
        asked = await asked_of(request)
        run = await self._run(asked.get("run"))
        folder = Path(run["folder"])
        words = await _done(policy_words, asked, folder, self._rig)
        job = await _done(self._jobs.start, POLICY, run["name"], words, folder / POLICY)
        return json_answer(job.describe())


def _loaded(job: PageJob) -> Mapping[str, Any]:
    """The policy that was loaded last; what was said at last where that failed."""
    checkpoint = Path(job.words[job.words.index("--policy") + 1]).parent.name
    facts = {"id": job.folder.name, "run": job.about, "checkpoint": checkpoint}
    state = job.state
    said = job.log() if state == "failed" else ""
    text = said[max(0, said.rfind("\nkoch ")) :].strip()
    return {**facts, "state": state, "text": text[:1000]}


async def _found(work: Callable[..., _T], *values: Any) -> _T:
    """Look something up in a thread.

    Raises:
        HTTPNotFound: It is not there, or cannot be read; the text says why.
    """
    try:
        return await asyncio.to_thread(work, *values)
    except KochError as exc:
        raise web.HTTPNotFound(text=f"{exc}\n") from exc


async def _done(work: Callable[..., _T], *values: Any) -> _T:
    """Do something in a thread.

    Raises:
        HTTPConflict: It cannot be done; the text says why.
    """
    try:
        return await asyncio.to_thread(work, *values)
    except KochError as exc:
        raise web.HTTPConflict(text=f"{exc}\n") from exc
