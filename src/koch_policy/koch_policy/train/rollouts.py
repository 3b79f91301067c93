# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Success in simulation while a policy trains: `koch eval --lockstep` on a checkpoint.

The simulation is another package and depends on this one, so it runs as the command that a person
would type. It is a process of its own: what it draws and how many threads it has do not touch the
training run.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from koch_policy.errors import ConfigError, PolicyError
from koch_policy.files import read_json

# Other seeds than `koch eval`'s own: the checkpoint that is chosen by these is judged by those.
_FIRST_SEED = 500_000


class EvaluationError(PolicyError):
    """An evaluation ended without a result."""

    def __init__(self, checkpoint: Path, code: int, log: Path) -> None:
        super().__init__(
            f"koch eval of {checkpoint} ended with code {code}; its output is in {log}. Correct "
            "it or train with train.evaluate_every=0."
        )


def require_simulation(command: Sequence[str] = ()) -> None:
    """Raise ConfigError where there is nothing to evaluate with."""
    if not command and importlib.util.find_spec("koch_sim") is None:
        raise ConfigError(
            "train", "evaluate_every", "a number of steps", "0, as koch_sim is not installed",
            "Add it with `./koch setup`.",
        )  # fmt: skip


def success_rate(
    checkpoint: Path, out: Path, rollouts: int, rig: Path | None, command: Sequence[str] = ()
) -> float:
    """Let a checkpoint try the simulated task; return the part of rollouts that succeeded.

    Args:
        checkpoint: Folder of the policy.
        out: Where the report goes, `eval.json` and a log.
        rollouts: How many, on seeds that are the same at every step.
        rig: Rig file; None for the simulated rig that is shipped.
        command: In place of `koch eval`.

    Raises:
        EvaluationError: It failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    words = [*(command or (sys.executable, "-m", "koch_vla", "eval"))]
    words += ["--lockstep", "--policy", str(checkpoint), "--rollouts", str(rollouts)]
    words += ["--seed", str(_FIRST_SEED), "--out", str(out)]
    words += [] if rig is None else ["--rig", str(rig)]
    log = out / "eval.log"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode or not (out / "eval.json").is_file():
        raise EvaluationError(checkpoint, done.returncode, log)
    report = read_json(out / "eval.json")
    return float(report["successes"]) / float(report["rollouts"])
