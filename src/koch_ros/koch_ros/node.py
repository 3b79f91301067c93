# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Life of a node process: start, spin, end on SIGINT or SIGTERM with exit code 0."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from koch_core.errors import KochError
from koch_core.realtime import OFF, request_realtime, spare_from_collection

EXIT_CONFIGURATION = 2
#: Environment variable: the process without which this one has nothing to do. A policy node that
#: outlived its killed `koch run` would go on driving the arm, and nobody would know why.
OWNER = "KOCH_OWNER_PID"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def on_stop(act: Callable[[], None]) -> Iterator[None]:
    """Call `act` once, in a thread of its own, at the first SIGINT or SIGTERM in the block.

    A Python handler runs in the main thread only, between two instructions, and that thread may
    wait in the middleware; the interpreter's wake-up descriptor is written at once, whichever
    thread the kernel gave the signal to.

    Behind the block both signals are ignored until the process ends. Ctrl-C under a launch comes
    twice, from the terminal and from the launch; the second must interrupt neither the clean-up,
    which belongs into the block, nor the interpreter's own, before which it gives Python's
    handlers up.

    To be entered in the main thread, once in the life of a process.
    """
    reader, writer = os.pipe()  # open as long as the process: a late signal writes as well
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in STOP_SIGNALS:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(reader, 1)
        act()

    threading.Thread(target=wait, name="signals", daemon=True).start()
    try:
        yield
    finally:
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def end_with_the_owner() -> None:
    """Send this process SIGTERM when its owner ends; nothing without one."""
    owner = os.environ.pop(OWNER, "")  # it is not the owner of what this process starts
    if owner.isdecimal():
        threading.Thread(target=_watch, args=(int(owner),), name="owner", daemon=True).start()


def _watch(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # gone already
        end = os.pidfd_open(pid)
        select.select([end], [], [])
        os.close(end)
    os.kill(os.getpid(), signal.SIGTERM)


def run_node(
    build: Callable[[], Node], argv: Sequence[str] | None = None, *, realtime: bool = True
) -> int:
    """Run one node until a signal ends it.

    rclpy's own signal handlers would invalidate the context at once; the node could then not
    publish what it does while it leaves the arm. So signals only wake a thread of ours.

    Args:
        build: Makes the node; it may have a `close` method.
        argv: Command line, `sys.argv` where absent.
        realtime: Ask for real-time scheduling; for nodes on the way from hand to motor.

    Returns:
        0 after a signal; 2 when the configuration is wrong (the message is on stderr).
    """
    scheduling = request_realtime() if realtime else OFF  # before the middleware's threads
    ended: Future[None] = Future()
    with on_stop(lambda: ended.set_result(None)):
        end_with_the_owner()
        rclpy.init(
            args=list(sys.argv if argv is None else argv),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        try:
            node = build()
        except KochError as exc:
            # Indented under its first line, so that who reads the output sees one message.
            sys.stderr.write(f"{exc}".replace("\n", "\n  ") + "\n")
            rclpy.try_shutdown()
            return EXIT_CONFIGURATION
        if scheduling.refused:
            node.get_logger().warning(f"no real-time scheduling: {scheduling.text}")
        # Measured: rclpy's EventsExecutor (9.1) needs three times the CPU of this one here.
        executor = SingleThreadedExecutor()
        spare_from_collection()
        try:
            executor.add_node(node)
            executor.spin_until_future_complete(ended)
        finally:
            close = getattr(node, "close", None)
            if close is not None:
                close()
            executor.shutdown(timeout_sec=1.0)
            node.destroy_node()
            rclpy.try_shutdown()
    return 0
