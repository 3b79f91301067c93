# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One run of a policy: what to do at each tick, why it ended, and waking at each tick. No ROS.

A tick goes: who drives -> answer of the last inference -> streams alive? -> action of this tick
-> next inference. Where inference is quick the last two change places, and the action waits for
it. Whatever goes wrong, nothing is commanded from that tick on: the guard then brakes and holds
the measured pose. The run ends with the first cause. A run has no thread; only `Ticker` and what
it is given as `wait` and `nap` sleep.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from koch_core.errors import KochError
from koch_core.frame import Missing
from koch_policy.chunks import ChunkScheduler, DelayQuantile, Grid, Request, Strategy
from koch_policy.chunks.chunk import RawRows, Rows
from koch_policy.errors import PolicyUnavailableError
from koch_policy.execution.compatibility import Actions
from koch_policy.execution.inference import Answer, Predict, Worker
from koch_policy.execution.observation import ObservationBuilder
from koch_policy.execution.takeover import HUMAN, Driven
from koch_policy.policy import Observation

if TYPE_CHECKING:
    from koch_policy.chunks.guided import EnergyMeter

_NS = 1_000_000_000
# A chunk that usually comes within this part of a tick is waited for in its own tick.
_PROMPT = 0.6
_SPARE_S = 0.002  # behind the usual moment of a chunk, for those that come a little later
_HUNG, _HUNG_S = 5.0, 0.5  # a policy hangs that takes so many times as long as usual, and so long
_LONGEST_NAP_S = 0.05
_JUMP_S = 0.25
_SIMULATED_JUMP_S = 2.0


class StopReason(enum.IntEnum):
    """The numbers are those of koch_interfaces/action/RunPolicy."""

    FINISHED = 0
    CANCELLED = 1
    STALE_STREAM = 2
    POLICY_ERROR = 3
    MISMATCH = 4
    REFUSED = 5


@dataclass(frozen=True)
class RunResult:
    """The end of a run: the first cause, in words that name stream or joint."""

    cause: StopReason
    reason: str

    @property
    def is_fault(self) -> bool:
        """True unless the run ended as asked."""
        return self.cause not in (StopReason.FINISHED, StopReason.CANCELLED)


Wait = Callable[[float], Answer | None]
Trace = Callable[[int, Mapping[str, int]], None]


class Sink(Protocol):
    """Where a run's results go."""

    def command(self, time_ns: int, action: Rows) -> None:
        """Command the arms: [rad], for this moment."""
        ...

    def chunk(self, request: Request, rows: Rows, entry: int, observed_ns: int) -> None:
        """A chunk came; row `entry` is due next. Its observation's oldest sample is so old."""
        ...

    def predicted(self, tick: int, action: Rows, preview: Rows | None) -> None:
        """What the policy does at a tick, commanded or not, and what follows."""
        ...

    def intervention(self, stamp_ns: int, source: str, *, begins: bool) -> None:
        """Someone took the arm over, or gave it back."""
        ...


@dataclass(frozen=True)
class RunSettings:
    """What a run is to do.

    Attributes:
        task: Task text at the beginning.
        max_duration_s: End after this time, 0 = never [s].
        is_shadow: Predict, do not command.
        stale_abort_s: Streams may be missing for so long before the run is given up [s].
        start_timeout_s: The same before the first command [s].
        overrun_abort_s: The policy may leave the arm without an action for so long [s].
        quiet_s: Time without commands after which the guard begins again, softly [s].
    """

    task: str
    max_duration_s: float = 0.0
    is_shadow: bool = False
    stale_abort_s: float = 0.5
    start_timeout_s: float = 5.0
    overrun_abort_s: float = 1.0
    quiet_s: float = 0.4


class PolicyRun:
    """The run. `step` is called at every tick by one thread; the rest from anywhere.

    Args:
        settings: What to do.
        grid: The ticks.
        strategy: Fresh.
        delay: Estimator that outlives runs.
        clock: Time now [ns], in the clock of the grid.
        worker: The loaded policy.
        builder: Its observations.
        actions: What its chunks mean in joints.
        predict: How to call the policy.
        takeover: Who else commands.
        sink: Where results go.
        wait: Waits some seconds for an answer of the worker; None where no time passes meanwhile,
            so that answers are taken at the next tick.
        nap: Lets some seconds pass.
        energy: Told what is executed, where the policy can say how well it knows it.
        trace: Told the stamp of each command and when the stages before it ended, all in [ns]; see
            `koch_episodes.goal_trace`.
    """

    def __init__(
        self,
        settings: RunSettings,
        *,
        grid: Grid,
        strategy: Strategy,
        delay: DelayQuantile,
        clock: Callable[[], int],
        worker: Worker,
        builder: ObservationBuilder,
        actions: Actions,
        predict: Predict,
        takeover: Driven,
        sink: Sink,
        wait: Wait | None = None,
        nap: Callable[[float], None] = time.sleep,
        energy: EnergyMeter | None = None,
        trace: Trace = lambda command_ns, moments: None,
    ) -> None:
        self.settings = settings
        self.grid = grid
        is_still = not settings.is_shadow  # the guard holds the pose until the first command
        self.scheduler = ChunkScheduler(strategy, delay, grid, clock, is_still=is_still)
        self.end: RunResult | None = None
        self.ended = threading.Event()
        self.refusals = 0
        self.commands: deque[int] = deque(maxlen=64)  # times of the newest commands [ns]
        self.first_command_ns: int | None = None
        self.last_missing = ""
        self._unavailable = ""  # why the policy has not answered, as long as it does not
        self._clock = clock
        self._worker = worker
        self._builder = builder
        self.task = settings.task
        self._told: str | None = None
        self._actions = actions
        self._seen: Observation = {}  # what the inference that is under way sees
        self._trouble = ""  # why the newest chunk ends early
        self._energy = energy
        self._predict = predict if energy is None else energy.watching(predict)
        self._takeover = takeover
        self._sink = sink
        self._wait_for, self._nap, self._trace = wait, nap, trace
        self._asked: dict[str, int] = {}  # moments of the inference that is under way
        self._moments: dict[str, int] = {}  # of the one whose chunk is executed
        self._begin_ns = self._end_ns = clock()
        self._alive_ns = self._begin_ns  # newest tick at which all streams were there
        self._action_ns = self._begin_ns  # newest tick with an action, or reason to have none
        self._observed_ns = 0  # oldest sample behind the inference that is under way
        self._quiet_from_ns: int | None = None  # after a pause: last command
        self._paused_by_user = False
        self._driver: str | None = None
        self._stop: RunResult | None = None
        builder.clear()
        builder.forget_future(self._begin_ns)

    # -- from outside ---------------------------------------------------------------------------

    def request_end(self, cause: StopReason, reason: str) -> None:
        """End at the next tick; the first cause wins."""
        if self._stop is None:
            self._stop = RunResult(cause, reason)

    def tell(self, task: str) -> None:
        """Go on with another task: the next inference, which begins at once, is told this text."""
        self._told = task

    def pause(self) -> None:
        """Stop commanding until `resume`."""
        self._paused_by_user = True

    def resume(self) -> None:
        """Go on with a new chunk, softly."""
        self._paused_by_user = False

    @property
    def pause_reason(self) -> str:
        """Why nothing is commanded although the run goes on; empty when it is."""
        if self._driver is not None:
            who = "a human (teleop)" if self._driver == HUMAN else self._driver
            return f"{who} drives the arm"
        if self._paused_by_user:
            return "paused; call resume"
        return f"waiting for {self.last_missing}" if self.last_missing else ""

    @property
    def is_paused(self) -> bool:
        """True while someone else has the arm, or pause was called."""
        return self._driver is not None or self._paused_by_user

    @property
    def steps(self) -> int:
        """Actions published (in shadow: predicted)."""
        return self.scheduler.executed

    @property
    def duration_s(self) -> float:
        """From the first command to the end, or now [s]."""
        first = self.first_command_ns
        if first is None:
            return 0.0
        return max(0, (self._end_ns if self.end else self._clock()) - first) / _NS

    @property
    def chunk_age_s(self) -> float:
        """Age of the observation behind the plan [s]; -1 without a plan."""
        tick = self.scheduler.observation_tick
        if tick is None:
            return -1.0
        return (self._clock() - self.grid.time_ns(tick)) / _NS

    def rate_hz(self) -> float:
        """Commands per second over the last two seconds."""
        now = self._clock()
        recent = [stamp for stamp in tuple(self.commands) if now - stamp <= 2 * _NS]
        if len(recent) < 2 or recent[-1] <= recent[0]:
            return 0.0
        return (len(recent) - 1) * _NS / (recent[-1] - recent[0])

    # -- the tick -------------------------------------------------------------------------------

    def step(self, tick: int) -> None:
        """Do what is due at a tick."""
        if self.end is not None:
            return
        tick_ns = self.grid.time_ns(tick)
        if self._told is not None:
            self.task, self._told = self._told, None
            self.scheduler.renew()
        self._collect(tick)
        limit = self.settings.max_duration_s
        if limit > 0.0 and tick_ns - self._begin_ns >= limit * _NS:
            self.request_end(StopReason.FINISHED, f"{limit:g} s are over")
        if self._stop is not None:
            self.conclude()
            return
        if self._is_held(tick_ns):
            return
        gone = self._builder.missing(tick_ns)
        if gone is not None:
            self._on_empty(gone, tick_ns)
            return
        self._alive_ns, self.last_missing = tick_ns, ""
        if self._is_prompt:
            # What is seen at this tick moves the arm at this tick, not one later.
            self._request_chunk(tick, tick_ns)
            self._await_chunk(tick, tick_ns)
            if self._stop is None:
                self._send_action(tick, tick_ns)
        else:
            self._send_action(tick, tick_ns)
            self._request_chunk(tick, tick_ns)
        if self._stop is not None:
            self.conclude()

    def conclude(self) -> None:
        """End for good, with the first cause that was given; idempotent."""
        if self.end is not None:
            return
        self.request_end(StopReason.CANCELLED, "the node is ending")
        if self._driver is not None:
            self._sink.intervention(self._clock(), self._driver, begins=False)
            self._driver = None
        self.scheduler.clear()
        self.end = self._stop
        self._end_ns = self._clock()
        self.ended.set()

    def _is_held(self, tick_ns: int) -> bool:
        """Whether someone else has the arm, or had it a moment ago."""
        if self.settings.is_shadow:
            return False
        driving = self._takeover.driver()
        source = None if driving is None else driving[0]
        if source != self._driver:
            self._change_driver(source, tick_ns if driving is None else driving[1])
        if self.is_paused:
            if self._quiet_from_ns is None:
                self._quiet_from_ns = self.commands[-1] if self.commands else 0
                self.scheduler.clear()
                self._builder.clear()
            self._alive_ns = self._action_ns = tick_ns
            return True
        if self._quiet_from_ns is not None:
            # Only a source that was silent is started softly by the guard.
            if tick_ns - self._quiet_from_ns < self.settings.quiet_s * _NS:
                self._alive_ns = self._action_ns = tick_ns
                return True
            self._quiet_from_ns = None
        return False

    def _change_driver(self, source: str | None, stamp_ns: int) -> None:
        if self._driver is not None:
            self._sink.intervention(stamp_ns, self._driver, begins=False)
        if source is not None:
            self._sink.intervention(stamp_ns, source, begins=True)
        self._driver = source

    @property
    def _is_prompt(self) -> bool:
        """Whether chunks usually come so soon that their own tick can wait for them."""
        step_s = self.grid.step_s
        return self._wait_for is not None and self.scheduler.delay.estimate_s < _PROMPT * step_s

    def _await_chunk(self, tick: int, tick_ns: int) -> None:
        """Wait for the chunk of this tick, and for the moment at which all ticks send.

        That moment is the same after every tick, also after those that ask for no chunk: commands
        keep their period. It follows the delay of chunks, slowly.
        """
        send_ns = tick_ns + round((self.scheduler.delay.estimate_s + _SPARE_S) * _NS)
        last_ns = tick_ns + round(_PROMPT * self.grid.step_s * _NS)
        left_s = (max(send_ns, last_ns) - self._clock()) / _NS
        if self._wait_for is not None and self.scheduler.awaits(tick) and left_s > 0.0:
            self._take_answer(self._wait_for(left_s), tick)
        early_s = (send_ns - self._clock()) / _NS
        if early_s > 0.0:
            self._nap(early_s)

    def _on_empty(self, gone: Missing, tick_ns: int) -> None:
        """A stream is missing: command nothing, and give up after a while."""
        self.refusals += 1
        self.last_missing = ", ".join(reason.stream for reason in gone.reasons)
        waited = (tick_ns - self._alive_ns) / _NS
        self._action_ns = tick_ns
        if waited > self.settings.quiet_s:  # the guard holds the pose by now: begin again
            self.scheduler.clear()
        settings = self.settings
        limit = settings.stale_abort_s if self.commands else settings.start_timeout_s
        if waited > limit:
            self.request_end(StopReason.STALE_STREAM, str(gone))
            self.conclude()

    def _send_action(self, tick: int, tick_ns: int) -> None:
        action = self.scheduler.action(tick)
        if action is not None:
            self._action_ns = tick_ns
            if self.first_command_ns is None:
                self.first_command_ns = tick_ns
            self.commands.append(tick_ns)
            if not self.settings.is_shadow:
                row_ns = self._clock()
                self._sink.command(tick_ns, action)
                if self._energy is not None:
                    self._energy.executed(tick, action)
                moments = {**self._moments, "row": row_ns, "command": self._clock()}
                self._trace(tick_ns, moments)
            self._sink.predicted(tick, action, self.scheduler.strategy.preview(tick))
            return
        if self._unavailable:
            self.last_missing = f"the policy: {self._unavailable}"
        idle = (tick_ns - self._action_ns) / _NS
        limit = self.settings.overrun_abort_s
        if not self.commands:
            limit = max(limit, self.settings.start_timeout_s if not self.scheduler.expired else 0)
        if idle > limit:
            self.request_end(StopReason.POLICY_ERROR, self._overrun(idle))

    def _overrun(self, idle_s: float) -> str:
        begin = f"overrun: no action for {idle_s:.1f} s"
        if self._unavailable or self._trouble:
            return f"{begin}: {self._unavailable or self._trouble}. The arm holds its pose"
        busy_s, usual_s = self._worker.busy_s, self.scheduler.delay.percentile(0.5)
        if busy_s > max(_HUNG * usual_s, _HUNG_S):
            return (
                f"{begin}: the policy has not answered for {busy_s:.1f} s, it usually takes "
                f"{usual_s:.2f} s. The arm holds its pose"
            )
        plan = " and longer than its whole chunk" if self.scheduler.expired else ""
        return (
            f"{begin}, inference takes {max(usual_s, busy_s):.2f} s, longer "
            f"than the plan lasts{plan}. Use a faster runtime or machine, fewer denoising steps, "
            "or begin earlier (execution_steps)"
        )

    def _request_chunk(self, tick: int, tick_ns: int) -> None:
        """Take in the observation and begin an inference when it is time."""
        due = self.scheduler.wants(tick) and self._worker.busy_s == 0.0
        if not due and not self._builder.has_history:
            return
        begun_ns = self._clock()
        broken = self._builder.observe(tick, tick_ns)
        if broken is not None:
            self.refusals += 1
            self.last_missing = str(broken)
            return
        if due:
            decoded_ns = self._clock()
            observation = self._builder.observation(tick, self.task)
            self._observed_ns = self._builder.stamp_ns(tick)
            self._asked = {
                "exposure": self._observed_ns,
                "wait": begun_ns,
                "decode": decoded_ns,
                "assemble": self._clock(),
            }
            self._seen = observation
            request = self.scheduler.begin(tick, self._continued)
            self._worker.submit(request, observation, self._predict)

    def _continued(self, kept: RawRows) -> RawRows:
        return self._actions.continued(kept, self._seen)

    def _collect(self, tick: int) -> None:
        """Take the answer of an inference that has come since the last tick."""
        self._take_answer(self._worker.poll(), tick)

    def _take_answer(self, answer: Answer | None, tick: int) -> None:
        if answer is None or not self.scheduler.owns(answer.request):
            return  # nothing, or an answer to a plan that was given up in the meantime
        if answer.raw is None:
            self.scheduler.cancel(answer.request)
            error = answer.error
            if isinstance(error, PolicyUnavailableError):
                self._unavailable = str(error)
                self.refusals += 1
                return
            self.request_end(StopReason.POLICY_ERROR, f"{type(error).__name__}: {error}")
            return
        self._take(answer, answer.raw, tick)

    def _take(self, answer: Answer, raw: RawRows, tick: int) -> None:
        try:
            rows, self._trouble = self._actions.decode(raw, self._seen)
        except KochError as exc:
            self.request_end(StopReason.POLICY_ERROR, str(exc))
            return
        if not np.isfinite(rows).all():
            self.request_end(StopReason.POLICY_ERROR, "the chunk is not finite in rad")
            return
        self._unavailable = ""
        request = answer.request
        kept = self._actions.kept(raw, rows)
        arrival = self.scheduler.arrive(request, rows, kept, tick, answer.finished_ns)
        if arrival.usable:
            computed = {"queue": answer.begun_ns, "compute": answer.finished_ns}
            self._moments = {**self._asked, **computed}
            shown = arrival.rows[: len(rows)]  # a chunk that begins late is longer
            self._sink.chunk(request, shown, arrival.entry, self._observed_ns)


class Ticker:
    """Calls back at each tick until told to stop.

    Ticks that were slept over are left out: the newest one is done at once.

    Args:
        clock: Time now [ns], in the clock of the stamps.
        is_simulated: The clock is /clock: it runs at any speed, but never backwards.
        monotonic_ns: A clock that never jumps.
        nap: Waits for some seconds, or until the event is set.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        *,
        is_simulated: bool = False,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
        nap: Callable[[threading.Event, float], None] = lambda event, s: void(event.wait(s)),
    ) -> None:
        self._clock = clock
        self._is_simulated = is_simulated
        self._monotonic_ns = monotonic_ns
        self._nap = nap
        self.late = 0

    def run(
        self,
        grid: Grid,
        stop: threading.Event,
        step: Callable[[int], bool],
        jumped: Callable[[float], None],
    ) -> None:
        """Tick until `step` returns False, `stop` is set, or the clock jumps.

        Args:
            grid: The ticks.
            stop: Ends the loop.
            step: Called with each tick.
            jumped: Called with the size of the jump in [s]; the loop ends then.
        """
        before = (self._clock(), self._monotonic_ns())
        tick = grid.tick_at(before[0]) + 1
        while not stop.is_set():
            now, steady = self._clock(), self._monotonic_ns()
            jump_s = self._jump_s(before, (now, steady))
            before = (now, steady)
            if jump_s:
                jumped(jump_s)
                return
            left_s = (grid.time_ns(tick) - now) / _NS
            if left_s > 0.0:
                longest = 0.002 if self._is_simulated else _LONGEST_NAP_S
                self._nap(stop, min(left_s, longest))
                continue
            newest = grid.tick_at(now)
            self.late += newest - tick
            if not step(newest):
                return
            tick = newest + 1

    def _jump_s(self, before: tuple[int, int], now: tuple[int, int]) -> float:
        """How far the clock moved beyond the time that passed [s], 0 when it did not jump."""
        moved_s, passed_s = (now[0] - before[0]) / _NS, (now[1] - before[1]) / _NS
        if self._is_simulated:
            return moved_s if moved_s < 0.0 or moved_s > _SIMULATED_JUMP_S else 0.0
        return moved_s - passed_s if abs(moved_s - passed_s) > _JUMP_S else 0.0


def void(_: object) -> None:
    """Drop a value."""
