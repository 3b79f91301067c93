# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How late a camera's stamps are, and an arm's motion behind its commands. No ROS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from koch_core.errors import KochError

Array = npt.NDArray[np.float64]

LONGEST_S = 0.3
_STEP_S = 0.002
_PARTS = 4
_LEAST_FIT = 0.5  # noise alone reaches 0.1 with six joints and a hundred images
_LEAST_IMAGES = 60
_MOVED_RAD = 0.05
_PERIOD_S = 0.01
_SMOOTH = 8  # periods on each side: the second derivative of ticks is noise without
_REST_RAD_S = 0.02  # friction turns round over this speed


class LatencyError(KochError):
    """A recording does not tell a latency."""


@dataclass(frozen=True)
class Latency:
    """One latency.

    Attributes:
        seconds: To be added to a camera's stamps, or the arm's dead time, [s].
        spread_s: Standard error, from four parts of the recording, [s].
        fit_fraction: Part of the variance that the motion explains at that latency.
    """

    seconds: float
    spread_s: float
    fit_fraction: float


@dataclass
class WiggleSeen:
    """What was seen of an arm and its cameras: stamps [s] and values."""

    states: list[tuple[float, Array]] = field(default_factory=list)
    goals: list[tuple[float, Array]] = field(default_factory=list)
    images: dict[str, list[tuple[float, bytes]]] = field(default_factory=dict)

    def forget(self) -> None:
        """Begin again."""
        self.states.clear()
        self.goals.clear()
        for seen in self.images.values():
            seen.clear()


def image_offset(
    times_s: Array, images: npt.NDArray[np.uint8], track: tuple[Array, Array]
) -> Latency:
    """What to add to a camera's stamps, from the change of its images while the arm moves.

    The mean change from image to image is fitted by how far each joint turned meanwhile; the
    offset is where this explains it best, between the steps tried by a parabola.

    Args:
        times_s: Stamps, (N,).
        images: Grey and small, (N, H, W).
        track: Times (M,) and joint angles (M, J) [rad] as measured.

    Raises:
        LatencyError: Too few images, or they do not show the motion.
    """
    state_s, angles = track
    inside = (times_s >= state_s[0] + LONGEST_S) & (times_s <= state_s[-1] - LONGEST_S)
    if inside.sum() < _LEAST_IMAGES:
        raise LatencyError(
            f"{inside.sum()} images while joint states came; expected at least {_LEAST_IMAGES}"
        )
    if np.ptp(angles, axis=0).max() < _MOVED_RAD:
        raise LatencyError(f"no joint moved by {_MOVED_RAD} rad; let the arm move")
    at_s, seen = times_s[inside], images[inside].astype(np.float32)
    change = np.abs(np.diff(seen, axis=0)).mean(axis=(1, 2)).astype(np.float64)

    def fit(offset_s: float, part: slice) -> float:
        turned = np.abs(np.diff(_at(at_s + offset_s, state_s, angles), axis=0))
        return _explained(change[part], turned[part])

    lags = np.arange(-LONGEST_S, LONGEST_S + _STEP_S / 2, _STEP_S)
    return _best(fit, lags, len(change), "the images change with something else than the arm")


def arm_delay(commands: tuple[Array, Array], track: tuple[Array, Array]) -> Latency:
    """Dead time from a command to the motion, of the joint that travelled most.

    The rest of what an arm lags behind is its servos' response: speed is fitted as pull of the
    distance to the goal, inertia and friction, with goals so much earlier.

    Args:
        commands: Times (N,) and goals (N, J) [rad], each of which holds until the next.
        track: Times (M,) and joint angles (M, J) [rad] as measured.

    Raises:
        LatencyError: No joint was moved, or it did not follow.
    """
    goal_s, goals = commands
    state_s, angles = track
    first = max(goal_s[0] + LONGEST_S, state_s[0])
    times = np.arange(first, min(goal_s[-1], state_s[-1]), _PERIOD_S)
    if len(times) < 100:
        raise LatencyError("less than 1.3 s of commands and joint states; expected some seconds")
    joint = int(np.abs(np.diff(goals, axis=0)).sum(axis=0).argmax())
    if np.ptp(goals[:, joint]) < _MOVED_RAD:
        raise LatencyError(f"no joint was told to move {_MOVED_RAD} rad; let the arm move more")
    angle = _smooth(np.interp(times, state_s, angles[:, joint]))
    speed = np.gradient(angle, _PERIOD_S)
    rest = [np.gradient(speed, _PERIOD_S), np.tanh(speed / _REST_RAD_S)]
    # A goal holds until the next, so that its mean over a period comes from its integral.
    integral = np.concatenate([[0.0], np.cumsum(np.diff(goal_s) * goals[:-1, joint])])
    edges = np.append(times, times[-1] + _PERIOD_S) - _PERIOD_S / 2

    def fit(delay_s: float, part: slice) -> float:
        goal = _smooth(np.diff(np.interp(edges - delay_s, goal_s, integral)) / _PERIOD_S)
        causes = np.column_stack([goal - angle, *rest])
        return _explained(speed[part], causes[part])

    lags = np.arange(-2 * _STEP_S, LONGEST_S, _STEP_S)  # the parabola needs both sides of zero
    found = _best(fit, lags, len(speed), "the joint moves otherwise than its commands")
    return Latency(max(0.0, found.seconds), found.spread_s, found.fit_fraction)


def _best(
    fit: Callable[[float, slice], float], lags: Array, samples: int, otherwise: str
) -> Latency:
    """The lag that fits best, and how far parts of the recording differ."""
    whole, quality = _peak(lags, [fit(lag, slice(None)) for lag in lags])
    if not quality >= _LEAST_FIT or not lags[0] < whole < lags[-1]:
        raise LatencyError(
            f"{otherwise}: the motion explains {max(0.0, quality):.0%}, at {1e3 * whole:.0f} ms; "
            f"expected {_LEAST_FIT:.0%} or more, between {1e3 * lags[0]:.0f} and "
            f"{1e3 * lags[-1]:.0f} ms"
        )
    ends = np.linspace(0, samples, _PARTS + 1).astype(int)
    parts = [slice(*both) for both in pairwise(ends)]
    found = [_peak(lags, [fit(lag, part) for lag in lags]) for part in parts]
    told = [lag for lag, good in found if good >= _LEAST_FIT]
    spread_s = float(np.std(told, ddof=1) / np.sqrt(len(told))) if len(told) > 1 else float("nan")
    return Latency(whole, spread_s, quality)


def _peak(lags: Array, fits: Sequence[float]) -> tuple[float, float]:
    """Where a curve is highest, by a parabola through the highest sample and its neighbours."""
    k = int(np.argmax(fits))
    if k in (0, len(fits) - 1):
        return float(lags[k]), float(fits[k])
    before, top, after = fits[k - 1 : k + 2]
    bend = before - 2.0 * top + after
    shift = 0.0 if bend == 0.0 else 0.5 * (before - after) / bend
    return float(lags[k] + shift * (lags[1] - lags[0])), float(top)


def _explained(effect: Array, causes: Array) -> float:
    """Part of an effect's variance that a linear fit explains."""
    known = np.column_stack([np.ones(len(causes)), causes])
    weights, *_ = np.linalg.lstsq(known, effect, rcond=None)
    around = effect - effect.mean()
    total = float(around @ around)
    left = effect - known @ weights
    return 1.0 - float(left @ left) / total if total > 0.0 else 0.0


def _at(times_s: Array, known_s: Array, values: Array) -> Array:
    return np.column_stack([np.interp(times_s, known_s, column) for column in values.T])


def _smooth(values: Array) -> Array:
    window = np.hanning(2 * _SMOOTH + 3)[1:-1]
    smooth: Array = np.convolve(values, window / window.sum(), mode="valid")
    return smooth
