# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The HTTP server of the console: page, camera streams, state, requests. No ROS.

Everything is bounded: connections, viewers, sizes, times. A slow browser misses images and states;
nothing is queued for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from aiohttp import WSMsgType, web
from aiohttp.http_exceptions import HttpProcessingError

from koch_console.access import Access, PageRole
from koch_console.answers import HEADERS, ROLE, in_time, json_answer, must_operate
from koch_console.assets import Assets
from koch_console.commands import (
    PadWord,
    PageAnswer,
    PageRequest,
    WrongRequest,
    read_request,
)
from koch_console.door import PageDoor
from koch_console.episodes import Episodes, RecordedEpisode, range_of
from koch_console.pad import Pad
from koch_console.slot import LatestImage
from koch_console.work import Workshop

LARGEST_MESSAGE = 4096
MOST_PAGES = 32
MOST_STREAMS = 64
_MOST_AT_ONCE = 8  # requests of one page; a stop is taken all the same
_MOST_STOPS = 64  # under way at once: one more would stop nothing else
_LOG_LINES = 300
_PERIOD_S = 0.1
_IDLE_PERIOD_S = 1.0
_AFTER_FAULT_S = 1.0  # a traceback each second is enough
_IMAGE_PERIOD_S = 0.012  # under half the time between two images
_WRITE_S = 10.0  # a reader that takes nothing for so long is disconnected
_KEPT_BY_KERNEL = 96 * 1024  # an image or two, or a slow reader would see the past
_BOUNDARY = "koch-image"
_COOKIE = "koch_console"
_log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Robot(Protocol):
    """What the page shows and steers; all methods are called in the server's event loop."""

    @property
    def images(self) -> Mapping[str, LatestImage]:
        """A slot for each camera."""

    def describe(self) -> Mapping[str, Any]:
        """What does not change: arms, joints, cameras, task."""

    def take_images(self) -> None:
        """Put what has come into the slots that have readers."""

    def watch(self, *, seen: bool) -> None:
        """Look at the graph; where no page is open, only at what would be missed."""

    def state(self) -> Mapping[str, Any]:
        """Sections of the page, each to be sent when it has changed."""

    def new_lines(self) -> list[Mapping[str, Any]]:
        """Lines of the log since the last call."""

    async def do(self, request: PageRequest) -> PageAnswer:
        """Call the service or action that a request stands for."""

    def move(self, word: PadWord) -> str:
        """Pass the pad's word on to the follower's jog node; why not, empty where it was done."""


class _Page:
    """One open page: what it has not been sent yet."""

    def __init__(
        self, socket_: web.WebSocketResponse, role: PageRole, address: str | None
    ) -> None:
        self.socket = socket_
        self.role = role
        self.address = address or "an unknown address"
        self.holder: str | None = None  # of the pad, as this page was told
        self.sections: dict[str, str] = {}
        self.lines: list[Mapping[str, Any]] = []
        self.answers: list[str] = []
        self.ready = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()

    def take(self) -> list[str]:
        """The messages that wait, as JSON; none wait afterwards."""
        self.ready.clear()
        messages, self.answers = self.answers, []
        if self.sections:
            parts = ",".join(f"{json.dumps(name)}:{text}" for name, text in self.sections.items())
            messages.append(f"{{{parts}}}")
            self.sections = {}
        if self.lines:
            messages.append(json.dumps({"log": self.lines}))
            self.lines = []
        return messages


class ConsoleServer:
    """Serves one robot to a bounded number of browsers; `run` is a coroutine of its own loop."""

    def __init__(
        self,
        robot: Robot,
        access: Access,
        episodes: Episodes,
        scene: Callable[[], Mapping[str, Any]],
        machine: Callable[[], Sequence[Mapping[str, str]]],
        work: Workshop,
    ) -> None:
        self._robot, self._access = robot, access
        self._episodes = episodes
        self._scene = scene
        self._scene_text = ""
        self._machine, self._work = machine, work
        self._examining = asyncio.Lock()
        self._found: Sequence[Mapping[str, str]] = ()
        self._assets = Assets()
        self._pages: set[_Page] = set()
        self._pad: Pad[_Page] = Pad(robot.move, self._on_pad_end)
        self._stops: set[asyncio.Task[None]] = set()
        self._streams = 0
        self._sections: dict[str, str] = {}
        self._lines: list[Mapping[str, Any]] = []
        self._woken = asyncio.Event()
        self._looked_at = asyncio.Event()

    async def run(self, listener: socket.socket, ended: asyncio.Event) -> None:
        """Serve on a listening socket until the event."""
        application = web.Application(middlewares=[self._guarded], client_max_size=LARGEST_MESSAGE)
        application.add_routes(
            [
                web.get("/", self._on_page),
                web.post("/login", self._on_login),
                web.get("/static/{path:.+}", self._on_asset),
                web.get("/socket", self._on_socket, allow_head=False),
                web.get("/cameras/{name}", self._on_camera, allow_head=False),
                web.get("/scene", self._on_scene),
                web.get("/machine", self._on_machine),
                web.get("/episodes", self._on_episodes),
                web.get("/episodes/{name}", self._on_episode),
                web.get("/episodes/{name}/first", self._on_first_image),
                web.get("/episodes/{name}/film/{camera}", self._on_film),
                *self._work.routes(),
            ]
        )
        runner = web.AppRunner(
            application, access_log=None, logger=_http_log(), keepalive_timeout=30.0
        )
        await runner.setup()
        self._door = PageDoor(runner)
        server = await asyncio.get_running_loop().create_server(self._door.arrival, sock=listener)
        watching = [asyncio.ensure_future(work()) for work in (self._watch, self._watch_images)]
        try:
            await ended.wait()
        finally:
            server.close()
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)
            for page in list(self._pages):
                await page.socket.close(code=1001, message=b"the console ends")
            await runner.cleanup()

    # -- the door -------------------------------------------------------------------------------

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let only our own pages ask, and only known people; say as little as possible."""
        transport = request.transport
        self._door.begin(transport)
        try:
            if not self._access.knows_host(request.headers.get("Host", "")):
                raise web.HTTPMisdirectedRequest(text="This computer has another name.\n")
            if not self._access.knows_origin(request.headers):
                raise web.HTTPForbidden(text="Another site's page may not ask.\n")
            given = request.query.get("token")
            if request.method == "GET" and request.path == "/" and given is not None:
                return self._welcome(request, given)
            role = self._role(request)
            if role is None and request.path != "/login":
                return self._ask_for_token(request)
            if role is not None:
                request[ROLE] = role
                self._door.keep(transport)  # strangers make room for others
            return await handler(request)
        except web.HTTPException as answer:
            answer.headers.update(HEADERS)
            raise
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception:
            # One request's fault ends that request alone; a stranger gets no traceback.
            _log.exception("%s %s", request.method, request.path)
            raise web.HTTPInternalServerError(headers=HEADERS, text="See the log.\n") from None
        finally:
            self._door.end(transport)

    def _role(self, request: web.Request) -> PageRole | None:
        scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
        token = bearer if scheme == "Bearer" else request.cookies.get(_COOKIE, "")
        return self._access.role_of(token)

    def _welcome(self, request: web.Request, token: str) -> web.StreamResponse:
        """Exchange a token for a cookie that no script can read and no other site sends."""
        if self._access.role_of(token) is None:
            return self._ask_for_token(request, "That token is not known. ")
        answer = web.HTTPSeeOther("/", headers=HEADERS)
        answer.set_cookie(_COOKIE, token, httponly=True, samesite="Strict", path="/")
        raise answer

    def _ask_for_token(self, request: web.Request, why: str = "") -> web.StreamResponse:
        if request.path not in ("/", "/login"):
            raise web.HTTPUnauthorized(text="A token is needed.\n")
        text = self._assets.login.replace("{why}", why)
        return web.Response(status=401, text=text, content_type="text/html", headers=HEADERS)

    async def _on_login(self, request: web.Request) -> web.StreamResponse:
        form = await in_time(request.post())
        return self._welcome(request, str(form.get("token", "")))

    # -- page and images ------------------------------------------------------------------------

    async def _on_page(self, request: web.Request) -> web.StreamResponse:
        return self._assets.answer(request, "index.html", HEADERS)

    async def _on_asset(self, request: web.Request) -> web.StreamResponse:
        return self._assets.answer(request, request.match_info["path"], HEADERS)

    async def _on_camera(self, request: web.Request) -> web.StreamResponse:
        slot = self._robot.images.get(request.match_info["name"])
        if slot is None:
            raise web.HTTPNotFound(text="There is no such camera.\n")
        if self._streams >= MOST_STREAMS:
            raise web.HTTPServiceUnavailable(text="Too many look already.\n")
        self._streams += 1
        slot.readers += 1
        self._looked_at.set()
        try:
            return await self._stream(request, slot)
        finally:
            self._streams -= 1
            slot.readers -= 1

    async def _stream(self, request: web.Request, slot: LatestImage) -> web.StreamResponse:
        """Send each image that is the newest when the last one has gone."""
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        headers = {**HEADERS, "Content-Type": kind, "Cache-Control": "no-store"}
        response = web.StreamResponse(headers=headers)
        _keep_little(request)
        await response.prepare(request)
        number = slot.number
        while request.transport is not None and not request.transport.is_closing():
            image = await slot.after(number, timeout_s=1.0)
            if image is None:
                continue
            number, jpeg = image
            head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n"
            part = b"".join((head.encode(), b"\r\n", jpeg, b"\r\n"))
            try:
                await asyncio.wait_for(response.write(part), _WRITE_S)
            except asyncio.TimeoutError:
                request.transport.abort()
            except ConnectionError:
                break  # the browser has gone
        return response

    # -- scene and episodes ---------------------------------------------------------------------

    async def _on_scene(self, _: web.Request) -> web.StreamResponse:
        if not self._scene_text:  # xacro needs a second
            self._scene_text = json.dumps(await asyncio.to_thread(self._scene))
        return json_answer(self._scene_text)

    async def _on_machine(self, request: web.Request) -> web.StreamResponse:
        """Findings about this computer. It costs seconds of its time: not for who only looks.

        A page that opens gets what was found before; its button looks again.
        """
        must_operate(request)
        if self._found and "again" not in request.query:
            return json_answer(self._found)
        if self._examining.locked():
            raise web.HTTPServiceUnavailable(text="It is being looked at already.\n")
        async with self._examining:
            self._found = await asyncio.to_thread(self._machine)
            return json_answer(self._found)

    async def _on_episodes(self, _: web.Request) -> web.StreamResponse:
        found = await asyncio.to_thread(self._episodes.facts)
        return json_answer({"root": str(self._episodes.root), "episodes": found})

    async def _on_episode(self, request: web.Request) -> web.StreamResponse:
        episode = await self._episode(request)
        return json_answer(await asyncio.to_thread(lambda: json.dumps(episode.describe())))

    async def _on_first_image(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        image = await asyncio.to_thread(self._episodes.first_image, name)
        if image is None:
            raise web.HTTPNotFound(text="There is no image.\n")
        kept = {**HEADERS, "Cache-Control": "private, max-age=600"}
        return web.Response(body=image, content_type="image/jpeg", headers=kept)

    async def _on_film(self, request: web.Request) -> web.StreamResponse:
        """The images of one camera, one behind the other; the page asks for ranges of bytes."""
        film = (await self._episode(request)).films.get(request.match_info["camera"])
        if film is None:
            raise web.HTTPNotFound(text="There is no such camera.\n")
        size, headers = len(film.data), {**HEADERS, "Accept-Ranges": "bytes"}
        asked = request.headers.get("Range")
        if asked is None:
            return web.Response(body=bytes(film.data), headers=headers)
        span = range_of(asked, size)
        if span is None:
            headers["Content-Range"] = f"bytes */{size}"
            raise web.HTTPRequestRangeNotSatisfiable(headers=headers)
        headers["Content-Range"] = f"bytes {span[0]}-{span[1] - 1}/{size}"
        return web.Response(status=206, body=bytes(film.data[slice(*span)]), headers=headers)

    async def _episode(self, request: web.Request) -> RecordedEpisode:
        episode = await asyncio.to_thread(self._episodes.open, request.match_info["name"])
        if episode is None:
            raise web.HTTPNotFound(text="There is no such episode.\n")
        return episode

    # -- state and requests ---------------------------------------------------------------------

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        if len(self._pages) >= MOST_PAGES:
            raise web.HTTPServiceUnavailable(text="Too many pages are open already.\n")
        answer = web.WebSocketResponse(max_msg_size=LARGEST_MESSAGE, heartbeat=20.0)
        answer.headers.update(HEADERS)
        _keep_little(request)
        page = _Page(answer, request[ROLE], request.remote)
        self._pages.add(page)  # before anything is awaited: the limit counts those that come in
        try:
            await answer.prepare(request)
            hello = {"hello": {**self._robot.describe(), "role": page.role.name.lower()}}
            page.answers.append(json.dumps(hello))
            page.sections.update(self._sections)
            page.lines = list(self._lines)
            page.ready.set()
            self._woken.set()
            async with _running(self._send(page)):
                async for message in answer:
                    if message.type is WSMsgType.TEXT:
                        self._on_message(page, message.data)
        finally:
            self._pages.discard(page)
            for task in page.tasks:
                task.cancel()
            self._pad.let_go(page)
        return answer

    async def _send(self, page: _Page) -> None:
        """Send what is newest; disconnect a page that takes nothing."""
        while True:
            await page.ready.wait()
            for text in page.take():
                try:
                    await asyncio.wait_for(page.socket.send_str(text), _WRITE_S)
                except (asyncio.TimeoutError, ConnectionError):
                    await page.socket.close()
                    return

    def _on_message(self, page: _Page, text: str) -> None:
        try:
            request = read_request(text)
        except WrongRequest as exc:
            if self._pad.holder is page:
                self._pad.end(str(exc))  # what it asks for is not known any more
            else:
                self._answer(page, None, PageAnswer(False, str(exc)))
            return
        if page.role < PageRole.OPERATE:
            refusal = "You may look only; the token for operating is another one."
            number = request.number if isinstance(request, PageRequest) else None
            self._answer(page, number, PageAnswer(False, refusal))
        elif isinstance(request, PageRequest):
            self._on_request(page, request)
        elif refusal := self._pad.hear(page, request):
            self._on_pad_end(page, refusal)

    def _on_pad_end(self, page: _Page, why: str) -> None:
        """An answer without a number: the press is over. A word that counts has no answer."""
        self._answer(page, None, PageAnswer(False, why))

    def _on_request(self, page: _Page, request: PageRequest) -> None:
        if request.name == "stop":
            self._pad.end("The pad was let go: somebody pressed STOP.")
        if len(page.tasks) >= _MOST_AT_ONCE and request.name != "stop":
            refusal = "Too many requests are under way."
            self._answer(page, request.number, PageAnswer(False, refusal))
        elif request.name == "stop" and len(self._stops) >= _MOST_STOPS:
            refusal = (
                f"{_MOST_STOPS} stops are under way already. Does the arm move? Cut the power."
            )
            self._answer(page, request.number, PageAnswer(False, refusal))
        else:
            # A stop outlives its page: a browser that goes must not take it back half-way.
            tasks = self._stops if request.name == "stop" else page.tasks
            task = asyncio.ensure_future(self._do(page, request))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    async def _do(self, page: _Page, request: PageRequest) -> None:
        try:
            answer = await self._robot.do(request)
        except Exception:
            # The person who pressed must get an answer, whatever fails.
            _log.exception("request %s", request.name)
            what = "NOT STOPPED. Cut the power." if request.name == "stop" else "It failed."
            answer = PageAnswer(False, f"{what} The log of the console says why.")
        self._answer(page, request.number, answer)

    def _answer(self, page: _Page, number: int | None, answer: PageAnswer) -> None:
        message = {"answer": number, "ok": answer.success, "text": answer.text}
        page.answers = [*page.answers[-_MOST_AT_ONCE:], json.dumps(message)]
        page.ready.set()

    # -- looking at the robot -------------------------------------------------------------------

    async def _watch(self) -> None:
        """Ten times a second while a page is open, else once a second.

        `alive` changes each second. A page that misses it says that what it shows is old: after a
        fault here, and also where this process or the network hangs.
        """
        while True:
            seen = bool(self._pages)
            if not seen:
                self._sections.clear()  # or the next page would open with the state of back then
            try:
                self._robot.watch(seen=seen)
                state = self._whole_state() if seen else {}
                self._tell(state, self._robot.new_lines())
            except Exception:
                # One odd message must not end the page for good: without `alive` it says so.
                _log.exception("looking at the graph")
                self._sections.clear()
                await asyncio.sleep(_AFTER_FAULT_S)
                continue
            if seen:
                await asyncio.sleep(_PERIOD_S)
                continue
            self._woken.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._woken.wait(), _IDLE_PERIOD_S)

    def _whole_state(self) -> Mapping[str, Any]:
        work = {"work": self._work.state()}
        return {**self._robot.state(), **work, "alive": int(time.monotonic())}

    def _tell(self, state: Mapping[str, Any], lines: list[Mapping[str, Any]]) -> None:
        texts = {
            name: json.dumps(value, separators=(",", ":"), allow_nan=False)
            for name, value in state.items()
        }
        changed = {name: text for name, text in texts.items() if self._sections.get(name) != text}
        self._sections.update(changed)
        self._lines = [*self._lines, *lines][-_LOG_LINES:]
        for page in self._pages:
            page.sections.update(changed)
            page.lines = [*page.lines, *lines][-_LOG_LINES:]
            self._tell_holder(page)
            if page.sections or lines:
                page.ready.set()

    def _tell_holder(self, page: _Page) -> None:
        """Who else holds the pad; empty for the page that does."""
        holder = self._pad.holder
        name = "" if holder is None or holder is page else holder.address
        if name != page.holder:
            page.holder = name
            page.sections["holder"] = json.dumps(name)

    async def _watch_images(self) -> None:
        """Fetch images while a stream is open."""
        while True:
            try:
                self._robot.take_images()
            except Exception:
                # The state goes on without images; each tile shows how old its image gets.
                _log.exception("taking images")
                await asyncio.sleep(_AFTER_FAULT_S)
            if self._streams:
                await asyncio.sleep(_IMAGE_PERIOD_S)
            else:
                self._looked_at.clear()
                await self._looked_at.wait()


def _http_log() -> logging.Logger:
    """A log for aiohttp in which bytes that are no HTTP get no traceback.

    They are their sender's mistake, who is told; a thousand of them would bury the robot's log.
    """
    log = logging.getLogger(f"{__name__}.http")
    log.filters = [lambda record: not _is_no_http(record)]
    return log


def _is_no_http(record: logging.LogRecord) -> bool:
    return record.exc_info is not None and isinstance(record.exc_info[1], HttpProcessingError)


def _keep_little(request: web.Request) -> None:
    """Let kernel and process keep a little for a slow reader, so that it sees the present."""
    transport = request.transport
    if transport is None:
        return
    assert isinstance(transport, asyncio.Transport)
    transport.set_write_buffer_limits(high=_KEPT_BY_KERNEL)
    connection = transport.get_extra_info("socket")
    if connection is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _KEPT_BY_KERNEL)


@contextlib.asynccontextmanager
async def _running(work: Any) -> AsyncIterator[None]:
    """Run a coroutine beside a block."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
