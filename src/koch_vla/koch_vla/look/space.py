# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig in space: arms, things, frames and paths in perspective, labels that do not collide.

Matplotlib's 3-D axes leave most of their room empty and know nothing of where a text falls. Here
the points are projected first, so that the arms fill the room that is given to them, and labels
are placed where nothing else is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.patheffects import withStroke

from koch_rig.rig import Camera, Rig, Role
from koch_vla.look.scene import ArmScene, ShadedFace, block_faces, cup_faces
from koch_vla.look.snapshot import GraphSnapshot

Array = npt.NDArray[np.float64]
LIGHT = np.array([0.30, -0.42, 0.85])
AXIS_COLOURS = ("#d62728", "#2ca02c", "#1f77b4")
PATH_COLOURS = {Role.FOLLOWER: "#ff7f0e", Role.LEADER: "#9467bd"}
TABLE, GRID, SHADOW = "#efe9dd", "#ddd4c3", "#d6ccb8"
GHOST = (0.35, 0.65, 1.0, 0.25)
SQUARE_M = 0.1
DEFAULT_FOVY_DEG = 45.0
FRUSTUM_M = 0.06
AXIS_M = 0.04
MARGIN_FRACTION = 0.10  # of the room, on each side of what is drawn
SAME_PLACE_M = 0.005


class View:
    """A perspective view from the front right, above.

    Args:
        points: What is to be seen, float64 (N, 3), [m].
    """

    def __init__(
        self, points: Array, elevation_deg: float = 22.0, azimuth_deg: float = -52.0
    ) -> None:
        low, high = points.min(axis=0), points.max(axis=0)
        elevation, azimuth = np.radians(elevation_deg), np.radians(azimuth_deg)
        level = np.array([np.cos(azimuth), np.sin(azimuth), 0.0])
        self.towards_eye = np.cos(elevation) * level + np.array([0.0, 0.0, np.sin(elevation)])
        distance_m = max(1.0, 3.0 * float(np.linalg.norm(high - low)))
        self.eye = (low + high) / 2.0 + distance_m * self.towards_eye
        right = np.array([-level[1], level[0], 0.0])
        self._axes = np.stack([right, np.cross(self.towards_eye, right), -self.towards_eye])

    def project(self, points: Array) -> Array:
        """Points (..., 3) [m] -> right, up (both without unit) and distance [m] (..., 3)."""
        seen = (points - self.eye) @ self._axes.T
        depth = np.maximum(seen[..., 2:], 0.05)
        return np.concatenate([seen[..., :2] / depth, depth], axis=-1)

    def flat(self, points: Array) -> Array:
        """Points (..., 3) [m] -> right and up (..., 2)."""
        return self.project(points)[..., :2]


@dataclass
class Contents:
    """What is in the scene: collected first, drawn when the view is known."""

    faces: list[ShadedFace] = field(default_factory=list)
    marked: dict[str, Array] = field(default_factory=dict)  # label to pose, drawn as three axes
    named: dict[str, Array] = field(default_factory=dict)  # label to position alone
    cameras: list[tuple[Camera, Array]] = field(default_factory=list)
    trails: list[tuple[Array, str]] = field(default_factory=list)

    @property
    def points(self) -> Array:
        """What the view has to hold: not the cameras, which may hang far above."""
        corners = [face.corners for face in self.faces]
        poses = [pose[:3, 3] for pose in self.marked.values()]
        trails = [trail for trail, _ in self.trails]
        return np.vstack([*corners, *poses, *trails, np.zeros((1, 3))])


def contents_of(rig: Rig, snapshot: GraphSnapshot) -> Contents:
    """Place every arm that was heard, the things on the table, and the paths."""
    found = Contents()
    for arm in rig.arms.values():
        scene = ArmScene(rig, arm.name)
        if arm.name in snapshot.joints:
            scene.place(snapshot.joints[arm.name])
            found.faces += scene.faces(links_of=arm.name)
            frames = scene.frames()
            for name in (f"{arm.name}/base_link", f"{arm.name}/tcp"):
                found.marked[name] = frames[name]
            for name, camera in rig.cameras.items():
                optical = frames.get(f"{name}_optical_frame")
                if optical is not None and all(camera is not known for known, _ in found.cameras):
                    found.cameras.append((camera, optical))
        planned = snapshot.ghost_of(arm)
        if planned and arm.role is Role.FOLLOWER:
            scene.place(planned)
            ghost = scene.faces(links_of=arm.name)
            found.faces += [ShadedFace(face.corners, face.normal, GHOST) for face in ghost]
        trail = tcp_path(scene, snapshot, arm.name)
        if len(trail) > 1:
            found.trails.append((trail, PATH_COLOURS[arm.role]))
    for name, pose in snapshot.objects.items():
        found.faces += cup_faces(pose) if name == "cup" else block_faces(pose)
        found.named[name] = pose[:3, 3]
    return found


def tcp_path(scene: ArmScene, snapshot: GraphSnapshot, arm: str) -> Array:
    """Positions of the tool centre point over the snapshot's time, float64 (T, 3), [m]."""
    trail = []
    for _, positions in snapshot.history.get(arm, []):
        scene.place(positions)
        trail.append(scene.tcp())
    return np.array(trail).reshape(-1, 3)


def draw_space(axes: Any, rig: Rig, snapshot: GraphSnapshot, room_fraction: float) -> None:
    """Fill the axes with the scene.

    Args:
        axes: Empty axes.
        rig: The rig.
        snapshot: What was heard.
        room_fraction: How much of the width, from the left, nothing else will cover.
    """
    axes.set_axis_off()
    contents = contents_of(rig, snapshot)
    points = contents.points
    view = View(points)
    _frame(axes, view.flat(points), room_fraction)
    _draw_table(axes, view, points)
    _draw_faces(axes, view, contents.faces)
    for trail, colour in contents.trails:
        _draw_trail(axes, view.flat(trail), colour)
    _draw_axes(axes, view, [*contents.marked.values(), np.eye(4)])
    for camera, pose in contents.cameras:
        _draw_frustum(axes, view, pose, camera)
    if not snapshot.joints:
        axes.set_title("no joint states were heard", color="#d62728")
    texts = _texts(contents)
    anchors = view.flat(np.array(list(texts.values())).reshape(-1, 3))
    solid = view.flat(np.vstack([_samples(face) for face in contents.faces] or [np.zeros((1, 3))]))
    write_labels(axes, list(texts), anchors, solid, room_fraction)
    note = "squares of 0.1 m    x red, y green, z blue"
    axes.text(0.012, 0.02, note, transform=axes.transAxes, fontsize=8, color="#8a8272")


def _samples(face: ShadedFace) -> Array:
    """Points all over a face: what a label there would cover."""
    edges = np.concatenate([face.corners, (face.corners + np.roll(face.corners, 1, axis=0)) / 2])
    middle = face.corners.mean(axis=0)
    return np.concatenate([middle + part * (edges - middle) for part in (0.25, 0.5, 0.75, 1.0)])


def _texts(contents: Contents) -> dict[str, Array]:
    """Label to position; frames at one place share a label."""
    places: dict[str, Array] = {"world": np.zeros(3)}
    places |= {name: pose[:3, 3] for name, pose in contents.marked.items()} | contents.named
    places |= {f"camera {camera.name}": pose[:3, 3] for camera, pose in contents.cameras}
    shared: list[tuple[list[str], Array]] = []
    for name, place in places.items():
        for names, known in shared:
            if np.linalg.norm(place - known) < SAME_PLACE_M:
                names.append(name)
                break
        else:
            shared.append(([name], place))
    found = {}
    for names, place in shared:
        numbers = ", ".join(f"{value:.2f}" for value in place + 0.0)
        is_tool = any(name.endswith("/tcp") for name in names)
        found[" = ".join(names) + (f"  ({numbers}) m" if is_tool else "")] = place
    return found


def _frame(axes: Any, points: Array, room_fraction: float) -> None:
    """Choose limits so that the points fill the free room; one scale for both directions."""
    box = axes.get_window_extent()
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([box.width * room_fraction, box.height]) * (1.0 - 2.0 * MARGIN_FRACTION)
    scale = float(np.max((high - low) / room))  # view units for each pixel
    middle = (low + high) / 2.0
    left = middle[0] - scale * box.width * room_fraction / 2.0
    axes.set_xlim(left, left + scale * box.width)
    axes.set_ylim(middle[1] - scale * box.height / 2.0, middle[1] + scale * box.height / 2.0)


def _draw_table(axes: Any, view: View, points: Array) -> None:
    """The table's top, z = 0, in squares."""
    low = np.floor(points.min(axis=0)[:2] / SQUARE_M - 1.0) * SQUARE_M
    high = np.ceil(points.max(axis=0)[:2] / SQUARE_M + 1.0) * SQUARE_M
    corners = [(low[0], low[1]), (high[0], low[1]), (high[0], high[1]), (low[0], high[1])]
    top = np.array([[x, y, 0.0] for x, y in corners])
    axes.add_collection(
        PolyCollection([view.flat(top)], facecolors=TABLE, edgecolors=GRID, zorder=1)
    )
    xs, ys = (np.arange(low[i], high[i] + SQUARE_M / 2.0, SQUARE_M) for i in range(2))
    lines = [[[x, low[1], 0.0], [x, high[1], 0.0]] for x in xs]
    lines += [[[low[0], y, 0.0], [high[0], y, 0.0]] for y in ys]
    flat = view.flat(np.array(lines))
    axes.add_collection(LineCollection(list(flat), colors=GRID, linewidths=0.8, zorder=1))


def _draw_faces(axes: Any, view: View, faces: Sequence[ShadedFace]) -> None:
    """Shadows on the table, then all faces that look this way, the farthest first."""
    solid = [face for face in faces if face.colour[3] == 1.0]
    fall = -LIGHT / LIGHT[2]
    shadows = [view.flat(face.corners + face.corners[:, 2:] * fall) for face in solid]
    axes.add_collection(PolyCollection(shadows, facecolors=SHADOW, edgecolors=SHADOW, zorder=1.5))
    seen = [face for face in faces if face.normal @ (view.eye - face.corners.mean(axis=0)) > 0.0]
    seen.sort(key=lambda face: -float(np.linalg.norm(face.corners.mean(axis=0) - view.eye)))
    light = LIGHT / np.linalg.norm(LIGHT)
    colours = []
    for face in seen:
        shade = 0.60 + 0.40 * max(0.0, float(face.normal @ light))
        red, green, blue, alpha = face.colour
        colours.append((red * shade, green * shade, blue * shade, alpha))
    axes.add_collection(
        PolyCollection(
            [view.flat(face.corners) for face in seen],
            facecolors=colours,
            edgecolors=[(0.0, 0.0, 0.0, 0.35 * colour[3]) for colour in colours],
            linewidths=0.5,
            zorder=2,
        )
    )


def _draw_axes(axes: Any, view: View, poses: Sequence[Array]) -> None:
    for pose in poses:
        ends = pose[:3, 3] + AXIS_M * pose[:3, :3].T
        lines = view.flat(np.stack([np.broadcast_to(pose[:3, 3], (3, 3)), ends], axis=1))
        axes.add_collection(
            LineCollection(list(lines), colors=AXIS_COLOURS, linewidths=2.2, zorder=3)
        )


def _draw_frustum(axes: Any, view: View, pose: Array, camera: Camera) -> None:
    """The edges of what a camera sees, to a short distance."""
    half_height = np.tan(np.radians(camera.fovy_deg or DEFAULT_FOVY_DEG) / 2.0)
    half_width = half_height * camera.width / camera.height
    corners = FRUSTUM_M * np.array(
        [[x * half_width, y * half_height, 1.0] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    )
    world = corners @ pose[:3, :3].T + pose[:3, 3]
    lines = [(pose[:3, 3], corner) for corner in world]
    lines += [(world[i - 1], world[i]) for i in range(4)]
    flat = view.flat(np.array(lines))
    axes.add_collection(LineCollection(list(flat), colors="#5a5f66", linewidths=0.9, zorder=3))


def _draw_trail(axes: Any, trail: Array, colour: str) -> None:
    """The path, faint where it is old."""
    segments = np.stack([trail[:-1], trail[1:]], axis=1)
    opacity = np.linspace(0.15, 1.0, len(segments))
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    colours = [(red, green, blue, float(a)) for a in opacity]
    axes.add_collection(LineCollection(list(segments), colors=colours, linewidths=2.2, zorder=3))


def write_labels(
    axes: Any, texts: Sequence[str], anchors: Array, solid: Array, room_fraction: float
) -> list[tuple[str, Array]]:
    """Write each text near its anchor, with a thin line to it; those out of sight are left out.

    Args:
        axes: Their limits are final.
        texts: Labels.
        anchors: What they name, in data coordinates (N, 2).
        solid: Points that are better not covered, in data coordinates (M, 2).
        room_fraction: How much of the width labels may use.

    Returns:
        The texts written and their boxes (left, bottom, right, top) [px].
    """
    box = axes.get_window_extent()
    room = np.array([box.x0, box.y0, box.x0 + box.width * room_fraction, box.y1])
    pixels, crowd = axes.transData.transform(anchors), axes.transData.transform(solid)
    renderer = axes.figure.canvas.get_renderer()
    seen = [i for i, (x, y) in enumerate(pixels) if _holds(room, np.array([[x, y]]))[0]]
    halo = [withStroke(linewidth=3.0, foreground=(1.0, 1.0, 1.0, 0.8))]
    drawn, sizes = [], []
    for index in seen:
        text = axes.text(0, 0, texts[index], fontsize=9.5, color="#333333", va="bottom", zorder=9)
        text.set_path_effects(halo)
        extent = text.get_window_extent(renderer)
        drawn.append(text)
        sizes.append((extent.width, extent.height))
    boxes = place_boxes(pixels[seen], np.array(sizes).reshape(-1, 2), crowd, room)
    to_data = axes.transData.inverted().transform
    for text, anchor, label in zip(drawn, pixels[seen], boxes, strict=True):
        text.set_position(to_data(label[:2]))
        nearest = np.clip(anchor, label[:2], label[2:])
        axes.plot(
            *to_data(np.stack([anchor, nearest])).T, color="#6a6a6a", linewidth=0.8, zorder=8
        )
    return [(texts[index], label) for index, label in zip(seen, boxes, strict=True)]


def place_boxes(anchors: Array, sizes: Array, crowd: Array, room: Array) -> list[Array]:
    """Find a place for each label: near its anchor, free of other labels, off the crowd.

    Args:
        anchors: (N, 2) [px].
        sizes: Widths and heights (N, 2) [px].
        crowd: Points that are better not covered (M, 2) [px].
        room: Left, bottom, right, top [px].
    """
    placed: list[Array] = []
    for anchor, size in zip(anchors, sizes, strict=True):
        best, least = np.array([*anchor, *(anchor + size)]), np.inf
        for away in (16.0, 34.0, 60.0, 95.0, 140.0, 200.0):
            for angle in np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False):
                way = np.array([np.cos(angle), np.sin(angle)])
                middle = anchor + way * (away + size / 2.0)
                box = np.concatenate([middle - size / 2.0, middle + size / 2.0])
                hidden = np.count_nonzero(_holds(box, crowd)) + np.count_nonzero(
                    _holds(box, anchors)
                )
                cost = away + 4.0 * hidden + 1e4 * sum(_overlap(box, other) for other in placed)
                cost += 1e4 * (np.any(box[:2] < room[:2]) or np.any(box[2:] > room[2:]))
                if cost < least:
                    best, least = box, cost
        placed.append(best)
    return placed


def _holds(box: Array, points: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(np.all((points >= box[:2]) & (points <= box[2:]), axis=1))


def _overlap(one: Array, other: Array, gap_px: float = 3.0) -> bool:
    return bool(np.all(one[:2] < other[2:] + gap_px) and np.all(other[:2] < one[2:] + gap_px))
