# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets, trainings and jobs over HTTP: what operators may start, and who may not."""

import asyncio
import shutil
from pathlib import Path

import pytest
from aiohttp import ClientSession

pytestmark = pytest.mark.ros
SAMPLE = Path(__file__).resolve().parents[3] / "docs" / "sample" / "dataset"
SECRET, LOOK = "operate-secret", "looking-secret"
POSTS = [
    "/datasets/blocks/edit",
    "/datasets/blocks/undo",
    "/datasets/blocks/apply",
    "/episodes/episode_000000/edit",
    "/episodes/episode_000000/undo",
    "/train",
    "/evaluate",
    "/policy",
    "/jobs/x/stop",
]


@pytest.fixture
def desk(bench, tmp_path):
    """A console that has a dataset."""

    def make(*tokens):
        shutil.copytree(SAMPLE, tmp_path / "runs" / "blocks")
        return bench(*tokens, runs=str(tmp_path / "runs"))

    return make


def with_session(work):
    async def run():
        async with ClientSession() as session:
            return await asyncio.wait_for(work(session), 120.0)

    return asyncio.run(run())


def files(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_who_only_looks_starts_and_changes_nothing(desk, tmp_path):
    robot = desk(SECRET, LOOK)
    before = files(tmp_path / "runs")
    look = {"Authorization": f"Bearer {LOOK}"}

    async def work(session):
        for path in POSTS:
            async with session.post(robot.url + path, json={}, headers=look) as answer:
                assert answer.status == 403, path
            async with session.post(robot.url + path, json={}) as answer:
                assert answer.status == 401, path
        for path in ("/datasets/blocks/quality", "/quality"):
            async with session.get(robot.url + path, headers=look) as answer:
                assert answer.status == 403, path
        async with session.get(f"{robot.url}/datasets/blocks", headers=look) as answer:
            assert answer.status == 200

    with_session(work)
    assert files(tmp_path / "runs") == before


@pytest.mark.parametrize("path", POSTS)
def test_another_sites_page_and_odd_messages_change_nothing(desk, path, tmp_path):
    robot = desk()
    before = files(tmp_path / "runs")
    url = robot.url + path

    async def work(session):
        edit = '{"episode": 0, "delete": true}'
        sent = [
            ({"Origin": "http://evil.example", "Content-Type": "application/json"}, edit, 403),
            ({"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, edit, 403),
            # A form of another site can send these without asking first, and without an Origin
            # in old browsers.
            ({"Content-Type": "text/plain"}, edit, 415),
            ({"Content-Type": "application/x-www-form-urlencoded"}, "a=b", 415),
            ({"Content-Type": "application/json"}, "{", 400),
            ({"Content-Type": "application/json"}, "[" * 4000, 400),
            ({"Content-Type": "application/json"}, "[]", 400),
            ({"Content-Type": "application/json"}, '{"a": "' + "x" * 10_000 + '"}', 413),
        ]
        for headers, body, status in sent:
            async with session.post(url, data=body, headers=headers) as answer:
                assert answer.status == status, (headers, body[:40], await answer.text())
        async with session.get(url) as answer:
            assert answer.status in (404, 405)

    with_session(work)
    assert files(tmp_path / "runs") == before


def test_no_path_leads_out_of_the_folder(desk, tmp_path):
    robot = desk()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "meta").mkdir()
    (tmp_path / "secret" / "meta" / "info.json").write_text("{}")

    async def work(session):
        for path in (
            "/datasets/..%2Fsecret",
            "/datasets/%2E%2E%2Fsecret",
            "/datasets/blocks/episodes/0/..%2F..%2Fmeta%2Finfo.json",
            "/datasets/blocks/episodes/-1",
            "/datasets/blocks/episodes/99999999999999",
            "/runs/..%2Fsecret/eval/film",
            "/runs/blocks/..%2F..%2Fsecret/film",
            "/jobs/..%2F..%2Fsecret/log",
            "/jobs/.%2e/log",
        ):
            async with session.get(robot.url + path) as answer:
                assert answer.status == 404, path

    with_session(work)


def test_a_video_comes_in_ranges_and_an_edit_is_applied_by_a_job(desk, wait_for, tmp_path):
    robot = desk()
    url = f"{robot.url}/datasets/blocks"

    async def post(session, path, **body):
        async with session.post(url + path, json=body) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def state(session, name):
        async with session.get(f"{robot.url}/jobs/{name}/log") as answer:
            return await answer.json()

    async def work(session):
        async with session.get(f"{url}/episodes/0") as answer:
            (camera, *_) = (await answer.json())["videos"]
        part = {"Range": "bytes=4-7"}
        async with session.get(f"{url}/episodes/0/{camera}", headers=part) as answer:
            assert (answer.status, await answer.read()) == (206, b"ftyp")
        await post(session, "/edit", episode=0, outcome="failure")
        await post(session, "/edit", episode=0, delete=True)
        found = await post(session, "/undo")
        assert len(found["pending"]) == 1
        job = await post(session, "/apply")
        assert job["state"] in ("starting", "running")
        for _ in range(600):
            told = await state(session, job["id"])
            if told["state"] not in ("starting", "running"):
                break
            await asyncio.sleep(0.1)
        assert told["state"] == "finished", told["log"]
        async with session.get(url) as answer:
            assert (await answer.json())["pending"] == []
        async with session.get(f"{robot.url}/datasets/blocks_r2") as answer:
            assert (await answer.json())["episodes"][0]["outcome"] == "failure"

    with_session(work)


def test_a_wrong_request_is_told_and_starts_nothing(desk, tmp_path):
    robot = desk()
    before = files(tmp_path / "runs")

    async def work(session):
        for path, body, told in (
            ("/datasets/blocks/edit", {"episode": 7, "delete": True}, "no episode 7"),
            ("/datasets/none/edit", {"episode": 0, "delete": True}, "no dataset"),
            ("/datasets/blocks/apply", {}, "No edit waits"),
            ("/train", {"dataset": "none", "policy": "act", "name": "a"}, "no dataset"),
            ("/train", {"dataset": "blocks", "policy": "act", "name": "../a"}, "expected letters"),
            ("/train", {"dataset": ["blocks"], "policy": "act", "name": "a"}, "no dataset"),
            ("/jobs/x/stop", {}, "no such job"),
        ):
            async with session.post(robot.url + path, json=body) as answer:
                assert answer.status == 409, path
                assert told in await answer.text()
        for path in ("/evaluate", "/policy"):
            async with session.post(robot.url + path, json={"run": "none"}) as answer:
                assert answer.status == 404

    with_session(work)
    assert files(tmp_path / "runs") == before


def test_the_films_of_an_evaluation_are_served_in_ranges(desk, tmp_path):
    pytest.importorskip("koch_policy", reason="koch_policy is not installed")
    robot = desk()
    found = tmp_path / "runs" / "mine" / "eval" / "first"
    found.mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "loss.csv").write_text("step,loss\n1,0.5\n")
    (found / "eval.json").write_text('{"trials": [{"success": true}]}')
    (found / "rollout_7.mp4").write_bytes(b"0123456789")
    (found / "rollout_x.mp4").write_bytes(b"secret")

    async def work(session):
        async with session.get(f"{robot.url}/runs") as answer:
            (run,) = await answer.json()
        (evaluation,) = run["evaluations"]
        assert "rollout_7" in evaluation["films"]
        path = f"{robot.url}/runs/mine/{evaluation['name'].replace('/', '%2F')}"
        part = {"Range": "bytes=2-4"}
        async with session.get(f"{path}/rollout_7", headers=part) as answer:
            assert (answer.status, await answer.read()) == (206, b"234")
        for wrong in ("rollout_8", "rollout_x", "rollout_..%2F7", "eval.json"):
            async with session.get(f"{path}/{wrong}") as answer:
                assert answer.status == 404, wrong
        async with session.get(f"{path}/rollout_7", headers={"Range": "bytes=90-"}) as answer:
            assert answer.status == 416

    with_session(work)
