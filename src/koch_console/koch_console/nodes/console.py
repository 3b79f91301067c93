# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The console node: a web server beside rclpy's executor, in a thread of its own."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
from functools import partial
from pathlib import Path

from rclpy.node import Node
from rclpy.parameter import Parameter

from koch_console.access import Access
from koch_console.datasets import Datasets
from koch_console.episodes import Episodes
from koch_console.jobs import Jobs
from koch_console.machine import examine_machine, koch_command, training_runs
from koch_console.nodes.parameters import ConsoleParameters
from koch_console.nodes.robot import RobotView
from koch_console.scene import describe_scene
from koch_console.server import ConsoleServer
from koch_console.work import Workshop
from koch_core.errors import KochError
from koch_rig.load import load_rig
from koch_ros.node import run_node
from koch_ros.parameters import declare

_END_S = 3.0


class PortTakenError(KochError):
    """The page cannot be served where it was asked for."""

    def __init__(self, bind: str, port: int, why: str) -> None:
        super().__init__(
            f"http://{bind}:{port}: {why}. Another console may run; give another port (--port, or "
            "--set console.port=N), or port 0 for any."
        )


class ConsoleNode(Node):
    """Serves the page.

    The executor's thread only completes requests. The event loop's thread reads the topics, serves
    browsers and sends requests.
    """

    def __init__(self, *, parameter_overrides: list[Parameter] | None = None) -> None:
        """Take the port and start serving.

        Raises:
            KochError: Rig, address or tokens cannot be used.
        """
        super().__init__("console", parameter_overrides=parameter_overrides)
        settings = declare(self, ConsoleParameters)
        access = Access.of(settings.bind, os.environ, settings.hosts)
        rig = load_rig(settings.rig)
        self._listener = _listen(settings.bind, settings.port)
        host = f"[{settings.bind}]" if ":" in settings.bind else settings.bind
        self.address = f"http://{host}:{self._listener.getsockname()[1]}"
        self._robot = RobotView(self, rig)
        self._access = access
        self._runs = Path(settings.runs).expanduser().resolve()
        self._scene = partial(describe_scene, rig)
        root = settings.root or f"~/koch_episodes/{rig.name}"  # as the recorder has it
        folder = Path(root).expanduser().resolve()
        self._episodes = Episodes(folder)
        nearest = next(path for path in (folder, *folder.parents) if path.exists())
        self._rig_words = ["--rig", str(Path(settings.rig).resolve())]
        if namespace := self.get_namespace().strip("/"):
            self._rig_words += ["--namespace", namespace]
        self._machine = partial(examine_machine, nearest, Path(settings.rig))
        self._loop = asyncio.new_event_loop()
        self._ended: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._serve, name="web server", daemon=True)
        self._thread.start()
        whom = "this computer" if access.is_local else "who has the token"
        self.get_logger().info(f"the page is at {self.address}, for {whom}")

    def close(self) -> None:
        """Let the browsers go; idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(_END_S)

    def destroy_node(self) -> None:
        """Leave the graph. rclpy keeps a node in it for as long as its action client lives."""
        if hasattr(self, "_robot"):  # not where the rig or the port could not be used
            self._robot.requests.close()
        super().destroy_node()

    def _end(self) -> None:
        assert self._ended is not None
        self._ended.set()

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._run())
        self._loop.close()

    async def _run(self) -> None:
        self._ended = asyncio.Event()
        server = ConsoleServer(
            self._robot,
            self._access,
            self._episodes,
            self._scene,
            self._machine,
            Workshop(
                self._episodes,
                Datasets(self._runs),
                Jobs(self._runs, koch_command()),
                partial(training_runs, self._runs),
                self._rig_words,
            ),
        )
        await server.run(self._listener, self._ended)


def _listen(bind: str, port: int) -> socket.socket:
    """Take a port, so that a mistake is told before anything is served.

    Raises:
        PortTakenError: It cannot be had.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            bind, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as exc:
        raise PortTakenError(bind, port, exc.strerror or str(exc)) from exc
    listener.setblocking(False)
    return listener


def main() -> int:
    """Entry point."""
    return run_node(ConsoleNode, realtime=False)


if __name__ == "__main__":
    sys.exit(main())
