# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch demo`: the whole loop without hardware, in one command."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from koch_core.command_line import from_command_line
from koch_core.options import OptionError, OptionModel, option, same_as
from koch_core.terminal import complain, say
from koch_core.working import Working
from koch_policy.models.registry import known_policies, preset_files
from koch_ros.shared_options import RIG, WORLD_SPEED
from koch_vla.demo.step import (
    LANGUAGE_PRESET,
    SMALL_PRESET,
    VISION_PRESET,
    DemoContext,
    DemoSettings,
    DemoStep,
)
from koch_vla.errors import GraphError
from koch_vla.steps import alone, run_steps

__all__ = ["main"]

# Demonstrations and rollouts. What is to be seen takes more examples than what is known.
USUAL_SEEING, USUAL_KNOWING, USUAL_TOLD = (100, 20), (20, 10), (150, 30)
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


def policies(*presets: str) -> list[str]:
    """The policies that have one of these presets, which suit so few demonstrations."""
    files = preset_files()
    return [n for n in known_policies() if any(f"{n}-{preset}" in files for preset in presets)]


@dataclass(frozen=True, kw_only=True)
class DemoOptions(OptionModel):
    """What `koch demo` is asked for."""

    episodes: int | None = option(
        None,
        f"demonstrations to record (default: {USUAL_SEEING[0]}, with --quick {USUAL_KNOWING[0]}, "
        f"with --language {USUAL_TOLD[0]})",
        low=1,
        metavar="N",
    )
    rollouts: int | None = option(
        None,
        f"runs of the policy (default: {USUAL_SEEING[1]}, with --quick {USUAL_KNOWING[1]}, "
        f"with --language {USUAL_TOLD[1]})",
        low=1,
        metavar="N",
    )
    policy: str = option(
        "act", "what is trained", choices=tuple(policies(SMALL_PRESET, VISION_PRESET))
    )
    vision: bool = option(False, "see the cameras only (the default)")
    quick: bool = option(False, "know the true poses of block and cup instead: half the time")
    language: bool = option(
        False,
        "be told by a sentence which of three blocks to take; the report shows each sentence",
    )
    seed: int = option(0, "of the world and the training")
    folder: Path = option(Path("outputs/demo"), "everything goes there", metavar="DIR")
    rig: Path | None = same_as(RIG, None, text="default: config/rig.sim.yaml")
    speed: float = same_as(WORLD_SPEED, 1.0)
    fresh: bool = option(False, "forget what an earlier demo did")

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            OptionError: One means nothing, or two contradict each other.
        """
        super().__post_init__()
        for name in ("vision", "language"):
            if self.quick and getattr(self, name):
                raise OptionError("--quick", f"--{name} beside it", "one of the two")
        preset, beside = VISION_PRESET, "without --quick"
        if self.quick:
            preset, beside = SMALL_PRESET, "with --quick"
        elif self.language:
            preset, beside = LANGUAGE_PRESET, "with --language"
        able = policies(preset)
        if self.policy not in able:
            raise OptionError("--policy", f"{self.policy} {beside}", " or ".join(able))


def parse(argv: list[str]) -> DemoOptions:
    """Parse the arguments."""
    return from_command_line(
        DemoOptions,
        "koch demo",
        "The whole loop without hardware: record, convert, train, run, report. "
        "Interrupted and started again, it goes on where it was.",
        argv,
    )


def settings_of(options: DemoOptions) -> DemoSettings:
    """What the steps work with."""
    from koch_vla.paths import default_rig

    episodes, rollouts = USUAL_KNOWING if options.quick else USUAL_SEEING
    folder = options.folder.resolve()
    if options.language:  # other episodes: they are not to be mixed with those of one block
        episodes, rollouts = USUAL_TOLD
        folder = folder / "language"
    return DemoSettings(
        folder=folder,
        rig=default_rig(options.rig, sim=True),
        episodes=options.episodes or episodes,
        rollouts=options.rollouts or rollouts,
        policy=options.policy,
        vision=not options.quick,
        language=options.language,
        seed=options.seed,
        speed=options.speed,
    )


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


def main(argv: list[str]) -> int:
    """Run the subcommand; 1 when the policy succeeds too rarely."""
    options = parse(argv)
    settings = settings_of(options)
    check_rig(settings.rig)
    if options.fresh and (settings.folder / "steps").is_dir():  # a demo's folder, no other
        shutil.rmtree(settings.folder)
    try:
        with (
            alone(settings.folder, "koch demo"),
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
