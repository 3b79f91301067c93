# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The one way by which a goal reaches the motors."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from enum import Enum
from math import isfinite
from typing import NamedTuple

from koch_driver.guard import rules
from koch_driver.guard.goal_profile import GoalProfile
from koch_driver.guard.limits import GuardLimits
from koch_driver.guard.plausibility import Plausibility
from koch_driver.guard.refusals import RefusalLog
from koch_driver.guard.rules import NAN, Intervention, Rule
from koch_driver.guard.sources import (
    DEFAULT_SOURCES,
    Command,
    CommandSource,
    CommandStream,
    choose,
)
from koch_driver.guard.workspace import Workspace


class GuardState(Enum):
    """What the goal of a cycle follows."""

    WAITING = "waiting"  # no measurement yet: no goal
    HOLDING = "holding"  # no one commands: at rest, or braking towards it
    BLENDING = "blending"  # soft start towards a source
    DRIVING = "driving"  # a source
    STOPPED = "stopped"  # latched stop: at rest, or braking towards it


class GuardResult(NamedTuple):
    """The outcome of one cycle.

    Attributes:
        goal: Goals in [rad], one per joint; None: write nothing.
        velocity: Change of the goals in this cycle in [rad/s]; zeros without a goal.
        state: What the goal follows.
        source: The source that drives, None while holding.
        command: The command of that source which this goal answers.
        interventions: What was changed and why, this cycle.
        restarted: This goal starts a new sequence at the measured pose.
    """

    goal: tuple[float, ...] | None
    velocity: tuple[float, ...]
    state: GuardState
    source: str | None
    command: Command | None
    interventions: tuple[Intervention, ...]
    restarted: bool


# The arm has come to rest when it stayed within so much for so long, or after the longest time.
_SETTLED_RAD = 0.005
_SETTLED_S = 0.05
_SETTLE_MAX_S = 0.5


class Guard:
    """Turns commands of several sources into goals that keep what is promised here.

    Call `submit` whenever a command arrives (any thread) and `step` once per bus cycle (one
    thread). Let T be the cycle time, V and A the speed and acceleration bounds, and call
    *sequence* the goals from one with `restarted` set until the next such one. Whatever commands,
    stamps, source changes, stops, faults and measurements come in:

    * Every goal is finite. There is no goal (None) until `step` is given a finite measurement
      after construction and after every `restart`, nor while the arm is measured more than
      `recover_rad` outside its limits at that moment.
    * The first goal of a sequence is within V*T of the measured pose in each joint.
    * Within a sequence |goal[k] - goal[k-1]| <= V*T, and speeds differ by at most A*T from cycle
      to cycle, the first one from zero. (A late cycle steps no farther than a punctual one.)
    * Goals follow a moving target without lag once they have caught up. They never run past a
      target that rests or jumps; one that was moving and stops harder than A is overshot by at
      most the braking distance.
    * Every goal is inside [lower, upper], and can be braked to rest inside them. If the arm woke
      up outside by more than V*T, its goals lie between that pose and the limit, move only
      inwards, and only when commanded.
    * The TCP of every goal is inside the workspace, and stays there while braking. If the arm woke
      up outside, the depth of the TCP outside never exceeds that of the first goal; the bound
      shrinks with the depth and does not grow again.
    * At a face of the workspace only the part of a motion that would cross it is taken away: a
      joint that does not move the TCP towards the face (above a table the base and, but for
      millimetres, the roll of the wrist) follows as if there were none.
    * Targets, before speed limiting, are never more than `lead_rad` (or what `back_off` set) from
      the measured pose.
    * A measurement that no joint can have come to since the one before, or half a turn outside
      its limits, is none: nothing follows it, and it is reported (rule MEASURED).
    * A source drives only while no source of higher priority has sent an accepted command in the
      last `source_timeout_s`. Without an accepted command for `command_timeout_s`, and while
      stopped, the goal brakes at A; when the arm has come to rest as well (or half a second
      later) the goal goes to, and stays at, the pose measured then.
    * A new source, and any source after holding, a stop or a restart, begins at the measured pose
      and takes over smoothly (`blend_min_s`, longer when far away).

    In the last two points joints of `grip_joints` keep their goal instead of the measured
    position, which would drop what they hold.
    """

    def __init__(
        self,
        limits: GuardLimits,
        *,
        period_s: float,
        workspace: Workspace | None = None,
        sources: Sequence[CommandSource] = DEFAULT_SOURCES,
    ) -> None:
        self.limits = limits
        self._joints = limits.joints
        self.period_s = period_s
        ranked = sorted(sources, key=lambda source: -source.priority)
        self._streams = tuple(CommandStream(source, period_s) for source in ranked)
        self._by_name = {stream.source.name: stream for stream in self._streams}
        self._path = GoalProfile(limits, period_s, workspace)
        self._lead = list(limits.lead_rad)
        self._lock = threading.Lock()
        self._counts: Counter[tuple[Rule, str]] = Counter()
        #: Who was refused and why, per source.
        self.refusals = RefusalLog(limits.joints)
        self._measured: list[float] | None = None
        self._plausibility = Plausibility(limits.lower, limits.upper, limits.fastest_rad_s)
        self._stopped = False
        self._restart = True
        self._driver: CommandStream | None = None
        self._silent: CommandStream | None = None
        self._hold: list[float] | None = None
        self._settling: list[float] = []
        self._settle_cycles = 0
        self._settle_begin = 0
        self._blend_from: list[float] = []
        self._blend_begin_s = 0.0
        self._blend_duration_s = 0.0
        self._blending = False

    @property
    def stopped(self) -> bool:
        """True between `stop` and `resume`."""
        return self._stopped

    def silent(self, now_s: float) -> tuple[str, float] | None:
        """Name a source that drove and went silent without a release, and for how long [s].

        None while a source drives, while stopped, and after a restart.
        """
        stream = None if self._stopped else self._silent
        return None if stream is None else (stream.source.name, stream.age_s(now_s))

    def counts(self) -> dict[tuple[Rule, str], int]:
        """Interventions since the start, by rule and joint (or source)."""
        with self._lock:
            return dict(self._counts)

    def submit(
        self,
        source: str,
        names: Sequence[str],
        positions: Sequence[float],
        *,
        age_s: float,
        now_s: float,
        sender: Hashable = None,
    ) -> tuple[Intervention, ...]:
        """Hand in a command.

        Args:
            source: Name of the source.
            names: Joint names, all of them, any order.
            positions: Joint angles in [rad], one per name.
            age_s: Time since the command's stamp, on the clock of the stamp.
            now_s: Time on the clock that `step` uses (monotonic).
            sender: Who sent it, for the record of refusals; None where unknown.

        Returns:
            Why the command was refused; empty when it was accepted. A refusal by PRIORITY alone
            means that the command is valid but someone else drives.
        """
        refusals = self._check(source, names, positions, age_s)
        if not refusals:
            values = dict(zip(names, positions, strict=True))
            ordered = tuple(float(values[joint]) for joint in self._joints)
            stream = self._by_name[source]
            stream.put(ordered, now_s - age_s, now_s)
            ruling = choose(self._streams, now_s, self.limits.source_timeout_s)
            if self._stopped:
                refusals.append(Intervention(Rule.STOP, source, NAN, None))
            elif ruling is not stream:
                refusals.append(Intervention(Rule.PRIORITY, source, NAN, None))
        self._refuse(source, refusals, (sender,), now_s)
        return tuple(refusals)

    def refuse_senders(self, source: str, senders: Iterable[Hashable], now_s: float) -> None:
        """Refuse a command because several publishers send for one source; none is obeyed.

        The name may be one of no source, as of the topic of whole trajectories.
        """
        if source in self._by_name:
            self.release(source)
        self._refuse(source, [Intervention(Rule.SENDER, source, NAN, None)], senders, now_s)

    def _refuse(
        self,
        source: str,
        refusals: Sequence[Intervention],
        senders: Iterable[Hashable],
        now_s: float,
    ) -> None:
        self._count(refusals)
        if refusals:
            self.refusals.add(source, refusals, [s for s in senders if s is not None], now_s)

    def stop(self) -> None:
        """Brake and hold until `resume`, whatever is commanded."""
        self._stopped = True

    def resume(self) -> None:
        """End a stop: commands that arrive from now on are obeyed, from the measured pose."""
        if not self._stopped:
            return
        self._silent = None
        for stream in self._streams:
            stream.clear()
        self._stopped = False

    def release(self, source: str) -> None:
        """End a source's timeout at once, so that a lower one may take over or the arm holds."""
        stream = self._by_name[source]
        stream.clear()
        if stream is self._silent:
            self._silent = None

    def back_off(self, joint: str, lead_rad: float | None) -> None:
        """Let a hot or overloaded joint give way: keep its target this near to the measured pose.

        Args:
            joint: Joint name.
            lead_rad: Greatest distance in [rad]; None restores the configured one.
        """
        index = self._joints.index(joint)
        self._lead[index] = self.limits.lead_rad[index] if lead_rad is None else lead_rad

    def others_live(self, source: str, now_s: float) -> bool:
        """True when any other source sent an accepted command within its source timeout."""
        return any(
            stream.age_s(now_s) <= self.limits.source_timeout_s
            for stream in self._streams
            if stream.source.name != source
        )

    def restart(self) -> None:
        """Begin a new sequence at the next measured pose: nothing was written for a while."""
        self._restart = True
        self._plausibility.forget()

    def step(self, now_s: float, measured: Sequence[float] | None) -> GuardResult:
        """Compute the goal of this cycle.

        Args:
            now_s: Monotonic time of the cycle.
            measured: Joint angles in [rad], one per joint; None, or any value not finite,
                when the reading of this cycle failed. The last good reading then counts, as it
                does for one that cannot be.

        Returns:
            The goal and what was changed on the way to it.
        """
        report: list[Intervention] = []
        fresh = self._take_measurement(now_s, measured, report)
        restarted = self._restart
        if restarted and not (fresh and self._begin(report)):
            if not report:
                report.append(Intervention(Rule.MEASURED, "arm", NAN, None))
            self._count(report)
            rest = (0.0,) * len(self._joints)
            return GuardResult(None, rest, GuardState.WAITING, None, None, tuple(report), False)
        stream, command = self._select(now_s, report)
        if stream is None or command is None:
            state = GuardState.STOPPED if self._stopped else GuardState.HOLDING
            self._step_hold(report)
        else:
            state = self._step_drive(command, now_s, report)
        self._count(report)
        return GuardResult(
            tuple(self._path.pose),
            tuple(self._path.velocity),
            state,
            None if stream is None else stream.source.name,
            None if stream is None else stream.newest,
            tuple(report),
            restarted,
        )

    def _check(
        self, source: str, names: Sequence[str], positions: Sequence[float], age_s: float
    ) -> list[Intervention]:
        """The rules every command passes first, each refusing on its own."""
        if source not in self._by_name:
            return [Intervention(Rule.SOURCE, str(source), NAN, None)]
        refusals = rules.check_names(names, len(positions), self._joints)
        if not refusals:
            refusals = rules.check_finite(dict(zip(names, positions, strict=True)))
        if not refusals:
            limits = self.limits
            refusals = rules.check_age(
                source, age_s, limits.max_command_age_s, limits.max_future_s
            )
        return refusals

    def _take_measurement(
        self, now_s: float, measured: Sequence[float] | None, report: list[Intervention]
    ) -> bool:
        if measured is None or len(measured) != len(self._joints):
            return False
        values = [float(value) for value in measured]
        if not all(map(isfinite, values)):
            return False
        doubt = self._plausibility.doubt(values, now_s)
        if doubt is not None:
            angles = doubt.angles.items()
            report += [Intervention(Rule.MEASURED, self._joints[k], v, None) for k, v in angles]
            return False
        self._measured = values
        return True

    def _begin(self, report: list[Intervention]) -> bool:
        """Start a sequence at the measured pose; False when the arm is implausibly far outside."""
        assert self._measured is not None
        far = self._path.begin(self._measured)
        for joint, value in far:
            report.append(Intervention(Rule.MEASURED, self._joints[joint], value, None))
        if far:
            return False
        self._restart = False
        self._driver = self._silent = None
        self._hold = list(self._path.pose)
        return True

    def _select(
        self, now_s: float, report: list[Intervention]
    ) -> tuple[CommandStream | None, tuple[float, ...] | None]:
        """Who drives in this cycle, and where to; None to hold. Begins what a change begins."""
        stream, command = None, None
        if not self._stopped:
            stream = choose(self._streams, now_s, self.limits.source_timeout_s)
        if stream is not None and stream.age_s(now_s) <= self.limits.command_timeout_s:
            command = stream.sample(now_s)
        if command is None:
            stream = None
        if stream is self._driver:
            return stream, command
        if stream is None and self._driver is not None:
            rule = Rule.STOP if self._stopped else Rule.TIMEOUT
            released = self._driver.newest is None
            self._silent = None if self._stopped or released else self._driver
            report.append(Intervention(rule, self._driver.source.name, NAN, NAN))
            self._hold = None
            self._settle_cycles = self._settle_begin = 0
            self._settling = list(self._path.pose)
        elif command is not None:
            self._silent = None
            self._begin_blend(command, now_s)
        self._driver = stream
        return stream, command

    def _anchor(self) -> list[float]:
        """The measured pose; joints that grip keep their goal."""
        assert self._measured is not None
        anchor = list(self._measured)
        for index in self.limits.grip_joints:
            anchor[index] = self._path.pose[index]
        return anchor

    def _begin_blend(self, command: Sequence[float], now_s: float) -> None:
        self._blend_from = self._anchor()
        far = max(abs(a - b) for a, b in zip(command, self._blend_from, strict=True))
        limits = self.limits
        self._blend_duration_s = max(limits.blend_min_s, far / limits.blend_speed)
        self._blend_begin_s = now_s
        self._blending = True

    def _step_hold(self, report: list[Intervention]) -> None:
        """Brake; once at rest, hold the pose measured then."""
        if self._hold is None:
            if not self._path.at_rest or not self._settled():
                self._path.brake()
                return
            self._hold = self._anchor()
        target = list(self._hold)
        assert self._measured is not None
        rules.limit_lead(target, self._measured, self._lead, self._joints, report)
        rules.limit_positions(target, self._path.lower, self._path.upper, self._joints, report)
        self._path.follow(target, report, commanded=False)

    def _settled(self) -> bool:
        """True once the arm has caught up with a resting goal, or had long enough to."""
        assert self._measured is not None
        self._settle_cycles += 1
        moved = max(abs(a - b) for a, b in zip(self._measured, self._settling, strict=True))
        if moved > _SETTLED_RAD:
            self._settling, self._settle_begin = self._measured, self._settle_cycles
        still_s = (self._settle_cycles - self._settle_begin) * self.period_s
        return still_s >= _SETTLED_S or self._settle_cycles * self.period_s >= _SETTLE_MAX_S

    def _step_drive(
        self, command: Sequence[float], now_s: float, report: list[Intervention]
    ) -> GuardState:
        """Follow a source through the rules for targets."""
        target = list(command)
        rules.limit_positions(target, self.limits.lower, self.limits.upper, self._joints, report)
        if self._blending:
            fraction = rules.blend_fraction(now_s - self._blend_begin_s, self._blend_duration_s)
            self._blending = fraction < 1.0
            rules.blend(self._blend_from, target, fraction, self._joints, report)
        assert self._measured is not None
        rules.limit_lead(target, self._measured, self._lead, self._joints, report)
        # Blending begins, and the lead may lead, where the arm is: that may be outside.
        rules.limit_positions(target, self._path.lower, self._path.upper, self._joints, report)
        self._path.follow(target, report, commanded=True)
        return GuardState.BLENDING if self._blending else GuardState.DRIVING

    def _count(self, report: Sequence[Intervention]) -> None:
        if not report:
            return
        with self._lock:
            for item in report:
                self._counts[item.rule, item.joint] += 1
