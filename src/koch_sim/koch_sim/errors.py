# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Errors of the simulated rig."""

from pathlib import Path

from koch_core.errors import KochError

_LAST_LINES = 8
_CAUSE = "koch up: "  # begins what `koch up` writes last when it fails


class SimulationError(KochError):
    """The simulated world cannot do what was asked."""


class EvaluatedGraphEndedError(SimulationError):
    """The graph that was started for rollouts is gone before they were done."""

    def __init__(self, code: int, log: Path) -> None:
        text = log.read_text(encoding="utf-8", errors="replace")
        cause = text.rpartition(f"\n{_CAUSE}" if f"\n{_CAUSE}" in text else _CAUSE)[2].strip()
        said = "\n".join(cause.splitlines()[-_LAST_LINES:]) or "It said nothing."
        super().__init__(
            f"The graph ended with exit code {code} before the rollouts did; its output is in "
            f"{log}.\n{said}"
        )


class UnreachableError(SimulationError):
    """A pose that the expert needs lies outside the arm's reach."""

    def __init__(self, what: str, xyz: tuple[float, float, float], nearest: str) -> None:
        super().__init__(
            f"{what} at x={xyz[0]:.3f} y={xyz[1]:.3f} z={xyz[2]:.3f} m is out of reach: "
            f"{nearest}. Put block and cup nearer to the arm, or narrow the randomisation's "
            "ranges."
        )
