# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""SIGINT and SIGTERM as one event for processes whose main thread waits in a library."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
