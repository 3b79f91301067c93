# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The console node over HTTP: images, state, requests, and those who mean no good."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from subprocess import PIPE
from typing import Any

import pytest
from aiohttp import (
    ClientSession,
    ClientWebSocketResponse,
    WSMsgType,
    WSServerHandshakeError,
)

from koch_console import answers, door, server
from koch_console.commands import PageAnswer, PageRequest

pytestmark = pytest.mark.ros
SECRET, LOOK = "operate-secret", "looking-secret"
EVIL = {"Origin": "http://evil.example"}


def with_session(work: Callable[[ClientSession], Awaitable[Any]], **more: Any) -> Any:
    """Run a coroutine with a client."""

    async def run() -> Any:
        async with ClientSession(**more) as session:
            return await asyncio.wait_for(work(session), 60.0)

    return asyncio.run(run())


async def read(page: ClientWebSocketResponse, key: str) -> Any:
    """The next value of a section, or answer, that comes to a page."""
    while True:
        message = await asyncio.wait_for(page.receive(), 10.0)
        assert message.type is WSMsgType.TEXT, message
        value = json.loads(message.data)
        if key in value:
            return value if key == "answer" else value[key]


async def ask(page: ClientWebSocketResponse, name: str, **values: Any) -> Any:
    """Press a button."""
    await page.send_str(json.dumps({"id": 1, "do": name, "with": values}))
    return await read(page, "answer")


async def hear_until_silent(page: ClientWebSocketResponse) -> None:
    """Hear the server's signs of life until none comes for three seconds."""
    while True:
        await asyncio.wait_for(read(page, "alive"), 3.0)


async def image(reader: Any) -> bytes:
    """The next image of a multipart stream."""
    assert (await reader.readline()).startswith(b"--koch-image")
    assert await reader.readline() == b"Content-Type: image/jpeg\r\n"
    length = int((await reader.readline()).split(b":")[1])
    await reader.readline()
    found = await reader.readexactly(length)
    await reader.readline()
    return bytes(found)


def test_the_page_and_its_modules_are_served_with_strict_headers(bench):
    url = bench().url

    async def work(session: ClientSession) -> None:
        async with session.get(url) as answer:
            text = await answer.text()
            assert answer.status == 200
            assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
            assert answer.headers["X-Frame-Options"] == "DENY"
        assert 'id="stop"' in text
        assert "http://" not in text
        assert "https://" not in text
        async with session.get(f"{url}/static/app.js") as answer:
            assert answer.content_type == "text/javascript"
            tag = answer.headers["ETag"]
        async with session.get(f"{url}/static/app.js", headers={"If-None-Match": tag}) as answer:
            assert answer.status == 304

    with_session(work)


def test_images_are_the_cameras_own_bytes_and_cost_nothing_unseen(bench, wait_for):
    robot = bench()
    assert robot.camera.readers == 0

    async def work(session: ClientSession) -> bytes:
        async with session.get(f"{robot.url}/cameras/above") as answer:
            assert answer.content_type == "multipart/x-mixed-replace"
            assert await asyncio.to_thread(wait_for, lambda: robot.camera.readers)
            sent = robot.camera.publish()
            assert await image(answer.content) == sent
            return sent

    assert with_session(work) in robot.camera.images
    assert wait_for(lambda: not robot.camera.readers, 5.0) is True


def test_a_slow_reader_sees_the_present_and_not_a_queue(bench, wait_for):
    robot = bench()
    big = 200_000
    robot.camera.images = [bytes([index]) * big for index in range(200)]

    async def work(session: ClientSession) -> int:
        async with session.get(f"{robot.url}/cameras/above") as answer:
            await asyncio.to_thread(wait_for, lambda: robot.camera.readers)
            for _ in range(150):  # 30 MB, which nobody reads
                robot.camera.publish()
                await asyncio.sleep(0.01)
            got = 0
            while (await image(answer.content))[0] < 145:
                got += 1
            return got

    # What the two kernels' buffers hold may come first; nothing like the 145 that were missed.
    assert with_session(work, read_bufsize=2**12) < 60


def test_the_state_comes_ten_times_a_second_and_says_what_is_missing(bench):
    robot = bench()

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            hello = await read(page, "hello")
            assert hello["role"] == "operate"
            assert [arm["name"] for arm in hello["arms"]] == ["follower"]
            assert len(hello["arms"][0]["joints"]) == 6
            checks = await read(page, "checks")
            assert {check["what"]: check["light"] for check in checks} == {
                "arm follower": "red",
                "camera above": "red",
                "recorder": "",  # a start without them is possible
                "policy": "",
            }
            assert all("koch up" in check["fix"] for check in checks)

    with_session(work)


def test_a_request_to_nobody_says_so_and_a_stop_that_failed_is_loud(bench):
    robot = bench()

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            answer = await ask(page, "stop")
            assert answer["ok"] is False
            assert answer["text"].startswith("NOT STOPPED: No node offers follower/stop")
            assert "Cut the power" in answer["text"]
            for name in ("record.discard", "policy.run", "policy.pause", "policy.stop"):
                answer = await ask(page, name)
                assert answer["ok"] is False
            assert (await ask(page, "torque", arm="none", on=True))["ok"] is False
            await page.send_str("no JSON")
            assert "no JSON" in (await read(page, "answer"))["text"]

    with_session(work)


def test_a_stop_outlives_its_page(bench, monkeypatch, wait_for):
    robot = bench()
    begun, done = [], []

    async def do(request: PageRequest) -> PageAnswer:
        begun.append(request.name)
        await asyncio.sleep(0.3)
        done.append(request.name)
        return PageAnswer(True, "")

    monkeypatch.setattr(robot.console._robot, "do", do)

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            for name in ("record.discard", "stop"):
                await page.send_str(json.dumps({"id": 1, "do": name}))
            assert await asyncio.to_thread(wait_for, lambda: len(begun) == 2)

    with_session(work)
    assert wait_for(lambda: done, 5.0) == ["stop"]


def test_a_stop_that_raises_is_loud(bench, monkeypatch):
    robot = bench()

    async def fail(_: Any) -> None:
        raise RuntimeError("the context is gone")

    monkeypatch.setattr(robot.console._robot, "do", fail)

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            assert (await ask(page, "stop"))["text"].startswith("NOT STOPPED. Cut the power.")

    with_session(work)


def test_a_state_that_cannot_be_had_is_not_said_to_be_alive(bench, monkeypatch):
    robot = bench()

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            first = await read(page, "alive")
            assert await read(page, "alive") > first
            with monkeypatch.context() as broken:
                broken.setattr(robot.console._robot, "state", lambda: {"joints": float("nan")})
                with pytest.raises(asyncio.TimeoutError):
                    await hear_until_silent(page)
            assert await read(page, "alive") > first

    with_session(work)


def test_the_node_commands_no_joint(bench):
    topics = {publisher.topic_name for publisher in bench().console.publishers}
    # The pad asks the follower's jog node for speeds; its goals pass the guard as any source's.
    asked = {"/follower/teleop/twist", "/follower/teleop/joint_speeds"}
    assert topics == {"/parameter_events", *asked}


def test_training_runs_of_other_packages_are_served(bench, tmp_path, monkeypatch):
    # As another package announces it: a distribution on the path with an entry point.
    (tmp_path / "somebody_runs.py").write_text(
        "def runs(folder):\n    return [{'name': str(folder), 'path': folder}]\n"
    )
    info = tmp_path / "somebody-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: somebody\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[koch_vla.training_runs]\nsomebody = somebody_runs:runs\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    robot = bench(runs=str(tmp_path))

    async def work(session: ClientSession) -> Any:
        async with session.get(f"{robot.url}/runs") as answer:
            assert answer.status == 200
            return await answer.json()

    assert str(tmp_path) in [run["name"] for run in with_session(work)]


# -- those who mean no good -----------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/static/app.js", "/cameras/above", "/socket"])
def test_foreign_pages_and_names_are_refused(bench, path):
    robot = bench()

    async def work(session: ClientSession) -> list[int]:
        found = []
        for headers in (EVIL, {"Host": "evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
            async with session.get(robot.url + path, headers=headers) as answer:
                found.append(answer.status)
                assert "app.js" not in await answer.text()
        return found

    assert with_session(work) == [403, 421, 403]


def test_a_foreign_page_opens_no_socket(bench):
    robot = bench()

    async def work(session: ClientSession) -> None:
        for headers in (EVIL, {"Host": "evil.example"}):
            with pytest.raises(WSServerHandshakeError):
                await session.ws_connect(f"{robot.url}/socket", headers=headers)

    with_session(work)


def test_who_has_no_token_sees_nothing_and_who_only_looks_steers_nothing(bench):
    robot = bench(SECRET, LOOK)

    def bearer(token: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token}"}

    async def work(session: ClientSession) -> None:
        for path in ("/static/app.js", "/cameras/above", "/socket", "/static/login.html"):
            for headers in ({}, bearer("wrong-secret"), {"Cookie": "koch_console=wrong"}):
                async with session.get(robot.url + path, headers=headers) as answer:
                    assert answer.status == 401, path
        async with session.get(f"{robot.url}/") as answer:
            assert answer.status == 401
            assert "Token" in await answer.text()
        async with session.ws_connect(f"{robot.url}/socket", headers=bearer(LOOK)) as page:
            assert (await read(page, "hello"))["role"] == "read"
            for name in ("stop", "record.discard", "policy.run"):
                answer = await ask(page, name)
                assert answer["ok"] is False
                assert "look only" in answer["text"]
        async with session.ws_connect(f"{robot.url}/socket", headers=bearer(SECRET)) as page:
            assert (await read(page, "hello"))["role"] == "operate"

    with_session(work)


def test_a_token_becomes_a_cookie_that_scripts_cannot_read(bench):
    robot = bench(SECRET)

    async def work(session: ClientSession) -> None:
        url = f"{robot.url}/?token={SECRET}"
        async with session.get(url, allow_redirects=False) as answer:
            assert answer.status == 303
            assert answer.headers["Location"] == "/"
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
        async with session.post(f"{robot.url}/login", data={"token": "wrong-one"}) as answer:
            assert answer.status == 401
        async with session.post(
            f"{robot.url}/login", data={"token": SECRET}, allow_redirects=False
        ) as answer:
            assert answer.status == 303

    with_session(work)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../nodes/console.py",
        "/static/%2e%2e/%2e%2e/setup.py",
        "/static/..%2f..%2fsetup.py",
        "/static//etc/passwd",
        "/static/%00",
        "/cameras/../static/app.js",
        "/etc/passwd",
        "//evil.example/",
    ],
)
def test_no_request_leaves_the_folder(bench, path):
    robot = bench()
    host, port = robot.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as raw:
        request = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n"
        raw.sendall(request.encode())
        answer = b""
        while part := raw.recv(4096):
            answer += part
    assert answer.split(b" ", 2)[1] in (b"404", b"400"), answer[:200]
    assert b"root:" not in answer
    assert b"import" not in answer


def test_huge_messages_and_bodies_end_the_connection_and_nothing_else(bench):
    robot = bench(SECRET)

    async def work(session: ClientSession) -> None:
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with session.ws_connect(f"{robot.url}/socket", headers=headers) as page:
            await read(page, "hello")
            await page.send_str("x" * 1_000_000)
            while (message := await page.receive()).type is WSMsgType.TEXT:
                continue
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED)
        body = {"token": "x" * 1_000_000}
        async with session.post(f"{robot.url}/login", data=body) as answer:
            assert answer.status == 413
        async with session.ws_connect(f"{robot.url}/socket", headers=headers) as page:
            await read(page, "hello")

    with_session(work)


def test_a_thousand_connections_leave_room_for_the_page(bench, monkeypatch):
    monkeypatch.setattr(door, "MOST_CONNECTIONS", 50)  # this process has both ends
    robot = bench()
    host, port = robot.url.removeprefix("http://").split(":")

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            await read(page, "hello")
            idle = []
            try:
                for _ in range(300):
                    raw = socket.create_connection((host, int(port)), timeout=5.0)
                    idle.append(raw)
                    if len(idle) % 25 == 0:
                        await asyncio.sleep(0.02)
                # The page that was open still is, and another one opens.
                assert (await ask(page, "stop"))["text"].startswith("NOT STOPPED")
                async with session.ws_connect(f"{robot.url}/socket") as other:
                    await read(other, "hello")
            finally:
                for raw in idle:
                    raw.close()

    with_session(work)


def test_half_a_login_holds_no_place(bench, monkeypatch):
    monkeypatch.setattr(door, "MOST_CONNECTIONS", 20)
    robot = bench(SECRET)
    host, port = robot.url.removeprefix("http://").split(":")
    head = f"POST /login HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 900\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\ntoken="

    async def work(session: ClientSession) -> None:
        halves = []
        for _ in range(60):
            halves.append(socket.create_connection((host, int(port)), timeout=5.0))
            halves[-1].sendall(head.encode())
            await asyncio.sleep(0.005)
        headers = {"Authorization": f"Bearer {SECRET}"}
        async with session.get(robot.url, headers=headers) as answer:
            assert answer.status == 200
        for half in halves:
            half.close()

    with_session(work)


CROWD = """
import resource, socket, sys, time
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
held = []
for number in range(1000):
    held.append(socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=10.0))
    if number % 2:  # half of them begin to ask
        held[-1].sendall(b"GET / HTTP/1.1\\r\\nHost: ")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_thousand_real_connections_shut_nobody_out(bench):
    robot = bench()
    words = [sys.executable, "-c", CROWD, robot.url.rpartition(":")[2]]

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            await read(page, "hello")
            with subprocess.Popen(words, stdin=PIPE, stdout=PIPE, text=True) as crowd:
                assert crowd.stdout is not None
                assert await asyncio.to_thread(crowd.stdout.readline) == "held\n"
                began_s = time.monotonic()
                async with session.get(robot.url) as answer:
                    assert answer.status == 200
                async with session.ws_connect(f"{robot.url}/socket") as other:
                    await read(other, "hello")
                first = await read(page, "alive")
                assert await read(page, "alive") > first
                assert time.monotonic() - began_s < 10.0
                crowd.communicate("")

    with_session(work)


def test_an_address_whose_connections_are_all_in_use_hears_503(bench, monkeypatch):
    monkeypatch.setattr(door, "MOST_OF_ADDRESS", 3)
    robot = bench()

    async def work(session: ClientSession) -> None:
        streams = [await session.get(f"{robot.url}/cameras/above") for _ in range(3)]
        async with session.get(robot.url) as answer:
            assert answer.status == 503
            assert "from your address" in await answer.text()
        streams[0].close()
        for _ in range(100):  # until the server has noticed
            async with session.get(robot.url) as answer:
                if answer.status == 200:
                    break
            await asyncio.sleep(0.05)
        assert answer.status == 200

    with_session(work)


def test_one_address_cannot_shut_out_another(bench, monkeypatch):
    monkeypatch.setattr(door, "MOST_OF_ADDRESS", 10)
    robot = bench()
    port = int(robot.url.rpartition(":")[2])

    async def work(session: ClientSession) -> None:
        streams = [await session.get(f"{robot.url}/cameras/above") for _ in range(10)]
        with socket.socket() as other:
            other.bind(("127.0.0.2", 0))  # all of 127/8 is this computer
            other.settimeout(5.0)
            await asyncio.to_thread(other.connect, ("127.0.0.1", port))
            other.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            head = await asyncio.to_thread(other.recv, 100)
            assert head.startswith(b"HTTP/1.1 200")
        for stream in streams:
            stream.close()

    with_session(work)


def test_slow_heads_and_slow_bodies_are_ended(bench, monkeypatch):
    monkeypatch.setattr(door, "FIRST_S", 0.5)
    monkeypatch.setattr(answers, "BODY_S", 0.5)
    robot = bench()
    host, port = robot.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=5.0) as raw:
        raw.sendall(b"GET / HTTP/1.1\r\nHost: 127")
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(100) == b""
    head = f"POST /train HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 900\r\n"
    head += "Content-Type: application/json\r\n\r\n{"
    with socket.create_connection((host, int(port)), timeout=5.0) as raw:
        raw.sendall(head.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 408")


def test_a_flood_of_requests_is_answered_and_costs_others_nothing(bench, monkeypatch):
    robot = bench()
    begun: list[str] = []

    async def do(request: PageRequest) -> PageAnswer:
        begun.append(request.name)
        await asyncio.sleep(2.0)
        return PageAnswer(True, "")

    monkeypatch.setattr(robot.console._robot, "do", do)

    async def work(session: ClientSession) -> None:
        async with (
            session.ws_connect(f"{robot.url}/socket") as flood,
            session.ws_connect(f"{robot.url}/socket") as other,
        ):
            for name in ("record.discard", "stop"):
                for number in range(1000):
                    await flood.send_str(json.dumps({"id": number, "do": name}))
            answer = await read(flood, "answer")
            assert "under way" in answer["text"]
            first = await read(other, "alive")
            assert await read(other, "alive") > first
            assert begun.count("record.discard") <= 8
            assert 1 <= begun.count("stop") <= 64

    with_session(work)


def test_pages_and_streams_are_bounded(bench, monkeypatch):
    monkeypatch.setattr(server, "MOST_PAGES", 2)
    monkeypatch.setattr(server, "MOST_STREAMS", 2)
    robot = bench()

    async def work(session: ClientSession) -> None:
        pages = [await session.ws_connect(f"{robot.url}/socket") for _ in range(2)]
        with pytest.raises(WSServerHandshakeError, match="503"):
            await session.ws_connect(f"{robot.url}/socket")
        streams = [await session.get(f"{robot.url}/cameras/above") for _ in range(2)]
        async with session.get(f"{robot.url}/cameras/above") as answer:
            assert answer.status == 503
        for item in (*pages, *streams):
            item.close() if item in streams else await item.close()

    with_session(work)


# -- with an arm ----------------------------------------------------------------------------------


@pytest.mark.timing
@pytest.mark.slow
def test_stop_reaches_the_guard_and_resume_lifts_it(bench, wait_for):
    robot = bench()

    async def until(page: ClientWebSocketResponse, mode: str) -> Any:
        end = time.monotonic() + 30.0
        while time.monotonic() < end:
            guard = (await read(page, "guards"))["follower"]
            if guard is not None and guard["mode"] == mode:
                return guard
        raise AssertionError(f"never {mode}")

    async def work(session: ClientSession) -> None:
        async with session.ws_connect(f"{robot.url}/socket") as page:
            await until(page, "holding")
            async with session.ws_connect(f"{robot.url}/socket") as other:  # it gets all there is
                joints = (await read(other, "joints"))["follower"]
            assert set(joints["measured"]) == set(joints["goal"])
            assert len(joints["measured"]) == 6
            assert (await ask(page, "stop"))["ok"] is True
            guard = await until(page, "stopped")
            assert guard["stops"][0]["text"] == "the stop service was called"
            assert (await ask(page, "resume", arm="follower"))["ok"] is True
            await until(page, "holding")
            assert (await ask(page, "torque", arm="follower", on=False))["ok"] is True
            await until(page, "off")

    with robot.driver():
        with_session(work)
