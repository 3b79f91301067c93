# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch look`: what a person would look at in RViz, as one PNG; from live topics or a bag."""

from __future__ import annotations

from pathlib import Path

from koch_core.terminal import CommandLine, complain, say
from koch_core.working import Working
from koch_rig.stream import camera_stream
from koch_vla.errors import NothingHeardError, OutputFileError

__all__ = ["main"]


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when an arm or a camera of the rig was not heard."""
    parser = CommandLine(
        prog="koch look",
        description="Draw robot, frames, camera views and TCP path as one PNG.",
    )
    parser.add_argument("bag", nargs="?", type=Path, help="bag or episode; live topics without")
    parser.add_argument("--rig", type=Path, metavar="FILE", help="rig file")
    parser.add_argument("--sim", action="store_true", help="use config/rig.sim.yaml")
    parser.add_argument("--at", type=float, metavar="S", help="moment of the bag (default: end)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of the TCP path")
    parser.add_argument("--timeout", type=float, default=5.0, help="wait longer for missing ones")
    parser.add_argument("-o", "--output", type=Path, default=Path("look.png"), metavar="PNG")
    arguments = parser.parse_args(argv)

    with Working("koch look: loading", in_logs=False, at_once=True) as work:
        check_output(arguments.output)
        from koch_vla.look.image import draw
        from koch_vla.up import load_chosen_rig

        rig = load_chosen_rig(arguments.rig, arguments.sim)
        work.now("koch look: listening to arms and cameras")
        if arguments.bag is None:
            from koch_vla.nodes.listen import listen

            snapshot = listen(rig, arguments.seconds, arguments.timeout)
        else:
            from koch_vla.look.from_bag import snapshot_at

            snapshot = snapshot_at(rig, arguments.bag, arguments.at, arguments.seconds)
        missing = [f"{arm}/joint_states" for arm in rig.arms if arm not in snapshot.joints]
        if arguments.bag is not None:  # a recorder keeps no arm that is no stream of the rig
            missing = [stream for stream in missing if stream in rig.streams]
        missing += [camera_stream(name) for name in rig.cameras if name not in snapshot.images]
        if not snapshot.joints and not snapshot.images:
            raise NothingHeardError(missing)
        work.now("koch look: drawing")
        draw(rig, snapshot, arguments.output)
    say(f"{arguments.output}")
    if missing:
        where = "koch up runs" if arguments.bag is None else f"{arguments.bag} was recorded"
        why = f"Is {rig.path} the rig with which {where}? Name another one with --rig."
        topics = ", ".join(f"/{stream}" for stream in missing)
        complain(f"koch look: nothing was heard on {topics}. {why}")
    return 1 if missing else 0


def check_output(path: Path) -> None:
    """Refuse a file that could not be written, before anything is listened to.

    Raises:
        OutputFileError: Its ending is no kind of image, or its folder is none.
    """
    from matplotlib.figure import Figure

    kinds = Figure().canvas.get_supported_filetypes()
    if path.suffix.lstrip(".").lower() not in kinds:
        known = ", ".join(f".{kind}" for kind in sorted(kinds))
        raise OutputFileError("-o", path, f"its ending is none of {known}")
    if path.is_dir():
        raise OutputFileError("-o", path, "it is a folder")
