# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch look`: what a person would look at in RViz, as one PNG; from live topics or a bag."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_core.working import Working
from koch_rig.stream import camera_stream
from koch_ros.shared_options import RIG
from koch_vla.errors import NothingHeardError, OutputFileError

__all__ = ["main"]


@dataclass(frozen=True, kw_only=True)
class LookOptions(OptionModel):
    """What `koch look` is asked for."""

    bag: Path | None = option(None, "bag or episode; live topics without", flags=("bag",))
    rig: Path | None = same_as(RIG, None, text="rig file")
    sim: bool = option(False, "use config/rig.sim.yaml")
    at: float | None = option(None, "moment of the bag (default: end)", metavar="S")
    seconds: float = option(3.0, "length of the TCP path", low=0.0)
    timeout: float = option(5.0, "wait longer for missing ones", low=0.0)
    output: Path = option(
        Path("look.png"), "image to write", flags=("--output", "-o"), metavar="PNG"
    )


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when an arm or a camera of the rig was not heard."""
    about = "Draw robot, frames, camera views and TCP path as one PNG."
    options = from_command_line(LookOptions, "koch look", about, argv)

    with Working("koch look: loading", in_logs=False, at_once=True) as work:
        check_output(options.output)
        from koch_vla.look.image import draw
        from koch_vla.up import load_chosen_rig

        rig = load_chosen_rig(options.rig, options.sim)
        work.now("koch look: listening to arms and cameras")
        if options.bag is None:
            from koch_vla.nodes.listen import listen

            snapshot = listen(rig, options.seconds, options.timeout)
        else:
            from koch_vla.look.from_bag import snapshot_at

            snapshot = snapshot_at(rig, options.bag, options.at, options.seconds)
        missing = [f"{arm}/joint_states" for arm in rig.arms if arm not in snapshot.joints]
        if options.bag is not None:  # a recorder keeps no arm that is no stream of the rig
            missing = [stream for stream in missing if stream in rig.streams]
        missing += [camera_stream(name) for name in rig.cameras if name not in snapshot.images]
        if not snapshot.joints and not snapshot.images:
            raise NothingHeardError(missing)
        work.now("koch look: drawing")
        draw(rig, snapshot, options.output)
    say(f"{options.output}")
    if missing:
        where = "koch up runs" if options.bag is None else f"{options.bag} was recorded"
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
