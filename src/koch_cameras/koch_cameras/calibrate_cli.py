# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""``koch calibrate camera NAME``: intrinsics from a printed ChArUco board.

With ``--pose EPISODE`` it finds where the camera is mounted instead, and has other options.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from koch_cameras.capture_loop import CaptureLoop
from koch_cameras.errors import CalibrationDataError, CorruptFrameError, StreamEndedError
from koch_cameras.frame import CameraFrame
from koch_cameras.image import pixels
from koch_cameras.intrinsics import save_intrinsics
from koch_cameras.open_source import open_source
from koch_cameras.rig_camera import find_camera
from koch_cameras.source import SourceConfig
from koch_core.command_line import from_command_line
from koch_core.errors import KochError
from koch_core.image import to_grey
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import LinePart, StatusLine, complain, say
from koch_rig.load import load_rig
from koch_rig.model import default_rig
from koch_rig.rig import Camera, ColorMode
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from koch_cameras.calibration import Board, IntrinsicSession, ViewVerdict

_LOOK_INTERVAL_S = 0.2
_SHADES = " .:*#"
_GOOD_ERROR_PX = 0.5


@dataclass(frozen=True, kw_only=True)
class BoardOptions(OptionModel):
    """Which board was printed."""

    columns: int = option(8, "squares along the long side")
    rows: int = option(5, "squares along the short side")
    square: float = option(32.0, "square as measured [mm]")
    marker: float = option(24.0, "marker as measured [mm]")

    def as_board(self) -> Board:
        """The board; CalibrationDataError where there can be none."""
        from koch_cameras.calibration import Board

        return Board(self.columns, self.rows, self.square / 1e3, self.marker / 1e3)


@dataclass(frozen=True, kw_only=True)
class CalibrateCamera(BoardOptions):
    """What `koch calibrate camera` is asked for."""

    name: str | None = option(None, "name of the camera in the rig file", flags=("name",))
    rig: Path | None = same_as(RIG, None, text="rig file")
    board: Path | None = option(None, "write the board as PDF to this file and stop")
    output: Path | None = option(None, "YAML to write", flags=("--output", "-o"))
    views: int = option(20, "views to take", low=1)
    seconds: float = option(180.0, "longest time to collect [s]", above=0.0)
    timeout: float = option(5.0, "give up after silence [s]", above=0.0)
    every_image: bool = option(False, "look at each image; for recorded files")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subcommand; 2 = something the person can repair, told in one message."""
    words = _without_kind(sys.argv[1:] if argv is None else argv)
    options = from_command_line(CalibrateCamera, "koch calibrate camera", __doc__ or "", words)
    try:
        return _run(options)
    except KochError as exc:
        complain(str(exc))
        return 2
    except KeyboardInterrupt:
        complain("\nstopped; nothing was written")
        return 1


def _run(options: CalibrateCamera) -> int:
    from koch_cameras.calibration import IntrinsicSession, board_pdf

    board = options.as_board()
    if options.board is not None:
        options.board.write_bytes(board_pdf(board))
        say(f"{options.board}: print at 100 %, check the line of 100 mm, glue it flat")
        return 0
    if options.name is None:
        raise CalibrationDataError("no camera named; give NAME, or --board FILE for the print")
    rig = default_rig(options.rig)
    camera = find_camera(load_rig(rig), options.name)
    session = IntrinsicSession(camera.name, (camera.width, camera.height), board)
    images = _grey_images(camera, options.timeout, live=not options.every_image)
    _collect(session, images, options.views, options.seconds)
    result = session.solve()
    path = options.output or _default_output(camera, rig)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_intrinsics(result.intrinsics, path)
    quality = "good" if result.error_px < _GOOD_ERROR_PX else "poor: is the board flat and sharp?"
    say(
        f"{path}: reprojection error {result.error_px:.2f} px ({quality}), {result.views} views, "
        f"{result.left_out} left out\n"
        f"Name it in the rig file: cameras: {camera.name}: intrinsics: "
        f"{_relative(path, rig)}"
    )
    return 0


def _collect(
    session: IntrinsicSession,
    images: Iterator[npt.NDArray[np.uint8]],
    views: int,
    seconds: float,
) -> None:
    """Take views until they suffice, the source ends, or time is up."""
    end_s, line = time.monotonic() + seconds, StatusLine()
    for grey in images:
        verdict = session.add(grey)
        lacks = session.missing(views)
        line.show(_progress(session, verdict, lacks))
        if not lacks:
            break
        if time.monotonic() > end_s:
            line.end()
            say(f"time is up; going on without {'; '.join(lacks)}")
            break
    line.end()


def _progress(session: IntrinsicSession, verdict: ViewVerdict, lacks: list[str]) -> list[LinePart]:
    """One line: the coverage map row by row, what just happened, and what is missing."""
    rows = [
        "".join(_SHADES[min(len(_SHADES) - 1, int(np.ceil(count / 8)))] for count in row)
        for row in session.coverage()
    ]
    return [
        LinePart(f"[{'|'.join(rows)}]", 1),
        LinePart(f"{session.views} views, {verdict.value}", 0, f"{session.views} views"),
        *([LinePart(f"needs {'; '.join(lacks)}", 2, f"needs {lacks[0]}")] if lacks else []),
    ]


def _grey_images(
    camera: Camera, timeout_s: float, *, live: bool
) -> Iterator[npt.NDArray[np.uint8]]:
    """Images as they are published, that is after rotation."""
    config = SourceConfig.from_rig(camera, timeout_s=timeout_s)
    for frame in _live(config) if live else _every(config):
        try:
            image = pixels(str(camera.source), frame, config.rotation, ColorMode.RGB)
        except CorruptFrameError:
            continue  # the next image is as good
        yield to_grey(image)


def _every(config: SourceConfig) -> Iterator[CameraFrame]:
    """All images of a file."""
    source = open_source(config)
    try:
        while True:
            try:
                yield source.read()
            except CorruptFrameError:
                continue
            except StreamEndedError:
                return
    finally:
        source.close()


def _live(config: SourceConfig) -> Iterator[CameraFrame]:
    """The newest image, a few times per second."""
    loop = CaptureLoop(lambda: open_source(config))
    loop.start()
    try:
        while True:
            delivery = loop.take(config.timeout_s)
            state = loop.state()
            if state.fatal is not None:
                raise state.fatal
            if delivery is None:
                if state.ended:
                    return
                raise CalibrationDataError(f"no image: {state.error or 'the camera is silent'}")
            yield delivery.frame
            time.sleep(_LOOK_INTERVAL_S)
    finally:
        loop.close()


def _default_output(camera: Camera, rig: Path) -> Path:
    return camera.intrinsics_path or rig.parent / "cameras" / f"{camera.name}.yaml"


def _relative(path: Path, rig: Path) -> Path:
    """The path as the rig file wants it: relative to its folder where it is below."""
    target, folder = path.resolve(), rig.resolve().parent
    return target.relative_to(folder) if target.is_relative_to(folder) else target


def _without_kind(argv: Sequence[str]) -> list[str]:
    """Accept "camera NAME" as well as "NAME"."""
    return list(argv[1:] if argv and argv[0] == "camera" else argv)


if __name__ == "__main__":
    sys.exit(main())
