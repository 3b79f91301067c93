# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch inspect`: what is inside a bag or a dataset, and whether it is sound."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from koch_core.errors import KochError
from koch_core.options import OptionModel, command_line, option, parsed
from koch_core.terminal import complain


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
    validate: bool = option(False, "check every rule that LeRobot's loader relies on")

    @property
    def default_image(self) -> Path:
        """The image that is drawn where none is named."""
        return Path(f"{self.path.resolve().name}.inspect.png")


def main(argv: list[str]) -> int:
    """Run `koch inspect`; 0: sound, 1: something is wrong with it, 2: cannot be read."""
    about = "Print and draw what is inside a bag or dataset."
    parser = command_line("koch inspect", about, InspectOptions)
    options: InspectOptions = parsed(parser, argv, InspectOptions)
    try:
        # Here, because --help and a wrong word shall not wait for FFmpeg and pyarrow.
        from koch_episodes.inspect_screen import inspect_path

        image = None if options.no_png else options.png or options.default_image
        return inspect_path(
            options.path, image, episode=options.episode, validate=options.validate
        )
    except KochError as exc:
        complain(f"koch inspect: {exc}")
        return 2
    except OSError as exc:
        where = options.png or "the image in the present folder"
        complain(f"koch inspect: {where}: {exc.strerror or exc}. Name another file with -o.")
        return 1


def run() -> None:
    """Console script."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
