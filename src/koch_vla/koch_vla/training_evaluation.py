# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What `koch train` measures success with: `koch eval --lockstep`, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

from koch_policy.train.rollouts import EVALUATIONS, EvaluationError

# Other seeds than `koch eval`'s own: the checkpoint that is chosen by these is judged by those.
_FIRST_SEED = 500_000


def evaluate(checkpoint: Path, out: Path, rollouts: int, rig: Path | None) -> float:
    """Return the part of simulated rollouts in which a checkpoint succeeded.

    Raises:
        EvaluationError: It failed.
    """
    out.mkdir(parents=True, exist_ok=True)
    words = [sys.executable, "-m", "koch_vla", "eval", "--lockstep", "--policy", str(checkpoint)]
    words += ["--rollouts", str(rollouts), "--seed", str(_FIRST_SEED), "--out", str(out)]
    words += [] if rig is None else ["--rig", str(rig)]
    log, report = out / "eval.log", out / "eval.json"
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode or not report.is_file():
        raise EvaluationError(checkpoint, f"ended with code {done.returncode}", log)
    found = json.loads(report.read_text(encoding="utf-8"))
    return float(found["successes"]) / float(found["rollouts"])


if importlib.util.find_spec("koch_sim") is not None:
    EVALUATIONS.add(evaluate, "lockstep")
