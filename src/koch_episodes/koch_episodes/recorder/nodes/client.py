# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The other end of the recorder node: what `koch record` and other subcommands ask of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from koch_interfaces.msg import EpisodeStatus
from koch_interfaces.srv import DiscardEpisode, StartEpisode, StopEpisode, UndoDiscard
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_srvs.srv import Trigger

from koch_core.errors import KochError
from koch_episodes.recorder.plan import HELD_KEY_S, RecordCommand, RecordStep
from koch_ros.errors import NoAnswerError
from koch_ros.process import NodeProcess
from koch_ros.qos import LATCHED
from koch_ros.session import ANSWER_TIMEOUT_S, GraphSession

_STALE_S = 3.0
_PARAMETER_S = 5.0


class RecorderGoneError(KochError):
    """No recorder answers."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The episode recorder does not answer: {why}. Start it with 'koch up --record', or "
            "give --rig FILE so that this command starts one."
        )


class HighlightControl:
    """Lets the recorder save its highlight buffer, while the caller goes on.

    Args:
        session: Spins for it.
    """

    def __init__(self, session: GraphSession) -> None:
        self._client: Any = session.node.create_client(Trigger, "episodes/highlight")
        self._pending: Any = None
        self._asked_s = -HELD_KEY_S

    def ask(self) -> str:
        """Save the last seconds; why that cannot be asked for, or empty.

        A key that is held down asks again and again: that is one wish.
        """
        before_s, self._asked_s = self._asked_s, time.monotonic()
        if self._asked_s - before_s < HELD_KEY_S:
            return ""
        if not self._client.service_is_ready():
            return "no highlight: no episode recorder runs ('koch up --record')"
        if self._pending is None:
            self._pending = self._client.call_async(Trigger.Request())
        return ""

    def answer(self) -> str:
        """What came of it, once; empty until then."""
        if self._pending is None or not self._pending.done():
            return ""
        pending, self._pending = self._pending, None
        return f"highlight {pending.result().message}"


class EpisodeControl:
    """Starts and stops episodes, waiting for each answer.

    Args:
        session: Spins while waiting.
        check: Called while waiting; raises when waiting makes no more sense.
    """

    def __init__(self, session: GraphSession, check: Callable[[], None] = lambda: None) -> None:
        self._session, self._check = session, check
        self._start: Any = session.node.create_client(StartEpisode, "episodes/start")
        self._stop: Any = session.node.create_client(StopEpisode, "episodes/stop")

    def start(self, task: str, stream_timeout_s: float = 0.0) -> str:
        """Begin an episode once all streams live; its folder.

        Args:
            task: Task text, empty for the rig's.
            stream_timeout_s: How long to wait for dead streams [s]; 0 for the recorder's own.

        Raises:
            NoAnswerError: There is no recorder.
            RefusedError: A stream is dead; the message names it.
        """
        request = StartEpisode.Request(task=task, start_timeout_s=stream_timeout_s)
        patience_s = stream_timeout_s + ANSWER_TIMEOUT_S
        return str(self._call(self._start, request, patience_s).path)

    def stop(self, outcome: str, *, keep: bool = True) -> tuple[str, str]:
        """End the episode; one that is not kept goes to the trash.

        Returns:
            Its folder, and the recorder's verdict.

        Raises:
            NoAnswerError: There is no recorder.
            RefusedError: No episode ran, or it could not be saved.
        """
        request = StopEpisode.Request(outcome=outcome, keep=keep)
        answer = self._call(self._stop, request, ANSWER_TIMEOUT_S)
        return str(answer.path), str(answer.verdict)

    def _call(self, client: Any, request: Any, timeout_s: float) -> Any:
        return self._session.call(client, request, timeout_s, self._check, must_succeed=True)


class RecorderClient:
    """The recorder node of this domain for someone who goes on while it works."""

    def __init__(self) -> None:
        self._session = GraphSession("record_terminal")
        node = self._session.node
        self._clients = {
            RecordCommand.START: node.create_client(StartEpisode, "episodes/start"),
            RecordCommand.STOP: node.create_client(StopEpisode, "episodes/stop"),
            RecordCommand.DISCARD: node.create_client(DiscardEpisode, "episodes/discard"),
            RecordCommand.UNDO: node.create_client(UndoDiscard, "episodes/undo"),
        }
        self._clients[RecordCommand.LABEL] = self._clients[RecordCommand.STOP]
        self.highlight = HighlightControl(self._session)
        self._parameters = node.create_client(SetParameters, "recorder/set_parameters")
        node.create_subscription(EpisodeStatus, "episodes/status", self._on_status, LATCHED)
        self.status: EpisodeStatus | None = None
        self._heard_s = time.monotonic()
        self._pending: Any = None

    def _on_status(self, message: EpisodeStatus) -> None:
        self.status = message
        self._heard_s = time.monotonic()

    def spin(self, seconds: float) -> None:
        """Handle what comes for a while."""
        self._session.spin(seconds)

    def wait(self, timeout_s: float, check: Callable[[], None] = lambda: None) -> bool:
        """Wait until the recorder is there; False after the timeout."""

        def there() -> bool:
            return (
                self.status is not None and self._clients[RecordCommand.START].service_is_ready()
            )

        return self._session.spin_until(there, timeout_s, check)

    def follow_graph_clock(self) -> bool:
        """Take the time from the graph's /clock, see GraphSession; say whether there is one."""
        return self._session.follow_graph_clock()

    def check(self) -> None:
        """Notice a recorder that died.

        Raises:
            RecorderGoneError: Nothing was heard of it for some seconds.
        """
        silent_s = time.monotonic() - self._heard_s
        if silent_s > _STALE_S:
            raise RecorderGoneError(f"no status for {silent_s:.0f} s")

    def ask(
        self, step: RecordStep, *, task: str, duration_s: float, start_timeout_s: float
    ) -> None:
        """Send a request; `answer` gets its reply later, and no longer that of an earlier one."""
        request: Any
        if step.verb is RecordCommand.START:
            request = StartEpisode.Request(
                task=task, duration_s=duration_s, start_timeout_s=start_timeout_s
            )
        elif step.verb in (RecordCommand.STOP, RecordCommand.LABEL):
            request = StopEpisode.Request(outcome=step.outcome, keep=True)
        elif step.verb is RecordCommand.DISCARD:
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
        request = SetParameters.Request(parameters=[parameter])
        try:
            reply = self._session.call(self._parameters, request, _PARAMETER_S)
        except NoAnswerError as exc:
            raise RecorderGoneError(f"{name} = {value} cannot be set") from exc
        if not reply.results[0].successful:
            raise RecorderGoneError(f"{name} = {value}: {reply.results[0].reason}")

    def close(self) -> None:
        """Leave the graph."""
        self._session.close()


class OwnRecorder(NodeProcess):
    """A recorder process that lives as long as this command.

    Args:
        rig: Rig file.
        root: Folder of the episodes, None for the recorder's default.
        use_sim_time: The graph lives by /clock.
    """

    def __init__(self, rig: Path, root: Path | None, *, use_sim_time: bool) -> None:
        parameters: dict[str, Any] = {"rig": str(rig.resolve()), "use_sim_time": use_sim_time}
        if root is not None:
            parameters["root"] = str(root.resolve())
        super().__init__(
            "koch_episodes.recorder.node", parameters, ("--log-level", "warn"), quiet=True
        )

    def check(self) -> None:
        """Notice its end.

        Raises:
            RecorderGoneError: It ended.
        """
        code = self.exit_code()
        if code is not None:
            raise RecorderGoneError(f"it ended with exit code {code}: {self.last_words()}")
