# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Identifies an arm: finds the dynamics with which the simulation moves as a recording did.

Least squares over rollouts of the simulated arm, which gets the recorded commands. A joint's
parameters are fitted to that joint's angles alone (a block-diagonal Jacobian): one rollout for
each kind of parameter perturbs all joints at once, and what a joint does to another is in the
residuals of the next iteration.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from itertools import product
from types import MappingProxyType
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from koch_core.options import declared
from koch_driver.emulator import build_chain
from koch_sim.arm_body import CONTROL_PERIOD_S, STEPS_PER_CONTROL, ArmBody, InProcessLink
from koch_sim.arm_dynamics import ArmDynamics, JointDynamics, nominal_dynamics
from koch_sim.errors import SimulationError
from koch_sim.lockstep import switch_on, write_register
from koch_sim.scene import build_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from koch_driver.emulator import EmulatedChain, ServoDrive
    from koch_rig.rig import Rig
    from koch_sim.recorded_arm import ArmRecording

#: A rollout begins at the measured pose; until gears, delay and speed have settled it counts
#: nothing, [s].
WARM_UP_S = 0.5
#: Rollouts begin again so often, so that none drifts and some can be held out, [s].
PIECE_S = 3.0
#: One piece of so many is held out.
HOLD_OUT_EVERY = 4
_NEAR = 4  # so many states before and behind the start tell pose and speed there
_SLACK_S = 1e-6  # stamps of a simulation are on the grid, but for rounding
#: A joint that moved less tells nothing, [rad].
LEAST_MOTION_RAD = np.radians(3.0)
_ITERATIONS = 20
_REFITS = 3
_REFIT_ITERATIONS = 4
#: A joint is there when a step of its parameters is so small, or when none helps with so much
#: damping; in units of the scale.
_STILL, _STUCK = 0.01, 1e2

#: Plays that are tried, [rad], and the factor of the mean square error up to which they are alike.
_PLAYS_RAD = tuple(np.radians([0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5]).tolist())
_ALIKE = 1.1

PARAMETERS = tuple(field.name for field in fields(JointDynamics))
#: What a joint's parameters are measured in: steps of the finite differences are a fifth of these,
#: and what is not known to half of these is not known. Friction and armature: of their nominal.
_SCALE = {"gain_scale": 0.2, "delay_s": 0.01, "backlash_rad": 0.007, "bias_rad": 0.01}
_STEP_FRACTION = 0.2
_KNOWN_FRACTION = 0.5
#: The iteration begins at the best of these: gain, delay [s], backlash [rad]. Beside a play that
#: is there, or a delay of half a swing, there are valleys with no way out.
_STARTS = tuple(product((0.6, 1.0, 1.4), (0.0, 0.02, 0.04, 0.07), (0.0, 0.012)))


@dataclass(frozen=True)
class RecordedPiece:
    """A part of a recording that a rollout imitates.

    Attributes:
        start_s: Where the rollout begins, on the recording's clock.
        steps: Control steps that it takes.
        state_s: Times of the measured angles that count, (N,).
        state_rad: These, (N, J).
        begin_rad: Measured pose at the start, (J,).
        begin_speed: Speeds there, (J,), [rad/s].
        drives: What the servos wanted at each control step, the longest delay before the start
            included.
        is_held_out: Whether it judges instead of teaching.
    """

    start_s: float
    steps: int
    state_s: NDArray[np.float64]
    state_rad: NDArray[np.float64]
    begin_rad: NDArray[np.float64]
    begin_speed: NDArray[np.float64]
    drives: Sequence[Sequence[ServoDrive]]
    is_held_out: bool


@dataclass(frozen=True)
class JointFit:
    """What was found out about a joint.

    Attributes:
        dynamics: Parameters; nominal where the recording does not tell them.
        deviation: Standard deviation of each parameter, by name; NaN where it is not told.
        untold: Names of those that the recording does not tell.
        at_bound: Names of those that ended at the edge of their range.
        before_rad: Root mean square error of the nominal arm on held-out pieces, [rad].
        after_rad: The same of the identified arm.
    """

    dynamics: JointDynamics
    deviation: dict[str, float]
    untold: tuple[str, ...]
    at_bound: tuple[str, ...]
    before_rad: float
    after_rad: float


class ArmRollouts:
    """The follower alone in MuJoCo, imitating pieces of recordings."""

    def __init__(self, rig: Rig, recordings: Sequence[ArmRecording]) -> None:
        """Build the arm and cut the recordings into pieces.

        Raises:
            SimulationError: They are too short.
        """
        arm = rig.follower
        alone = replace(rig, arms=MappingProxyType({arm.name: arm}), cameras=MappingProxyType({}))
        self.arm = arm
        self._model = build_spec(alone, ()).compile()
        self._data = mujoco.MjData(self._model)
        self._body = ArmBody(self._model, self._data, arm)
        self._link = _Replayed(self._body)
        self._body.link = self._link
        chain = build_chain(alone, arm.name, physics=self._body.in_process, clock=lambda: 0.0)
        switch_on(chain, arm)
        longest_s = declared(JointDynamics)["delay_s"].option.high or 0.0
        self._history = 2 + round(longest_s / CONTROL_PERIOD_S)
        self.pieces: list[RecordedPiece] = []
        for recording in recordings:
            self._cut(recording, [self._wanted(chain, goal) for goal in recording.command_rad])
        if len(self.pieces) < HOLD_OUT_EVERY:
            raise SimulationError(
                f"{', '.join(r.name for r in recordings)}: {len(self.pieces)} pieces of "
                f"{PIECE_S:g} s without a gap, expected {HOLD_OUT_EVERY} or more (one is held "
                "out). Record at least 15 s; 'koch identify --excite DIR' makes a motion for it."
            )

    def _wanted(self, chain: EmulatedChain, goal_rad: NDArray[np.float64]) -> list[ServoDrive]:
        """What the servos want when they are given a goal."""
        ticks = self._body.units.rad_to_ticks(goal_rad)
        for servo, tick in zip(chain.servos, ticks, strict=True):
            write_register(servo, "Goal_Position", int(tick))
        return [servo.drive(0.0) for servo in chain.servos]

    def _cut(self, recording: ArmRecording, drives: list[list[ServoDrive]]) -> None:
        for begin_s, end_s in recording.spans_s:
            start_s = begin_s
            while start_s + WARM_UP_S + 1.0 <= end_s:
                stop_s = min(end_s, start_s + WARM_UP_S + PIECE_S)
                held_out = len(self.pieces) % HOLD_OUT_EVERY == HOLD_OUT_EVERY - 1
                self.pieces.append(self._piece(recording, drives, start_s, stop_s, held_out))
                start_s = stop_s - WARM_UP_S if stop_s < end_s else end_s

    def _piece(
        self,
        recording: ArmRecording,
        drives: list[list[ServoDrive]],
        start_s: float,
        stop_s: float,
        held_out: bool,
    ) -> RecordedPiece:
        steps = int((stop_s - start_s) / CONTROL_PERIOD_S)
        grid = start_s + CONTROL_PERIOD_S * np.arange(-self._history, steps)
        newest = np.searchsorted(recording.command_s, grid + _SLACK_S, side="right") - 1
        state_s, state_rad = recording.state_s, recording.state_rad
        counts = (state_s >= start_s + WARM_UP_S) & (state_s <= start_s + steps * CONTROL_PERIOD_S)
        place = int(np.searchsorted(state_s, start_s))
        near = slice(max(0, place - _NEAR), place + _NEAR)
        slope = np.polyfit(state_s[near] - start_s, state_rad[near], 1)
        return RecordedPiece(
            start_s=start_s,
            steps=steps,
            state_s=state_s[counts],
            state_rad=state_rad[counts],
            begin_rad=slope[1],
            begin_speed=slope[0],
            drives=[drives[max(0, place)] for place in newest],
            is_held_out=held_out,
        )

    def residuals(self, dynamics: ArmDynamics, *, held_out: bool) -> NDArray[np.float64]:
        """Return simulated minus measured angles at all stamps of the pieces, (N, J), [rad]."""
        self._body.follow(dynamics)
        chosen = [piece for piece in self.pieces if piece.is_held_out is held_out]
        return np.concatenate([self._residual(piece) for piece in chosen])

    def _residual(self, piece: RecordedPiece) -> NDArray[np.float64]:
        body, data = self._body, self._data
        mujoco.mj_resetData(self._model, data)
        body.switch_off()
        body.place(data, piece.begin_rad, piece.begin_speed)
        for drives in piece.drives[: self._history]:
            self._link.now = drives
            body.listen()
        path = np.empty((piece.steps + 1, len(piece.begin_rad)))
        path[0] = piece.begin_rad
        for step, drives in enumerate(piece.drives[self._history :]):
            self._link.now = drives
            body.actuate(data, 1.0)
            mujoco.mj_step(self._model, data, STEPS_PER_CONTROL)
            path[step + 1] = body.joints(data)
        grid = piece.start_s + CONTROL_PERIOD_S * np.arange(piece.steps + 1)
        simulated = [np.interp(piece.state_s, grid, column) for column in path.T]
        error: NDArray[np.float64] = np.array(simulated).T - piece.state_rad
        return error


class _Replayed(InProcessLink):
    """Servos that want what they wanted in a recording."""

    def __init__(self, body: ArmBody) -> None:
        super().__init__([0.0] * len(body.arm.model.joints), body.in_process.state)
        self.now: Sequence[ServoDrive] = ()

    def drives(self) -> tuple[ServoDrive, ...]:
        """What they want at the present step."""
        return tuple(self.now)


def identify(
    rollouts: ArmRollouts, progress: Callable[[str], None] = lambda text: None
) -> dict[str, JointFit]:
    """Fit all joints.

    Args:
        rollouts: The arm and what it is to imitate.
        progress: Is told what is going on.

    Raises:
        SimulationError: No joint moved.
    """
    joints = rollouts.arm.model.joints
    measured = np.concatenate([piece.state_rad for piece in rollouts.pieces])
    moved = np.ptp(measured, axis=0) >= LEAST_MOTION_RAD
    if not moved.any():
        most = float(np.degrees(np.ptp(measured, axis=0).max()))
        raise SimulationError(
            f"no joint moved by {np.degrees(LEAST_MOTION_RAD):g} degrees (most: {most:.1f}), so "
            "nothing can be told. 'koch identify --excite DIR' makes a motion to play and record."
        )
    fit = _Fit(rollouts, moved)
    fit.begin()
    fit.improve(_ITERATIONS, progress)
    fit.profile_backlash()
    fit.improve(_REFIT_ITERATIONS, progress)
    for _ in range(_REFITS):
        if not fit.leave_untold():
            break
        fit.improve(_REFIT_ITERATIONS, progress)
    nominal = rollouts.residuals(nominal_dynamics(rollouts.arm), held_out=True)
    found = rollouts.residuals(fit.dynamics(), held_out=True)
    before, after = (np.sqrt(np.mean(error**2, axis=0)) for error in (nominal, found))
    dynamics = fit.dynamics()
    return {
        name: JointFit(
            dynamics[name], *fit.told_of(place), float(before[place]), float(after[place])
        )
        for place, name in enumerate(joints)
    }


class _Fit:
    """Levenberg and Marquardt's iteration for all joints side by side, inside bounds.

    Attributes:
        values: Parameters in units of their scale, (J, P).
    """

    def __init__(self, rollouts: ArmRollouts, moved: NDArray[np.bool_]) -> None:
        self._rollouts = rollouts
        nominal = nominal_dynamics(rollouts.arm)
        self._joints = tuple(nominal)
        self._scale = np.array(
            [[_SCALE.get(p, getattr(joint, p)) for p in PARAMETERS] for joint in nominal.values()]
        )
        self._nominal = (
            np.array([[getattr(j, p) for p in PARAMETERS] for j in nominal.values()]) / self._scale
        )
        options = declared(JointDynamics)
        self._low = np.array([options[p].option.low for p in PARAMETERS]) / self._scale
        self._high = np.array([options[p].option.high for p in PARAMETERS]) / self._scale
        self._free = np.repeat(moved[:, None], len(PARAMETERS), axis=1)
        self._damping = np.full(len(self._joints), 1e-2)
        self.values = self._nominal.copy()
        self._final: NDArray[np.float64] | None = None

    def dynamics(self, values: NDArray[np.float64] | None = None) -> ArmDynamics:
        """The parameters as the arm takes them."""
        rows = (self.values if values is None else values) * self._scale
        return {
            name: JointDynamics(**dict(zip(PARAMETERS, map(float, row), strict=True)))
            for name, row in zip(self._joints, rows, strict=True)
        }

    def _residuals(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return self._rollouts.residuals(self.dynamics(values), held_out=False)

    def _jacobian(self, base: NDArray[np.float64]) -> NDArray[np.float64]:
        """Derivatives of each joint's residuals by its own parameters, (N, J, P)."""
        columns = []
        for place in range(len(PARAMETERS)):
            step = np.full(len(self._joints), _STEP_FRACTION)
            step[self.values[:, place] + step > self._high[:, place]] *= -1.0
            tried = self.values.copy()
            tried[:, place] += step
            columns.append((self._residuals(tried) - base) / step)
        return np.stack(columns, axis=2)

    def begin(self) -> None:
        """Go where the best of the starts is, for each joint that moved."""
        best = np.full(len(self._joints), np.inf)
        chosen = self.values.copy()
        places = [PARAMETERS.index(p) for p in ("gain_scale", "delay_s", "backlash_rad")]
        for start in _STARTS:
            tried = self._nominal.copy()
            tried[:, places] = np.array(start) / self._scale[:, places]
            cost = self._residuals(tried).var(axis=0)  # the bias is found at once
            better = (cost < best) & self._free.any(axis=1)
            best[better] = cost[better]
            chosen[better] = tried[better]
        self.values = chosen

    def profile_backlash(self) -> None:
        """Try plays over their whole range: where all are as good, the recording tells none.

        A load that always pulls one way keeps the gears together, whatever their play. The
        derivative does not say so: a rollout begins in the middle of the play.
        """
        place = PARAMETERS.index("backlash_rad")
        costs = []
        for play_rad in _PLAYS_RAD:
            tried = self.values.copy()
            tried[:, place] = play_rad / self._scale[:, place]
            costs.append((self._residuals(tried) ** 2).mean(axis=0))
        now = (self._residuals(self.values) ** 2).mean(axis=0)
        table = np.array(costs)
        best = table.argmin(axis=0)
        for joint, row in enumerate(table.T):
            if row[best[joint]] < now[joint]:
                self.values[joint, place] = _PLAYS_RAD[best[joint]] / self._scale[joint, place]
            alike = np.array(_PLAYS_RAD)[row < _ALIKE * min(row.min(), now[joint])]
            if len(alike) and np.ptp(alike) > self._scale[joint, place]:
                self._free[joint, place] = False
                self.values[joint, place] = self._nominal[joint, place]

    def improve(self, iterations: int, progress: Callable[[str], None]) -> None:
        """Iterate; each joint takes its step only where that made it better."""
        base = self._residuals(self.values)
        for number in range(iterations):
            jacobian = self._jacobian(base)
            tried = self.values.copy()
            for joint in range(len(self._joints)):
                tried[joint] += self._step(joint, jacobian[:, joint], base[:, joint])
            tried = np.clip(tried, self._low, self._high)
            costs, tried_costs = (base**2).sum(0), (self._residuals(tried) ** 2).sum(0)
            better = tried_costs < costs
            moved = np.abs(tried - self.values).max(axis=1)
            self.values[better] = tried[better]
            self._damping = np.where(better, self._damping / 5.0, self._damping * 10.0)
            base = self._residuals(self.values)
            error_deg = float(np.degrees(np.sqrt(np.mean(base**2))))
            progress(f"iteration {number + 1} of {iterations}: {error_deg:.3f} degrees rms")
            if np.all((moved < _STILL) & better | (self._damping > _STUCK) | (moved == 0.0)):
                break

    def _step(
        self, joint: int, jacobian: NDArray[np.float64], residual: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """The damped step of a joint's free parameters that are not pressed against a bound."""
        gradient = jacobian.T @ residual
        value, low, high = self.values[joint], self._low[joint], self._high[joint]
        pressed = ((value <= low) & (gradient > 0.0)) | ((value >= high) & (gradient < 0.0))
        free = self._free[joint] & ~pressed
        step = np.zeros(len(PARAMETERS))
        if free.any():
            normal = jacobian[:, free].T @ jacobian[:, free]
            normal += self._damping[joint] * np.diag(np.diag(normal) + 1e-12)
            step[free] = np.clip(-np.linalg.solve(normal, gradient[free]), -1.5, 1.5)
        return step

    def leave_untold(self) -> bool:
        """Put each joint's least known parameter back to nominal, where it is not known.

        Returns:
            Whether there was any.
        """
        deviations = self._deviations()
        found = False
        for joint, row in enumerate(deviations):
            worst = int(np.argmax(np.where(self._free[joint], row, -1.0)))
            if self._free[joint, worst] and row[worst] > _KNOWN_FRACTION:
                self._free[joint, worst] = False
                self.values[joint, worst] = self._nominal[joint, worst]
                self._damping[joint] = 1e-2
                found = True
        return found

    def _deviations(self) -> NDArray[np.float64]:
        """Standard deviations in units of the scale, (J, P), from Jacobian and residuals.

        Residuals follow one another: their number is what it would be if they were independent.
        """
        base = self._residuals(self.values)
        jacobian = self._jacobian(base)
        result = np.full(self.values.shape, np.nan)
        for joint, free in enumerate(self._free):
            if not free.any():
                continue
            error, columns = base[:, joint], jacobian[:, joint][:, free]
            power = float(error @ error)
            follow = float(error[1:] @ error[:-1]) / power if power else 0.0
            follow = min(0.99, max(0.0, follow))
            variance = power / len(error) * (1.0 + follow) / (1.0 - follow)
            normal = columns.T @ columns + 1e-15 * np.eye(columns.shape[1])
            result[joint, free] = np.sqrt(variance * np.diag(np.linalg.inv(normal)))
        return result

    def told_of(self, joint: int) -> tuple[dict[str, float], tuple[str, ...], tuple[str, ...]]:
        """Deviations, names that are not told, and names at their bounds, of a joint."""
        if self._final is None:
            self._final = self._deviations() * self._scale
        deviation = dict(zip(PARAMETERS, map(float, self._final[joint]), strict=True))
        free, value = self._free[joint], self.values[joint]
        untold = tuple(p for p, told in zip(PARAMETERS, free, strict=True) if not told)
        edge = (value >= self._high[joint]) | (value <= self._low[joint])
        # No delay and no play are ordinary values.
        ordinary = np.array([p in ("delay_s", "backlash_rad") for p in PARAMETERS])
        edge &= ~(ordinary & (value <= self._low[joint]))
        return deviation, untold, tuple(np.array(PARAMETERS)[free & edge].tolist())
