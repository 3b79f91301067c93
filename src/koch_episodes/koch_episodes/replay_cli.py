# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch replay EPISODE`: plays a recorded episode on the follower, through its guard."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from koch_core.command_line import from_command_line
from koch_core.options import OptionModel, option, same_as
from koch_core.terminal import say
from koch_core.working import Working
from koch_episodes.replay.motion import Motion, load_motion
from koch_rig.load import load_rig
from koch_rig.model import named_rig
from koch_rig.units import Units
from koch_ros.shared_options import RIG

if TYPE_CHECKING:
    from koch_episodes.replay.nodes.player import Tracking

_COUNTDOWN_S = 3


@dataclass(frozen=True, kw_only=True)
class ReplayOptions(OptionModel):
    """What `koch replay` is asked for."""

    path: Path = option(..., "bag, or dataset folder", flags=("path",), metavar="EPISODE")
    episode: int = option(0, "of a dataset", low=0, metavar="N")
    episodes: str | None = option(
        None, "of a dataset, in place of --episode: an expression that selects one, like "
        "\"source == 'blocks' and index == 3\"", metavar="EPISODES",
    )  # fmt: skip
    arm: str | None = option(None, "follower (default: the one that was recorded)")
    rig: Path | None = same_as(
        RIG, None, text="for datasets: whose calibration applies (default: $KOCH_RIG)"
    )
    units: Units | None = option(None, "of a dataset (default: what it says, else lerobot)")
    speed: float = option(1.0, "0.1 to 2 times the recorded speed", low=0.1, high=2.0, metavar="X")
    from_s: float = option(0.0, "begin here", metavar="S")
    to_s: float = option(math.inf, "end here (default: at the end)", metavar="S")
    rate_hz: float = option(
        100.0, "commands per second; the guard interpolates", low=5.0, high=500.0, metavar="HZ"
    )
    dry_run: bool = option(False, "say what would be played")
    yes: bool = option(False, "no countdown", flags=("--yes", "-y"))


def main(argv: list[str]) -> int:
    """Run the subcommand; 0 when the motion was played to its end."""
    options = from_command_line(
        ReplayOptions,
        "koch replay",
        "Play a recorded episode on the follower. The arm first goes slowly to the episode's "
        "first pose; its guard limits all of it. Ctrl-C: the arm holds its pose.",
        argv,
    )
    rig_path = named_rig(options.rig)
    arm, motion = load_motion(
        options.path,
        arm=options.arm,
        episode=options.episode if options.episodes is None else options.episodes,
        rig=load_rig(rig_path) if rig_path else None,
        units=options.units,
        from_s=options.from_s,
        to_s=options.to_s,
    )
    say(f"{motion.name}: {len(motion.times_s)} poses, {motion.duration_s:.1f} s, arm {arm}")
    for note in motion.notes:
        say(f"note: {note}")
    if options.dry_run:
        return 0
    tracking = _play(arm, motion, options)
    for index, joint in enumerate(motion.joints):
        rms, most = tracking.rms_rad[index], tracking.max_rad[index]
        say(f"  {joint:<14} error rms {rms:.3f} rad, max {most:.3f} rad")
    return 0


def _play(arm: str, motion: Motion, options: ReplayOptions) -> Tracking:
    """Count down, go to the first pose and play; the arm holds its pose at the end."""
    from koch_episodes.replay.nodes.player import Player

    with Working("koch replay: looking for the arm") as work:
        player = Player(arm, motion.joints, options.rate_hz, work.say)
        try:
            player.wait_for_arm()
            if sys.stdin.isatty() and not options.yes:
                for left in range(_COUNTDOWN_S, 0, -1):
                    work.say(f"the arm moves in {left} s (Ctrl-C stops)")
                    player.pause(1.0)
            player.release_teleop()
            work.now("koch replay: approaching the first pose")
            player.approach(motion.at(0.0))
            work.now(f"koch replay: playing {motion.duration_s / options.speed:.1f} s")
            return player.play(motion, options.speed)
        finally:
            player.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
