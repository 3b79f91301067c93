# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Draws a snapshot: robot, frames, camera views and TCP path in one figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator
from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection

from koch_rig.rig import Camera, Rig
from koch_vla.look.scene import ArmScene, Face
from koch_vla.look.snapshot import Snapshot

Array = npt.NDArray[np.float64]
LIGHT = np.array([0.35, -0.45, 0.82])
AXIS_COLOURS = ("#d62728", "#2ca02c", "#1f77b4")
PATH_COLOURS = {"follower": "#ff7f0e", "leader": "#9467bd"}
OBJECT_SIZES = {"block": (0.02, "#d64541"), "cup": (0.035, "#3d7ebf")}  # half side [m]
DEFAULT_FOVY_DEG = 45.0
FRUSTUM_M = 0.08
FRESH_S = 0.2
LABEL_GAP = " " * 6  # clears the body that stands at the labelled point


def draw(rig: Rig, snapshot: Snapshot, path: Path) -> None:
    """Write a snapshot as a PNG of 1600 x 1000 pixels."""
    figure = Figure(figsize=(16, 10), dpi=100, facecolor="white")
    cameras = list(rig.cameras)
    rows = 2 * max(2, len(cameras))
    split = rows - rows // 4 - 1
    grid = figure.add_gridspec(
        rows,
        3,
        width_ratios=(1.0, 1.0, 0.75 if cameras else 0.01),
        left=0.06,
        right=0.985,
        top=0.93,
        bottom=0.05,
        hspace=0.9,
        wspace=0.12,
    )
    _draw_space(figure.add_subplot(grid[:split, :2], projection="3d"), rig, snapshot)
    _draw_joints(figure.add_subplot(grid[split:, 0]), rig, snapshot)
    _draw_tcp(figure.add_subplot(grid[split:, 1]), rig, snapshot)
    for index, name in enumerate(cameras):
        axes = figure.add_subplot(grid[2 * index : 2 * index + 2, 2])
        _draw_camera(axes, name, snapshot)
    figure.suptitle(f"{rig.name}: {snapshot.title}", fontsize=15, x=0.02, ha="left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw_space(axes: Any, rig: Rig, snapshot: Snapshot) -> None:
    faces: list[Face] = []
    points: list[Array] = []
    for arm in rig.arms.values():
        scene = ArmScene(rig, arm.name)
        if arm.name in snapshot.joints:
            scene.place(snapshot.joints[arm.name])
            faces += scene.faces()
            frames = scene.frames()
            shown = ("world", f"{arm.name}/base_link", f"{arm.name}/tcp")
            for name in shown:
                _draw_frame(axes, frames[name], name)
            for name, camera in rig.cameras.items():
                if f"{name}_optical_frame" in frames:
                    _draw_frustum(axes, frames[f"{name}_optical_frame"], camera)
                    points.append(frames[f"{name}_optical_frame"][:3, 3])
            points += [pose[:3, 3] for name, pose in frames.items() if name.startswith(arm.name)]
        if snapshot.ghost and arm.role.value == "follower":
            scene.place(snapshot.ghost)
            faces += [_ghostly(face) for face in scene.faces(links_of=arm.name)]
        trail = tcp_path(scene, snapshot, arm.name)
        if len(trail) > 1:
            _draw_trail(axes, trail, PATH_COLOURS[arm.role.value])
            points.append(trail)
    for name, place in snapshot.objects.items():
        half, colour = OBJECT_SIZES[name]
        axes.scatter(*place, s=(half * 2000) ** 1.2, marker="s", color=colour, depthshade=False)
        axes.text(*place, f"{LABEL_GAP}{name}", fontsize=8)
    _draw_faces(axes, faces)
    _frame_view(axes, np.vstack(points) if points else np.zeros((1, 3)))
    if not snapshot.joints:
        axes.set_title("no joint states were heard", color="#d62728")


def tcp_path(scene: ArmScene, snapshot: Snapshot, arm: str) -> Array:
    """Positions of the tool centre point over the snapshot's time, float64 (T, 3), [m]."""
    trail = []
    for _, positions in snapshot.history.get(arm, []):
        scene.place(positions)
        trail.append(scene.tcp())
    return np.array(trail).reshape(-1, 3)


def _draw_faces(axes: Any, faces: Sequence[Face]) -> None:
    """All faces in one collection, so that they are sorted by depth against each other."""
    if not faces:
        return
    colours = []
    for face in faces:
        shade = 0.62 + 0.38 * max(0.0, float(face.normal @ LIGHT))
        red, green, blue, alpha = face.colour
        colours.append((red * shade, green * shade, blue * shade, alpha))
    axes.add_collection3d(
        Poly3DCollection(
            [face.corners for face in faces],
            facecolors=colours,
            edgecolors=(0, 0, 0, 0.25),
            linewidths=0.3,
        )
    )


def _ghostly(face: Face) -> Face:
    return Face(face.corners, face.normal, (0.35, 0.65, 1.0, 0.25))


def _draw_frame(axes: Any, pose: Array, name: str, length_m: float = 0.04) -> None:
    origin = pose[:3, 3]
    lines = [(origin, origin + length_m * pose[:3, axis]) for axis in range(3)]
    axes.add_collection3d(Line3DCollection(lines, colors=AXIS_COLOURS, linewidths=2.0))
    axes.text(*origin, f"{LABEL_GAP}{name}", fontsize=7, color="#444444")


def _draw_frustum(axes: Any, pose: Array, camera: Camera) -> None:
    """The edges of what a camera sees, to a short distance."""
    half_height = np.tan(np.radians(camera.fovy_deg or DEFAULT_FOVY_DEG) / 2.0)
    half_width = half_height * camera.width / camera.height
    corners = FRUSTUM_M * np.array(
        [[x * half_width, y * half_height, 1.0] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    )
    world = corners @ pose[:3, :3].T + pose[:3, 3]
    lines = [(pose[:3, 3], corner) for corner in world]
    lines += [(world[i - 1], world[i]) for i in range(4)]
    axes.add_collection3d(Line3DCollection(lines, colors="#555555", linewidths=0.8))
    axes.text(*pose[:3, 3], f"{LABEL_GAP}{camera.name}", fontsize=8, color="#222222")


def _draw_trail(axes: Any, trail: Array, colour: str) -> None:
    """The path, faint where it is old."""
    segments = np.stack([trail[:-1], trail[1:]], axis=1)
    opacity = np.linspace(0.15, 1.0, len(segments))
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    axes.add_collection3d(
        Line3DCollection(
            segments, colors=[(red, green, blue, float(a)) for a in opacity], linewidths=1.8
        )
    )


def _frame_view(axes: Any, points: Array) -> None:
    """One scale for all axes; the table is the floor of the axes, at z = 0."""
    low, high = points.min(axis=0) - 0.05, points.max(axis=0) + 0.05
    low[2] = 0.0
    axes.set_xlim(low[0], high[0])
    axes.set_ylim(low[1], high[1])
    axes.set_zlim(low[2], high[2])
    axes.set_box_aspect(high - low, zoom=1.12)
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MultipleLocator(0.1))
        axis.set_pane_color((1.0, 1.0, 1.0, 0.0))
    axes.zaxis.set_pane_color((0.93, 0.90, 0.84, 1.0))
    axes.set_xlabel("x [m]")
    axes.set_ylabel("y [m]")
    axes.set_zlabel("z [m]")
    axes.view_init(elev=24, azim=-58)
    axes.tick_params(labelsize=7)


def _draw_joints(axes: Any, rig: Rig, snapshot: Snapshot) -> None:
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
        marker = "o" if arm.role.value == "follower" else "D"
        colour = PATH_COLOURS[arm.role.value]
        axes.plot(values, range(len(names)), marker, color=colour, label=label, zorder=2)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("joint angle in its limits [rad]", fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    if snapshot.joints:
        axes.legend(fontsize=8, loc="best")


def _draw_tcp(axes: Any, rig: Rig, snapshot: Snapshot) -> None:
    """Height and reach of the tool centre points over time."""
    for arm in rig.arms.values():
        history = snapshot.history.get(arm.name, [])
        if len(history) < 2:
            continue
        trail = tcp_path(ArmScene(rig, arm.name), snapshot, arm.name)
        times = [(stamp - snapshot.now_ns) / 1e9 for stamp, _ in history]
        style = "-" if arm.role.value == "follower" else ":"
        for axis, (name, colour) in enumerate(zip("xyz", AXIS_COLOURS, strict=True)):
            label = f"{arm.name} {name}" if style == "-" else None
            axes.plot(times, trail[:, axis], style, color=colour, linewidth=1.3, label=label)
    axes.set_xlabel("time [s]", fontsize=8)
    axes.set_title("TCP in the world [m] (leader dotted)", fontsize=8, loc="left")
    axes.tick_params(labelsize=8)
    axes.grid(visible=True, alpha=0.3)
    if axes.lines:
        axes.legend(fontsize=8, loc="best")


def _draw_camera(axes: Any, name: str, snapshot: Snapshot) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    picture = snapshot.pictures.get(name)
    if picture is None:
        axes.set_facecolor("#eeeeee")
        axes.text(
            0.5,
            0.5,
            "no picture was heard",
            ha="center",
            color="#d62728",
            transform=axes.transAxes,
        )
        axes.set_title(name, fontsize=10, loc="left")
        return
    age_s = (snapshot.now_ns - snapshot.picture_stamps_ns[name]) / 1e9
    axes.imshow(picture)
    height, width = picture.shape[:2]
    axes.set_title(f"{name}  {width}x{height}, {_age(age_s)}", fontsize=10, loc="left")


def _age(age_s: float) -> str:
    old = "" if age_s < FRESH_S else "  OLD"
    return f"{age_s * 1e3:.0f} ms old{old}" if age_s < 10 else f"{age_s:.0f} s old{old}"
