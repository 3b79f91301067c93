# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The doctor's findings as one page with images, which needs no other file."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from koch_core.files import write_atomically
from koch_core.image import encode_jpeg
from koch_episodes.dataset.edit.doctor import Complaint, EpisodeLook, Values

Shots = Callable[[EpisodeLook], Sequence[npt.NDArray[np.uint8]]]
"""Some images of an episode, RGB."""

_SHOWN = 3  # episodes of a complaint
_WIDTH, _HEIGHT = 560, 120
_POINTS = 300
_TILE_PX = 120
_COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
_STYLE = (
    "body{font:14px sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "code{background:#eee;padding:.2em .4em;display:block;overflow-x:auto}"
    "svg{background:#fafafa;border:1px solid #ccc}img{margin:2px}"
)


def write_report(
    path: Path,
    sections: Sequence[tuple[str, Sequence[EpisodeLook], Sequence[Complaint], Shots]],
) -> None:
    """Write the page.

    Args:
        path: HTML file.
        sections: Title, episodes, complaints with the worst first, and what draws an episode.

    Raises:
        OSError: It cannot be written.
    """
    parts = [
        f"<!doctype html><meta charset=utf-8><title>koch doctor</title><style>{_STYLE}</style>"
    ]
    for title, looks, complaints, shots in sections:
        found = f"{len(complaints) or 'no'} complaint(s)"
        parts.append(f"<h1>{html.escape(title)}: {found}</h1>")
        by_number = {look.episode.index: look for look in looks}
        for complaint in complaints:
            parts += _complaint(complaint, by_number, shots)
    write_atomically(path, "\n".join(parts) + "\n")


def _complaint(complaint: Complaint, looks: dict[int, EpisodeLook], shots: Shots) -> list[str]:
    parts = [
        f"<h2>{html.escape(complaint.kind)}</h2>",
        f"<p>{html.escape(complaint.text)}</p>",
        f"<code>{html.escape(complaint.remedy)}</code>",
    ]
    names = dict(zip(complaint.episodes, complaint.bags, strict=False))
    for number in complaint.episodes[:_SHOWN]:
        if number in looks:
            name = names.get(number, f"episode {number}")
            parts.append(f"<h3>{html.escape(name)}</h3>{_curves(looks[number])}<br>")
            parts += [_image(image) for image in shots(looks[number])]
    if len(complaint.episodes) > _SHOWN:
        parts.append(f"<p>and {len(complaint.episodes) - _SHOWN} more episodes</p>")
    return parts


def _image(image: npt.NDArray[np.uint8]) -> str:
    step = max(1, image.shape[0] // _TILE_PX)
    small = np.ascontiguousarray(image[::step, ::step])
    data = base64.b64encode(encode_jpeg(small, 80)).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{data}" alt="camera image">'


def _curves(look: EpisodeLook) -> str:
    """Actions as lines, states dashed, each column in its colour, over the episode's time."""
    lines = []
    for values, dash in ((look.actions, ""), (look.states, ' stroke-dasharray="4 3"')):
        low, high = _range(look)
        for column in range(values.shape[1]):
            points = _points(values[:, column], low, high)
            colour = _COLOURS[column % len(_COLOURS)]
            lines.append(f'<polyline fill="none" stroke="{colour}"{dash} points="{points}"/>')
    label = f"{look.seconds:.1f} s; actions as lines, states dashed"
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}">{"".join(lines)}</svg><br>'
        f"<small>{html.escape(label)}</small>"
    )


def _range(look: EpisodeLook) -> tuple[float, float]:
    every = np.concatenate([look.actions.ravel(), look.states.ravel()])
    every = every[np.isfinite(every)]
    if not len(every):
        return 0.0, 1.0
    low, high = float(every.min()), float(every.max())
    return low, high if high > low else low + 1.0


def _points(values: Values, low: float, high: float) -> str:
    places = np.unique(np.linspace(0, max(0, len(values) - 1), _POINTS).astype(int))
    across = places / max(1, len(values) - 1) * (_WIDTH - 8) + 4
    up = (high - values[places]) / (high - low) * (_HEIGHT - 8) + 4
    good = np.isfinite(up)
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across[good], up[good], strict=True))
