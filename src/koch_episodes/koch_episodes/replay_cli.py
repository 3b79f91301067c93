# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch replay EPISODE`: plays a recorded episode on the follower, through its guard."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from koch_core.terminal import CommandLine, say
from koch_episodes.replay.motion import load_motion
from koch_rig.joints import JOINT_NAMES
from koch_rig.load import load_rig
from koch_rig.model import named_rig
from koch_rig.units import Units

_COUNTDOWN_S = 3
_FASTEST = 2.0


def _parser() -> argparse.ArgumentParser:
    parser = CommandLine(
        prog="koch replay",
        description="Play a recorded episode on the follower. The arm first goes slowly to the "
        "episode's first pose; its guard limits all of it. Ctrl-C: the arm holds its pose.",
    )
    parser.add_argument("path", type=Path, metavar="EPISODE", help="bag, or dataset folder")
    parser.add_argument("--episode", type=int, default=0, metavar="N", help="of a dataset")
    parser.add_argument("--arm", help="follower (default: the one that was recorded)")
    parser.add_argument(
        "--rig",
        type=Path,
        metavar="FILE",
        help="for datasets: whose calibration applies (default: $KOCH_RIG)",
    )
    parser.add_argument(
        "--units",
        choices=[unit.value for unit in Units],
        help="of a dataset (default: what it says, else lerobot)",
    )
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="X",
        help=f"0.1 to {_FASTEST:g} times the recorded speed",
    )
    parser.add_argument("--from-s", type=float, default=0.0, metavar="S", help="begin here")
    parser.add_argument("--to-s", type=float, default=float("inf"), metavar="S", help="end here")
    parser.add_argument(
        "--rate-hz",
        type=float,
        default=100.0,
        metavar="HZ",
        help="commands per second; the guard interpolates",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be played")
    parser.add_argument("-y", "--yes", action="store_true", help="no countdown")
    return parser


def _say(line: str) -> None:
    say(line)


def main(argv: list[str]) -> int:
    """Run the verb; 0 when the motion was played to its end."""
    parser = _parser()
    options = parser.parse_args(argv)
    if not 0.1 <= options.speed <= _FASTEST or not 5.0 <= options.rate_hz <= 500.0:
        parser.error(f"--speed must be 0.1 to {_FASTEST:g}, --rate-hz 5 to 500")
    rig_path = named_rig(options.rig)
    arm, motion = load_motion(
        options.path,
        arm=options.arm,
        episode=options.episode,
        rig=load_rig(rig_path) if rig_path else None,
        units=Units(options.units) if options.units else None,
        from_s=options.from_s,
        to_s=options.to_s,
    )
    _say(f"{motion.name}: {len(motion.times_s)} poses, {motion.duration_s:.1f} s, arm {arm}")
    for note in motion.notes:
        _say(f"note: {note}")
    if options.dry_run:
        return 0
    from koch_episodes.replay.nodes.player import Player

    player = Player(arm, options.rate_hz, _say)
    try:
        player.wait_for_arm()
        if sys.stdin.isatty() and not options.yes:
            for left in range(_COUNTDOWN_S, 0, -1):
                _say(f"the arm moves in {left} s (Ctrl-C stops)")
                player.pause(1.0)
        player.release_teleop()
        _say("approaching the first pose")
        player.approach(motion.at(0.0))
        _say("playing")
        tracking = player.play(motion, options.speed)
    finally:
        player.close()
    for index, joint in enumerate(JOINT_NAMES):
        rms, most = tracking.rms_rad[index], tracking.max_rad[index]
        _say(f"  {joint:<14} error rms {rms:.3f} rad, max {most:.3f} rad")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
