# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Draws a snapshot: the rig in space with the cameras' images inset, joints and TCP below."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from koch_rig.rig import Rig, Role
from koch_vla.look.scene import ArmScene
from koch_vla.look.snapshot import GraphSnapshot
from koch_vla.look.space import AXIS_COLOURS, PATH_COLOURS, draw_space, tcp_path

FRESH_S = 0.2
SPACE = (0.0, 0.33, 1.0, 0.62)  # left, bottom, width, height, as fractions of the figure
INSET_WIDTH, INSET_GAP = 0.21, 0.008


def draw(rig: Rig, snapshot: GraphSnapshot, path: Path) -> None:
    """Write a snapshot as an image of 1600 x 1000 pixels."""
    figure = Figure(figsize=(16, 10), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    width = _inset_width(rig)
    draw_space(figure.add_axes(SPACE), rig, snapshot, 1.0 - width - 2.0 * INSET_GAP)
    _draw_cameras(figure, rig, snapshot, width)
    _draw_joints(figure.add_axes((0.09, 0.055, 0.36, 0.225)), rig, snapshot)
    _draw_tcp(figure.add_axes((0.53, 0.055, 0.45, 0.225)), rig, snapshot)
    figure.text(0.012, 0.965, f"{rig.name}: {snapshot.title}", fontsize=15, va="center")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _inset_width(rig: Rig) -> float:
    """Width of the cameras' column as a fraction of the figure: what all of them fit into."""
    if not rig.cameras:
        return 0.0
    tall = sum(camera.height / camera.width for camera in rig.cameras.values()) * 1.6
    room = SPACE[3] - INSET_GAP * (len(rig.cameras) - 1)
    return float(min(INSET_WIDTH, room / tall))


def _draw_cameras(figure: Figure, rig: Rig, snapshot: GraphSnapshot, width: float) -> None:
    top = SPACE[1] + SPACE[3]
    for name, camera in rig.cameras.items():
        height = width * 1.6 * camera.height / camera.width  # the figure is 16:10
        top -= height
        inset = figure.add_axes((1.0 - width - INSET_GAP, top, width, height))
        _draw_camera(inset, name, snapshot)
        top -= INSET_GAP


def _draw_joints(axes: Any, rig: Rig, snapshot: GraphSnapshot) -> None:
    """Each joint's angle inside its range."""
    names = list(rig.limits.joints)
    for index, name in enumerate(names):
        low, high = rig.limits.joints[name]
        axes.plot([low, high], [index, index], color="#cccccc", linewidth=9, zorder=1)
    for arm in rig.arms.values():
        positions = snapshot.joints.get(arm.name)
        if positions is None:
            continue
        age_s = (snapshot.now_ns - snapshot.joint_stamps_ns[arm.name]) / 1e9
        label = f"{arm.name}, {_age(age_s)}"
        values = [positions.get(name, np.nan) for name in names]
        marker = "o" if arm.role is Role.FOLLOWER else "D"
        colour = PATH_COLOURS[arm.role]
        axes.plot(values, range(len(names)), marker, color=colour, label=label, zorder=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("joint angle in its limits [rad]", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    if snapshot.joints:
        _legend_above(axes)


def _draw_tcp(axes: Any, rig: Rig, snapshot: GraphSnapshot) -> None:
    """Height and reach of the tool centre points over time."""
    for arm in rig.arms.values():
        history = snapshot.history.get(arm.name, [])
        if len(history) < 2:
            continue
        trail = tcp_path(ArmScene(rig, arm.name), snapshot, arm.name)
        times = [(stamp - snapshot.now_ns) / 1e9 for stamp, _ in history]
        style = "-" if arm.role is Role.FOLLOWER else ":"
        for axis, (name, colour) in enumerate(zip("xyz", AXIS_COLOURS, strict=True)):
            label = f"{arm.name} {name}"
            axes.plot(times, trail[:, axis], style, color=colour, linewidth=1.3, label=label)
    axes.set_xlabel("time [s]", fontsize=8)
    axes.set_ylabel("TCP in the world [m]", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        _legend_above(axes)


def _legend_above(axes: Any) -> None:
    """A legend that covers no curve."""
    axes.legend(
        fontsize=8,
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=6,
        frameon=False,
        borderpad=0,
    )


def _draw_camera(axes: Any, name: str, snapshot: GraphSnapshot) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    image = snapshot.images.get(name)
    if image is None:
        axes.set_facecolor("#eeeeee")
        said, where = "no image was heard", axes.transAxes
        axes.text(0.5, 0.5, said, ha="center", color="#d62728", transform=where)
        said = name
    else:
        age_s = (snapshot.now_ns - snapshot.image_stamps_ns[name]) / 1e9
        axes.imshow(image, aspect="auto")
        height, width = image.shape[:2]
        said = f"{name}  {width}x{height}, {_age(age_s)}"
    axes.annotate(
        said,
        (0.0, 1.0),
        xycoords="axes fraction",
        xytext=(6, -6),
        textcoords="offset points",
        va="top",
        fontsize=9,
        color="white",
        bbox={"boxstyle": "square,pad=0.3", "facecolor": (0, 0, 0, 0.55), "edgecolor": "none"},
    )


def _age(age_s: float) -> str:
    old = "" if age_s < FRESH_S else "  OLD"
    return f"{age_s * 1e3:.0f} ms old{old}" if age_s < 10 else f"{age_s:.0f} s old{old}"
