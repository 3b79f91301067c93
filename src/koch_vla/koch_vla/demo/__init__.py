# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch demo`: the whole loop without hardware, in one command."""

from __future__ import annotations

import argparse
import fcntl
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from koch_core.terminal import CommandLine, complain, say
from koch_core.working import Working
from koch_policy.models.registry import known_policies, preset_files
from koch_vla.demo.step import SMALL_PRESET, DemoContext, DemoSettings, DemoStep, run_steps
from koch_vla.errors import DemoError, GraphError

__all__ = ["main"]

EPISODES, VISION_EPISODES = 20, 50  # what is to be seen takes more examples than what is known
ENOUGH = 0.8  # share of rollouts that is called a success


def steps() -> list[DemoStep]:
    """The demo's steps; their modules are imported here, when they are needed."""
    from koch_vla.demo.drive import drive
    from koch_vla.demo.images import images
    from koch_vla.demo.learn import convert, train, validate
    from koch_vla.demo.record import record
    from koch_vla.demo.rollouts import rollouts

    variant = ("policy", "vision")
    return [
        DemoStep("drive", "Two emulated arms: the follower follows the leader", drive),
        DemoStep(
            "record", "Recording demonstrations", record, ("rig", "episodes", "seed", "vision")
        ),
        DemoStep("images", "Drawing an episode", images),
        DemoStep("convert", "Converting into a LeRobot dataset", convert),
        DemoStep("validate", "Validating the dataset", validate),
        DemoStep("train", "Training the policy", train, variant),
        DemoStep("rollouts", "Running the policy", rollouts, ("rollouts",)),
    ]


def policies() -> list[str]:
    """The policies with a preset for so few demonstrations."""
    presets = preset_files()
    return [name for name in known_policies() if f"{name}-{SMALL_PRESET}" in presets]


def parse(argv: list[str]) -> argparse.Namespace:
    """Parse the arguments."""
    parser = CommandLine(
        prog="koch demo",
        description="The whole loop without hardware: record, convert, train, run, report. "
        "Interrupted and started again, it goes on where it was.",
    )
    parser.add_argument(
        "--episodes",
        type=int,
        metavar="N",
        help=f"demonstrations to record (default: {EPISODES}, with --vision {VISION_EPISODES})",
    )
    parser.add_argument("--rollouts", type=int, default=10, help="runs of the trained policy")
    parser.add_argument("--policy", choices=policies(), default="act")
    sight = parser.add_mutually_exclusive_group()
    sight.add_argument(
        "--vision", action="store_true", help="see the cameras only (twice as long)"
    )
    sight.add_argument(
        "--quick", dest="vision", action="store_false", help="know the true poses (the default)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo"), metavar="DIR")
    parser.add_argument("--rig", type=Path, metavar="FILE", help="default: config/rig.sim.yaml")
    parser.add_argument(
        "--speed",
        type=float,
        default=1.0,
        metavar="X",
        help="simulated seconds per second: below 1 for a busy machine, above 1 for a fast one",
    )
    parser.add_argument("--fresh", action="store_true", help="forget what an earlier demo did")
    arguments = parser.parse_args(argv)
    if arguments.episodes is None:
        arguments.episodes = VISION_EPISODES if arguments.vision else EPISODES
    for name in ("episodes", "rollouts"):
        if getattr(arguments, name) < 1:
            raise GraphError(f"--{name} {getattr(arguments, name)}: expected 1 or more.")
    if not 0.05 <= arguments.speed <= 20.0:
        raise GraphError(f"--speed {arguments.speed:g}: expected 0.05 to 20.")
    return arguments


@contextmanager
def isolated() -> Iterator[None]:
    """Keep the demo's topics and ports away from a real robot on the same network.

    The run folder is new each time: it remembers what keeps arms still, and a demo that was killed
    would leave behind that its arms were held. No later demo's follower would then move.
    """
    os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
    os.environ.setdefault("ROS_DOMAIN_ID", "42")
    with TemporaryDirectory(prefix="koch_demo_") as folder:
        os.environ["KOCH_RUN_DIR"] = folder
        yield


def check_rig(path: Path) -> None:
    """Refuse a rig that has no simulated table.

    Raises:
        KochError: The rig file is wrong, or its world is not MuJoCo's.
    """
    from koch_rig.load import load_rig

    if not load_rig(path).has_simulated_table:
        raise GraphError(
            f"--rig {path}: got a rig without a simulated table, expected `simulation: {{physics: "
            "mujoco}`, as in config/rig.sim.yaml. The demo never moves real arms."
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold a demo's folder for one process.

    Raises:
        DemoError: Another demo works in it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DemoError(
                f"another koch demo works in {folder}. Wait for it, or choose --folder."
            ) from error
        yield


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when the policy succeeds too rarely."""
    arguments = parse(argv)
    from koch_vla.paths import default_rig

    settings = DemoSettings(
        folder=arguments.folder.resolve(),
        rig=default_rig(arguments.rig, sim=True),
        episodes=arguments.episodes,
        rollouts=arguments.rollouts,
        policy=arguments.policy,
        vision=arguments.vision,
        seed=arguments.seed,
        speed=arguments.speed,
    )
    check_rig(settings.rig)
    if arguments.fresh and (settings.folder / "steps").is_dir():  # a demo's folder, no other
        shutil.rmtree(settings.folder)
    try:
        with (
            alone(settings.folder),
            isolated(),
            Working("koch demo", in_logs=False) as work,
        ):
            context = DemoContext(settings, partial(work.say, stream=sys.stdout), work.now)
            run_steps(steps(), context)
    except KeyboardInterrupt:
        complain("\nkoch demo: interrupted; the same command goes on from here")
        return 130
    from koch_vla.demo.report import report

    context.say = say  # the line of the sign of life is gone
    report(context)
    rollouts = context.results["rollouts"]
    return 0 if rollouts["successes"] >= ENOUGH * rollouts["rollouts"] else 1
