# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The recorder's client for `koch record`: services, status, parameters."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import rclpy
from koch_interfaces.msg import EpisodeStatus
from koch_interfaces.srv import DiscardEpisode, StartEpisode, StopEpisode, UndoDiscard
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.signals import SignalHandlerOptions

from koch_episodes.recorder.plan import Step, Verb
from koch_rig.errors import KochError

_LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
_STALE_S = 3.0


class RecorderGoneError(KochError):
    """No recorder answers."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The episode recorder does not answer: {why}. Start it with 'koch up --record', or "
            "give --rig FILE so that this command starts one."
        )


class RecorderClient:
    """Talks to the recorder node of this domain."""

    def __init__(self) -> None:
        self._own_context = not rclpy.ok()
        if self._own_context:
            rclpy.init(args=[], signal_handler_options=SignalHandlerOptions.NO)
        self._node = rclpy.create_node("record_terminal")
        self._executor = SingleThreadedExecutor()
        self._executor.add_node(self._node)
        self._clients = {
            Verb.START: self._node.create_client(StartEpisode, "episodes/start"),
            Verb.STOP: self._node.create_client(StopEpisode, "episodes/stop"),
            Verb.DISCARD: self._node.create_client(DiscardEpisode, "episodes/discard"),
            Verb.UNDO: self._node.create_client(UndoDiscard, "episodes/undo"),
        }
        self._clients[Verb.LABEL] = self._clients[Verb.STOP]
        self._parameters = self._node.create_client(SetParameters, "recorder/set_parameters")
        self._node.create_subscription(EpisodeStatus, "episodes/status", self._on_status, _LATCHED)
        self.status: EpisodeStatus | None = None
        self._heard_s = time.monotonic()
        self._pending: Any = None

    def _on_status(self, message: EpisodeStatus) -> None:
        self.status = message
        self._heard_s = time.monotonic()

    def spin(self, seconds: float) -> None:
        """Handle what comes for a while."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0.0:
            self._executor.spin_once(timeout_sec=left)

    def wait(self, timeout_s: float, check: Callable[[], None] = lambda: None) -> bool:
        """Wait until the recorder is there; False after the timeout."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            self.spin(0.1)
            check()
            if self.status is not None and self._clients[Verb.START].service_is_ready():
                return True
        return False

    def check(self) -> None:
        """Notice a recorder that died.

        Raises:
            RecorderGoneError: Nothing was heard of it for some seconds.
        """
        silent_s = time.monotonic() - self._heard_s
        if silent_s > _STALE_S:
            raise RecorderGoneError(f"no status for {silent_s:.0f} s")

    def ask(self, step: Step, *, task: str, duration_s: float, start_timeout_s: float) -> None:
        """Send a request; `answer` gets its reply later."""
        request: Any
        if step.verb is Verb.START:
            request = StartEpisode.Request(
                task=task, duration_s=duration_s, start_timeout_s=start_timeout_s
            )
        elif step.verb in (Verb.STOP, Verb.LABEL):
            request = StopEpisode.Request(outcome=step.outcome, keep=True)
        elif step.verb is Verb.DISCARD:
            request = DiscardEpisode.Request(reason="to be recorded again")
        else:
            request = UndoDiscard.Request()
        self._pending = self._clients[step.verb].call_async(request)

    @property
    def busy(self) -> bool:
        """A request is under way."""
        return self._pending is not None

    def answer(self) -> Any:
        """Return the reply to the last request once, None until it is there."""
        if self._pending is None or not self._pending.done():
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def set_number(self, name: str, value: float) -> None:
        """Set a parameter of the recorder.

        Raises:
            RecorderGoneError: It does not answer, or refuses.
        """
        parameter = ParameterMessage(name=name)
        parameter.value = ParameterValue(
            type=ParameterType.PARAMETER_DOUBLE, double_value=float(value)
        )
        if not self._parameters.wait_for_service(5.0):
            raise RecorderGoneError("its parameters cannot be set")
        future = self._parameters.call_async(SetParameters.Request(parameters=[parameter]))
        self._executor.spin_until_future_complete(future, timeout_sec=5.0)
        reply = future.result() if future.done() else None
        if reply is None or not reply.results[0].successful:
            reason = reply.results[0].reason if reply else "no answer"
            raise RecorderGoneError(f"{name} = {value}: {reason}")

    def close(self) -> None:
        """Leave the graph."""
        self._executor.shutdown()
        self._node.destroy_node()
        if self._own_context:
            rclpy.try_shutdown()


class OwnRecorder:
    """A recorder process that lives as long as this command.

    Args:
        rig: Rig file.
        root: Folder of the episodes, None for the recorder's default.
    """

    def __init__(self, rig: Path, root: Path | None) -> None:
        command = [sys.executable, "-m", "koch_episodes.recorder.node", "--ros-args"]
        command += ["-p", f"rig:={rig.resolve()}", "--log-level", "warn"]
        if root is not None:
            command += ["-p", f"root:={root.resolve()}"]
        self._log = tempfile.TemporaryFile(prefix="koch_recorder_")  # noqa: SIM115 closed at exit
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=self._log,
            start_new_session=True,  # Ctrl-C is for this command; it ends the recorder itself
        )

    def check(self) -> None:
        """Notice its end.

        Raises:
            RecorderGoneError: It ended.
        """
        code = self._process.poll()
        if code is not None:
            self._log.seek(0)
            words = self._log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
            raise RecorderGoneError(f"it ended with exit code {code}: {' '.join(words)}")

    def __enter__(self) -> OwnRecorder:
        """Return it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it; it saves what is running."""
        self._process.terminate()
        try:
            self._process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
