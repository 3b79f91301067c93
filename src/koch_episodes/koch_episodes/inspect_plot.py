# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The one picture that `koch inspect` draws: gaps, joint curves, thumbnails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_episodes.stream import NS_PER_S

_ROW_CM = 4.5


@dataclass(frozen=True, eq=False)
class Curve:
    """Values over time.

    Attributes:
        title: Heading.
        times_s: Times in [s], shape (n,).
        values: Shape (n, len(names)).
        names: Legend.
    """

    title: str
    times_s: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    names: Sequence[str]


def draw(
    out: Path,
    title: str,
    stamps_ns: Mapping[str, npt.NDArray[np.int64]],
    curves: Sequence[Curve],
    pictures: Mapping[str, Sequence[npt.NDArray[np.uint8]]],
) -> None:
    """Write one PNG.

    Args:
        out: File.
        title: Heading of the whole.
        stamps_ns: Stream to stamps, for the plot of distances; may be empty.
        curves: Joint curves.
        pictures: Camera to a few RGB pictures.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = (1 if stamps_ns else 0) + len(curves) + len(pictures)
    figure = Figure(figsize=(12, _ROW_CM / 2.54 * 1.5 * max(1, rows)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    grid = figure.add_gridspec(max(1, rows), 1)
    row = 0
    if stamps_ns:
        _draw_gaps(figure.add_subplot(grid[row]), stamps_ns)
        row += 1
    for curve in curves:
        axes = figure.add_subplot(grid[row])
        axes.plot(curve.times_s, curve.values, linewidth=0.9)
        axes.set_title(curve.title, fontsize=9)
        axes.legend(curve.names, fontsize=6, loc="upper right", ncols=3)
        axes.set_xlabel("s", fontsize=8)
        row += 1
    for name, images in pictures.items():
        inner = grid[row].subgridspec(1, max(1, len(images)))
        for column, image in enumerate(images):
            axes = figure.add_subplot(inner[column])
            axes.imshow(image)
            axes.set_axis_off()
            if column == 0:
                axes.set_title(name, fontsize=9, loc="left")
        row += 1
    figure.savefig(out, dpi=80)


def _draw_gaps(axes: Any, stamps_ns: Mapping[str, npt.NDArray[np.int64]]) -> None:
    begin = min((int(s.min()) for s in stamps_ns.values() if len(s)), default=0)
    for name, stamps in stamps_ns.items():
        ordered = np.sort(stamps)
        if len(ordered) > 1:
            axes.plot(
                (ordered[1:] - begin) / NS_PER_S,
                np.diff(ordered) / 1e6,
                ".",
                markersize=2,
                label=name,
            )
    axes.set_yscale("log")
    axes.set_title("distance of neighbouring messages [ms]", fontsize=9)
    axes.legend(fontsize=6, loc="upper right")
