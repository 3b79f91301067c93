# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""``koch calibrate camera NAME --pose EPISODE``: where a camera is mounted, without a ruler.

Record an episode in which the arm shows a ChArUco board to the camera (or its wrist's camera looks
at a board on the table), led with the leader, and rests for a moment at each pose.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from koch_cameras.calibrate_cli import BoardOptions
from koch_cameras.errors import CalibrationDataError
from koch_cameras.rig_camera import find_camera, intrinsics_of
from koch_core.command_line import from_command_line
from koch_core.errors import KochError
from koch_core.files import write_atomically
from koch_core.options import option, same_as
from koch_core.terminal import complain, say
from koch_rig.geometry import matrix_to_rpy
from koch_rig.load import WORLD, load_rig
from koch_rig.model import default_rig, frame_names
from koch_rig.rig import Arm, Camera, Mount, Rig
from koch_rig.rig_edit import with_mount
from koch_rig.stream import image_topic
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from koch_cameras.calibration import Detection
    from koch_cameras.calibration.pose import CameraPose, PoseView

_STILL_RAD_S = 0.05  # an arm that moves is elsewhere by the time that an image takes
_STILL_S = 0.1  # before and after the image
_OTHER_RAD = 0.1  # two views with all joints nearer than this say the same
_LEAST_CORNERS = 8
_GOOD_PX = 1.0
_BOARD_LINK = "gripper_link"


@dataclass(frozen=True, kw_only=True)
class CalibratePose(BoardOptions):
    """What `koch calibrate camera --pose` is asked for."""

    name: str = option(..., "name of the camera in the rig file", flags=("name",))
    pose: Path = option(..., "episode or bag with images and joint states")
    rig: Path | None = same_as(RIG, None, text="rig file")
    parent: str | None = option(
        None, "frame that holds the camera, as ARM/LINK or world; the rig's, else world"
    )
    board_on: str | None = option(
        None,
        "frame that holds the board; the follower's gripper_link, or world",
    )
    image: Path | None = option(None, "write an image of the corners where they should be")
    dry_run: bool = option(False, "leave the rig file as it is")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand; 2 = something the person can repair, told in one message."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = from_command_line(CalibratePose, "koch calibrate camera", __doc__ or "", words)
    try:
        return _run(options)
    except KochError as exc:
        complain(str(exc))
        return 2


def _run(options: CalibratePose) -> int:
    from koch_cameras.calibration.pose import solve_pose

    path = default_rig(options.rig)
    rig = load_rig(path)
    camera = find_camera(rig, options.name)
    intrinsics = intrinsics_of(camera)
    if intrinsics is None:
        raise CalibrationDataError(
            f"the intrinsics of {camera.name} are not known; run `koch calibrate camera "
            f"{camera.name}` first, and name the file in the rig"
        )
    board = options.as_board()
    frames = _Frames.of(rig, camera, options)
    shots = list(_shots(options.pose, camera, frames.arm))
    views = []
    for shot in shots:
        detection = board.detect(shot.grey)
        if detection is not None and len(detection.ids) >= _LEAST_CORNERS:
            views.append((shot, frames.view(detection, shot.joints)))
    say(f"{options.pose}: {len(shots)} poses at rest, the board is seen in {len(views)}")
    found = solve_pose([view for _, view in views], intrinsics)
    mount = _mount(frames.parent, found.mount_from_camera)
    say("\n".join(_report(camera, mount, found)))
    if options.image is not None:
        _draw(options.image, views, found)
    text = with_mount(path, camera.name, mount)
    if options.dry_run:
        say(f"{path} is as it was")
    else:
        write_atomically(path, text)
        say(f"written into {path}")
    return 0


@dataclass(frozen=True)
class _Frames:
    """Which frame holds the camera, which the board, and the arm between them."""

    rig: Rig
    arm: Arm
    parent: str
    board_on: str

    @classmethod
    def of(cls, rig: Rig, camera: Camera, options: CalibratePose) -> _Frames:
        known = WORLD if camera.mount is None else camera.mount.parent
        parent = options.parent or known
        holder = parent if parent != WORLD else options.board_on or ""
        arm = rig.arms.get(holder.partition("/")[0]) or rig.follower
        carried = f"{arm.name}/{_BOARD_LINK}" if parent == WORLD else WORLD
        board_on = options.board_on or carried
        names = [WORLD, *(f"{arm.name}/{name}" for name in frame_names(arm.role, arm.model))]
        for flag, frame in (("--parent", parent), ("--board-on", board_on)):
            if frame not in names:
                raise CalibrationDataError(f"{flag} {frame}: expected one of {', '.join(names)}")
        if (parent == WORLD) == (board_on == WORLD):
            raise CalibrationDataError(
                f"camera on {parent}, board on {board_on}: the arm must move one of them, "
                "so that one is on world and the other on a link"
            )
        return cls(rig, arm, parent, board_on)

    def view(self, detection: Detection, joints: Mapping[str, float]) -> PoseView:
        """A view, with where the arm held what it holds."""
        from koch_cameras.calibration.pose import PoseView
        from koch_vla.look.scene import ArmScene

        scene = ArmScene(self.rig, self.arm.name)
        scene.place(joints)
        poses = {WORLD: np.eye(4), **scene.frames()}
        relative = np.linalg.inv(poses[self.parent]) @ poses[self.board_on]
        return PoseView(detection, relative)


@dataclass(frozen=True, eq=False)
class _Shot:
    """An image at rest: uint8 (H, W), and the joints [rad] meanwhile."""

    grey: npt.NDArray[np.uint8]
    joints: Mapping[str, float]


def _shots(path: Path, camera: Camera, arm: Arm) -> Iterator[_Shot]:
    """One image of each pose at which the arm rested."""
    from koch_core.image import decode_image, to_grey
    from koch_episodes import StampedBag, joint_vector, open_bag

    images, states = f"/{image_topic(camera.name)}", f"/{arm.name}/joint_states"
    times_s, angles, seen = [], [], []
    with open_bag(path) as bag:
        for topic in (images, states):
            if topic not in bag.topics:
                there = ", ".join(sorted(bag.topics)) or "no topic"
                raise CalibrationDataError(f"{path} has no {topic}; it has {there}")
        for message in StampedBag(bag, [images, states]).messages():
            if message.topic == images:
                seen.append((message.stamp_ns / 1e9, bytes(message.value.data)))
            else:
                state = message.value
                times_s.append(message.stamp_ns / 1e9)
                angles.append(joint_vector(state.name, state.position, arm.topic_joints))
    times, poses = np.array(times_s), np.array(angles)
    taken: list[npt.NDArray[np.float64]] = []
    for at_s, data in seen:
        pose = _rest(times, poses, at_s)
        if pose is None or any(np.abs(pose - other).max() < _OTHER_RAD for other in taken):
            continue
        taken.append(pose)
        joints = dict(zip(arm.model.joints, pose.tolist(), strict=True))
        yield _Shot(to_grey(decode_image(data)), joints)


def _rest(
    times_s: npt.NDArray[np.float64], poses: npt.NDArray[np.float64], at_s: float
) -> npt.NDArray[np.float64] | None:
    """The pose at a time, where the arm rests around it."""
    near = poses[np.abs(times_s - at_s) <= _STILL_S]
    if len(near) < 3 or np.ptp(near, axis=0).max() > _STILL_RAD_S * 2.0 * _STILL_S:
        return None
    pose: npt.NDArray[np.float64] = np.median(near, axis=0)
    return pose


def _mount(parent: str, pose: npt.NDArray[np.float64]) -> Mount:
    x, y, z = (round(float(value), 5) for value in pose[:3, 3])
    return Mount(parent=parent, xyz=(x, y, z), rpy_rad=matrix_to_rpy(pose[:3, :3]))


def _report(camera: Camera, mount: Mount, found: CameraPose) -> list[str]:
    """What came out, how well it fits, and how far it is from what the rig said."""
    quality = "good" if found.rms_px < _GOOD_PX else "poor: did the board shift, is it flat?"
    degrees = np.degrees(found.view_errors_rad)
    lines = [
        f"{camera.name} in {mount.parent}: xyz {list(mount.xyz)} m, rpy "
        f"{[round(math.degrees(angle), 3) for angle in mount.rpy_rad]} deg",
        f"corners are {found.rms_px:.2f} px off (rms, {quality}); one view alone would put the "
        f"camera {1e3 * np.median(found.view_errors_m):.1f} mm and {np.median(degrees):.2f} "
        f"degrees elsewhere (median of {len(degrees)}; worst "
        f"{1e3 * found.view_errors_m.max():.1f} mm, {degrees.max():.2f} degrees)",
    ]
    if camera.mount is not None and camera.mount.parent == mount.parent:
        moved = math.dist(camera.mount.xyz, mount.xyz)
        lines.append(f"the rig said {list(camera.mount.xyz)} m: {1e3 * moved:.1f} mm away")
    return lines


def _draw(path: Path, views: Sequence[tuple[_Shot, PoseView]], found: CameraPose) -> None:
    """The worst view."""
    from koch_cameras.calibration.pose import corners_image

    ends = np.cumsum([len(view.detection.ids) for _, view in views])[:-1]
    worst = int(np.argmax([part.mean() for part in np.split(found.errors_px, ends)]))
    shot, view = views[worst]
    wanted = np.split(found.projected_px, ends)[worst]
    path.write_bytes(corners_image(shot.grey, view.detection.image_px, wanted))
    say(f"{path}: the worst view; circles are corners seen, crosses where they should be")


if __name__ == "__main__":
    sys.exit(main())
