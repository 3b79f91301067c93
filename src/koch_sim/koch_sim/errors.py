# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the simulated rig."""

import re
from pathlib import Path

from koch_rig.errors import KochError

_LAST_LINES = 8
# As `koch up` tells of the process that ends the graph; others may have been started anew before.
_FAILED = re.compile(
    r"^(.+?) +\| (?:ended with exit code [1-9]\d*|was ended by \w+); it stays down", re.MULTILINE
)


class SimulationError(KochError):
    """The simulated world cannot do what was asked."""


class GraphEndedError(SimulationError):
    """The graph that was started for rollouts is gone before they were done."""

    def __init__(self, code: int, log: Path) -> None:
        text = log.read_text(encoding="utf-8", errors="replace")
        # The one that failed knows why; the others' last words say only that they stopped.
        failed = _FAILED.search(text)
        lines = text.splitlines()
        if failed:
            lines = [line for line in lines if line.startswith(f"{failed[1]} ")]
        said = "\n".join(f"  {line}" for line in lines[-_LAST_LINES:])
        what = f"what {failed[1]} said" if failed else "its output"
        super().__init__(
            f"The graph ended with exit code {code} before the rollouts did. "
            f"The end of {what}, {log}:\n{said}"
        )


class UnreachableError(SimulationError):
    """A pose that the expert needs lies outside the arm's reach."""

    def __init__(self, what: str, xyz: tuple[float, float, float], error_m: float) -> None:
        super().__init__(
            f"{what} at x={xyz[0]:.3f} y={xyz[1]:.3f} z={xyz[2]:.3f} m is out of reach: the best "
            f"pose stays {error_m * 1000:.1f} mm away (allowed 2 mm). "
            f"Put block and cup nearer to the arm, or narrow the randomisation's ranges."
        )
