# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The one image that `koch inspect` draws: commands over states, gaps, other values, frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.stream import NS_PER_S

Floats = npt.NDArray[np.float64]

_WIDTH_IN = 12.0
_STATE, _COMMAND, _ERROR = "#1f77b4", "#ff7f0e", "#d62728"
_ANGLES, _PLACES = ("yaw", "pitch", "roll", "angle", "rad"), ("x", "y", "z")
_FOLD_RAD = np.pi / 2.0  # an angle that leaps by more between samples was folded
_COLUMNS = 3


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over time.

    Attributes:
        title: Heading.
        times_s: Times in [s], ascending, shape (n,).
        values: Shape (n, len(names)).
        names: Legend.
        unit: Of all of them; "" where the names tell it: `..._x` in m, `..._yaw` in rad.
    """

    title: str
    times_s: Floats
    values: Floats
    names: Sequence[str]
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Following:
    """What an arm was told, over what it did.

    Attributes:
        state: Joint positions.
        command: The same names, at its own times.
    """

    state: Curve
    command: Curve

    def held(self) -> Floats:
        """The command in force at each time of the state; NaN before the first, shape as state."""
        places = np.searchsorted(self.command.times_s, self.state.times_s, side="right") - 1
        found = np.asarray(self.command.values, dtype=np.float64)[np.maximum(places, 0)]
        found[places < 0] = np.nan
        return found


@dataclass(frozen=True, eq=False)
class Shot:
    """One image of a camera.

    Attributes:
        time_s: Since the beginning [s].
        image: RGB, uint8 (H, W, 3).
    """

    time_s: float
    image: npt.NDArray[np.uint8]


def draw(
    out: Path,
    title: str,
    stamps_ns: Mapping[str, npt.NDArray[np.int64]],
    curves: Sequence[Curve | Following],
    images: Mapping[str, Sequence[Shot]],
) -> None:
    """Write one image.

    Args:
        out: File.
        title: Heading of the whole.
        stamps_ns: Stream to stamps, for the plot of distances; may be empty.
        curves: What to plot over time.
        images: Camera to a few images.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = _parts(stamps_ns, curves, images)
    heights = [height for height, _ in parts] or [1.0]
    figure = Figure(figsize=(_WIDTH_IN, sum(heights) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    folders = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    for (_, draw_part), part in zip(parts, folders, strict=False):
        draw_part(part)
    figure.savefig(out, dpi=100)


def draw_latency(out: Path, title: str, stages_s: Mapping[str, Mapping[str, Floats]]) -> None:
    """Write an image of what each stage takes: the middle half, the median, and 5 to 95 %.

    Args:
        out: File.
        title: Heading of the whole.
        stages_s: Arm to stage to durations [s].
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH_IN, 3.5 * len(stages_s)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=13, x=0.01, ha="left")
    for place, (arm, stages) in enumerate(stages_s.items()):
        axes = figure.add_subplot(len(stages_s), 1, place + 1)
        values = [1e3 * durations for durations in stages.values()]
        axes.boxplot(values[::-1], vert=False, whis=(5, 95), showfliers=False)
        axes.set_yticks(range(1, len(stages) + 1), list(stages)[::-1])
        axes.set_xlabel(f"{arm}: ms, the box is the middle half, the line 5 to 95 %")
        axes.grid(axis="x", alpha=0.3)
    figure.savefig(out, dpi=100)


def _parts(
    stamps_ns: Mapping[str, npt.NDArray[np.int64]],
    curves: Sequence[Curve | Following],
    images: Mapping[str, Sequence[Shot]],
) -> list[tuple[float, Callable[[Any], None]]]:
    """From top to bottom: the height of each part [inch], and who draws it."""
    parts: list[tuple[float, Callable[[Any], None]]] = []
    for name, shots in images.items():
        tallest = max((s.image.shape[0] / s.image.shape[1] for s in shots), default=0.75)
        height = _WIDTH_IN / max(4, len(shots)) * tallest + 0.6
        parts.append((height, partial(_draw_shots, name=name, shots=shots)))
    for curve in curves:
        if isinstance(curve, Following):
            rows = -(-len(curve.state.names) // _COLUMNS)
            parts.append((1.9 * rows + 0.3, partial(_draw_following, following=curve)))
            parts.append((2.0, partial(_draw_errors, following=curve)))
        else:
            groups = by_unit(curve)
            parts.append((1.9 * len(groups), partial(_draw_curves, groups=groups)))
    if stamps_ns:
        parts.append((2.3, partial(_draw_gaps, stamps_ns=stamps_ns)))
    return parts


def _draw_shots(part: Any, name: str, shots: Sequence[Shot]) -> None:
    part.suptitle(name, fontsize=10, x=0.01, ha="left")
    for axes, shot in zip(part.subplots(1, max(4, len(shots))), shots, strict=False):
        axes.imshow(shot.image)
        axes.set_xlabel(f"{shot.time_s:.1f} s", fontsize=9)
    for axes in part.axes:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_frame_on(False)


def _draw_following(part: Any, following: Following) -> None:
    """A small plot for each joint: the command over the state, and how far they are apart."""
    state, command = following.state, following.command
    part.suptitle(f"{command.title} over {state.title}", fontsize=10, x=0.01, ha="left")
    error = following.held() - state.values
    rows = -(-len(state.names) // _COLUMNS)
    plots = part.subplots(rows, _COLUMNS, sharex=True, squeeze=False)
    for index, (axes, name) in enumerate(zip(plots.flat, state.names, strict=False)):
        known = error[np.isfinite(error[:, index]), index]
        axes.plot(state.times_s, state.values[:, index], color=_STATE, linewidth=1.6)
        axes.plot(command.times_s, command.values[:, index], color=_COMMAND, linewidth=1.0)
        said = ""
        if len(known):
            root = float(np.sqrt(np.mean(known**2)))
            said = f"   error rms {root:.3g}, most {np.abs(known).max():.3g}"
        axes.set_title(f"{name}{said}", fontsize=8, loc="left")
        _tidy(axes, state.unit if index % _COLUMNS == 0 else "")
    for axes in plots.flat[len(state.names) :]:
        axes.set_axis_off()
    for axes in plots[-1]:
        axes.set_xlabel("time [s]", fontsize=8)
    plots[0, 0].legend(["state", "command"], fontsize=7, frameon=False)


def _draw_errors(part: Any, following: Following) -> None:
    state = following.state
    axes = part.subplots()
    axes.plot(state.times_s, following.held() - state.values, linewidth=0.9)
    axes.set_title("error: command minus state", fontsize=10, loc="left")
    axes.axhline(0.0, color="#888888", linewidth=0.6)
    axes.set_xlabel("time [s]", fontsize=8)
    _tidy(axes, state.unit)
    _legend_beside(axes, state.names)


def _draw_curves(part: Any, groups: Sequence[Curve]) -> None:
    """One plot for each unit: metres beside radians hide each other."""
    plots = part.subplots(len(groups), 1, sharex=True, squeeze=False)[:, 0]
    for axes, curve in zip(plots, groups, strict=True):
        axes.plot(curve.times_s, curve.values, linewidth=1.0)
        _tidy(axes, curve.unit)
        _legend_beside(axes, curve.names)
    plots[0].set_title(groups[0].title, fontsize=10, loc="left")
    plots[-1].set_xlabel("time [s]", fontsize=8)


def by_unit(curve: Curve) -> list[Curve]:
    """Split a curve whose names tell the units; angles are not joined where they were folded."""
    if curve.unit:
        return [curve]
    last = [name.split("_")[-1] for name in curve.names]
    units = np.array(["rad" if n in _ANGLES else "m" if n in _PLACES else "value" for n in last])
    found = []
    for unit in ("m", "rad", "value"):
        chosen = units == unit
        if np.any(chosen):
            values = np.array(curve.values[:, chosen], dtype=np.float64)
            if unit == "rad":
                values[1:][np.abs(np.diff(values, axis=0)) > _FOLD_RAD] = np.nan
            names = [name for name, use in zip(curve.names, chosen, strict=True) if use]
            found.append(Curve(curve.title, curve.times_s, values, names, unit))
    return found


def _draw_gaps(part: Any, stamps_ns: Mapping[str, npt.NDArray[np.int64]]) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes = part.subplots()
    begin = min((int(s.min()) for s in stamps_ns.values() if len(s)), default=0)
    names = []
    for name, stamps in stamps_ns.items():
        ordered = np.sort(stamps)
        if len(ordered) > 1:
            times_s, gaps_ms = (ordered[1:] - begin) / NS_PER_S, np.diff(ordered) / 1e6
            axes.plot(times_s, gaps_ms, ".", markersize=2)
            names.append(name)
    axes.set_yscale("log")
    # 1, 2, 5, 10, ...: a label on each tenth of a decade lies on its neighbours.
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda gap_ms, _: f"{gap_ms:g}"))
    axes.set_title("time between neighbouring messages", fontsize=10, loc="left")
    axes.set_xlabel("time [s]", fontsize=8)
    _tidy(axes, "ms")
    _legend_beside(axes, names)


def _tidy(axes: Any, unit: str) -> None:
    axes.set_ylabel(unit and f"[{unit}]", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)
    axes.margins(x=0.01)


def _legend_beside(axes: Any, names: Sequence[str]) -> None:
    """A legend that covers no curve."""
    axes.legend(
        names,
        fontsize=7,
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        markerscale=5,
    )
