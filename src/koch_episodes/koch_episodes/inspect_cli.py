# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch inspect`: what is inside a bag or a dataset, and whether it is sound."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from koch_core.command_line import from_command_line
from koch_core.errors import KochError
from koch_core.options import OptionModel, option
from koch_core.terminal import complain, say
from koch_episodes.dataset.selection import NUMBERS_OR_EXPRESSION


@dataclass(frozen=True, kw_only=True)
class InspectOptions(OptionModel):
    """What `koch inspect` is asked for."""

    path: Path = option(..., "bag or dataset", flags=("path",), metavar="BAG|DATASET")
    png: Path | None = option(
        None,
        "image to draw (default: NAME.inspect.png in the present folder)",
        flags=("--png", "-o"),
    )
    no_png: bool = option(False, "print only")
    episode: int = option(0, "dataset episode to draw")
    episodes: str | None = option(
        None, f"of a dataset list these only, and draw the first: {NUMBERS_OR_EXPRESSION}",
        metavar="EPISODES",
    )  # fmt: skip
    validate: bool = option(False, "check every rule that LeRobot's loader relies on")
    latency: bool = option(
        False, "of a bag with a policy's run: the way of its goals from camera to bus, by stage"
    )

    rerun: Path | None = option(
        None, "write the episode for the Rerun viewer as well", metavar="FILE.rrd"
    )

    @property
    def default_image(self) -> Path:
        """The image that is drawn where none is named."""
        return Path(f"{self.path.resolve().name}.inspect.png")


def main(argv: list[str]) -> int:
    """Run `koch inspect`; 0: sound, 1: something is wrong with it, 2: cannot be read."""
    about = "Print and draw what is inside a bag or dataset."
    options = from_command_line(InspectOptions, "koch inspect", about, argv)
    try:
        # Here, because --help and a wrong word shall not wait for FFmpeg and pyarrow.
        from koch_episodes.inspect_screen import inspect_latency, inspect_path

        image = None if options.no_png else options.png or options.default_image
        if options.rerun is not None:
            from koch_episodes.rerun_export import export_rerun

            export_rerun(options.path, options.rerun, episode=options.episode)
            say(f"written to {options.rerun}; `rerun {options.rerun}` shows it")
        if options.latency:
            return inspect_latency(options.path, image)
        return inspect_path(
            options.path,
            image,
            episode=options.episode,
            episodes=options.episodes,
            validate=options.validate,
        )
    except KochError as exc:
        complain(f"koch inspect: {exc}")
        return 2
    except OSError as exc:
        where = options.rerun or options.png or "the image in the present folder"
        complain(f"koch inspect: {where}: {exc.strerror or exc}. Name another file.")
        return 1


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
