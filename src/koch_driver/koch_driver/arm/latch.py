# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What keeps an arm still until a person lifts it: stops and a released torque, kept in a file.

Why a file: a latched stop is a promise to a person who has put a hand between the joints. A driver
that dies (killed, out of memory, a fault in a library) is started again within a second, and an
object in its memory would then have forgotten the promise. The servos cannot keep it either: they
know neither who stopped them nor whether someone released them or a plug was loose.

Why in the run folder and not beside the calibration: it is a state of this boot, not of the rig.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, replace
from enum import IntEnum
from pathlib import Path

from koch_core.files import write_atomically


class StopCause(IntEnum):
    """Why an arm was stopped; the numbers are those of koch_interfaces/msg/GuardStop."""

    REQUEST = 0
    HARDWARE_ERROR = 1
    RESTART = 2
    POWER = 3
    MEASUREMENT = 4
    UNKNOWN = 5


@dataclass(frozen=True)
class Stop:
    """A latched stop.

    Attributes:
        cause: Its kind.
        text: What happened, for people.
        joint: The joint concerned, empty for the whole arm.
        time_ns: System time of the stop.
    """

    cause: StopCause
    text: str
    joint: str = ""
    time_ns: int = 0


@dataclass(frozen=True)
class LatchState:
    """A snapshot of a latch.

    Attributes:
        stops: What holds the arm still, oldest first; one per cause and joint.
        released: Why there is no torque although the arm was not told to start without;
            empty when no one released it.
        held: A driver held the arm under torque and has not left it as it should: killed, or ended
            while the arm did not answer. The next one that finds the arm limp knows by it that
            the arm lost its power meanwhile. Who starts that driver, and when, does not matter.
        count: Stops and releases so far. A sender that sees it grow has been stopped, also where
            a resume followed before it looked.
    """

    stops: tuple[Stop, ...] = ()
    released: str = ""
    count: int = 0
    held: bool = False


class SafetyLatch:
    """Remembers stops and a released torque, beyond the death of this process where it has a file.

    Args:
        path: The file; None keeps the state in memory only.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._parent = os.getppid()
        #: Why the file could not be written the last time; empty when it could.
        self.unsaved = ""
        self._state = LatchState() if path is None else _read(path)

    @property
    def state(self) -> LatchState:
        """The present state."""
        return self._state

    @property
    def orphaned(self) -> bool:
        """Whether the process that started this one has died: no one ends it on purpose."""
        return os.getppid() != self._parent

    def stop(self, cause: StopCause, text: str, joint: str = "") -> None:
        """Add a stop. One that repeats cause and joint counts, and replaces the older text."""
        new = Stop(cause, text, joint, time.time_ns())
        with self._lock:
            state = self._state
            others = [s for s in state.stops if (s.cause, s.joint) != (cause, joint)]
            self._set(replace(state, stops=(*others, new), count=state.count + 1))

    def explain(self, cause: StopCause, text: str, joint: str = "") -> None:
        """Say better what a latched stop was, once more is known; it is no new stop."""
        with self._lock:
            state = self._state
            stops = tuple(
                replace(s, text=text) if (s.cause, s.joint) == (cause, joint) else s
                for s in state.stops
            )
            if stops != state.stops:
                self._set(replace(state, stops=stops))

    def resume(self) -> None:
        """Lift all stops."""
        with self._lock:
            if self._state.stops:
                self._set(replace(self._state, stops=()))

    def release(self, why: str) -> None:
        """Remember that the torque was released on purpose."""
        with self._lock:
            count = self._state.count + 1
            self._set(replace(self._state, released=why, count=count, held=False))

    def hold(self) -> None:
        """The arm has its torque again."""
        with self._lock:
            state = replace(self._state, released="", held=True)
            if state != self._state:
                self._set(state)

    def leave(self) -> None:
        """The driver ends as it should: what becomes of the arm then is not its concern.

        A driver that ends because its parent was killed has not been told to leave the arm.
        """
        with self._lock:
            if self._state.held and not self.orphaned:
                self._set(replace(self._state, held=False))

    def _set(self, state: LatchState) -> None:
        self._state = state
        if self._path is None:
            return
        try:
            write_atomically(self._path, json.dumps(asdict(state), indent=1))
            self.unsaved = ""
        except OSError as exc:
            # A full disk must not keep the arm from being stopped now; the node reports it.
            self.unsaved = f"{self._path}: {exc.strerror or exc}"


def latch_path(port: str, what: str = "guard") -> Path:
    """The file of the arm behind a port, the same for every process of this user.

    What is kept there is the guard's, or that of another node that must not forget.

    The port as the rig writes it is the arm's identity: by-id links stay, whatever number the
    kernel gives the device behind them after a plug was pulled.
    """
    readable = re.sub(r"[^A-Za-z0-9]+", "_", Path(port).name)[-60:]
    digest = hashlib.sha256(port.encode()).hexdigest()[:12]
    return _run_folder() / f"{what}_{readable}_{digest}.json"


def _run_folder() -> Path:
    """KOCH_RUN_DIR, else the user's folder that lives as long as this boot.

    Not XDG_RUNTIME_DIR: the variable is there in a login, not under systemd or cron, and a driver
    that is started another way must find the same file.
    """
    if given := os.environ.get("KOCH_RUN_DIR"):
        return Path(given)
    user = Path(f"/run/user/{os.getuid()}")
    return user / "koch" if user.is_dir() else Path(tempfile.gettempdir()) / f"koch_{os.getuid()}"


def _read(path: Path) -> LatchState:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return LatchState()
    except (OSError, UnicodeDecodeError) as exc:
        return _unreadable(path, exc)
    try:
        raw = json.loads(text)
        stops = tuple(
            Stop(StopCause(s["cause"]), str(s["text"]), str(s["joint"]), int(s["time_ns"]))
            for s in raw["stops"]
        )
        held = bool(raw.get("held", False))  # absent in older files
        return LatchState(stops, str(raw["released"]), int(raw["count"]), held)
    except (ValueError, KeyError, TypeError) as exc:
        return _unreadable(path, exc)


def _unreadable(path: Path, why: Exception) -> LatchState:
    """The safe reading of a file that says nothing: stopped."""
    text = f"the record of earlier stops, {path}, cannot be read ({why}); resume replaces it"
    return LatchState((Stop(StopCause.UNKNOWN, text, "", time.time_ns()),), "", 1)
