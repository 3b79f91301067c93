# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Demo step: the trained policy drives the simulated arm through node, guard and driver."""

from __future__ import annotations

from koch_core.busy import busy_words
from koch_vla.demo.learn import training_folder
from koch_vla.demo.step import DemoContext, Results
from koch_vla.learning_steps import CHECKPOINT, evaluate

# Far from the seeds of the demonstrations: the policy has not seen these tables.
SEED_OFFSET = 500_000


def rollouts(context: DemoContext) -> Results:
    """Run the rollouts and read what `koch eval` found.

    Raises:
        StepError: The evaluation failed, or wrote no result.
    """
    settings = context.settings
    name = f"rollouts_{settings.variant}_{settings.episodes}_{settings.rollouts}"
    words = ["--rig", str(settings.rig)]
    words += ["--policy", str(training_folder(settings) / CHECKPOINT)]
    words += ["-n", str(settings.rollouts), "--seed", str(SEED_OFFSET + settings.seed)]
    # Not faster than this machine could record.
    recorded = context.results.get("record", {})
    speed = min(settings.speed, recorded.get("speed", settings.speed))
    words += settings.scene("held-out")  # in words that no demonstration used
    words += ["--lockstep"] if recorded.get("lockstep") else ["--speed", f"{speed:g}"]
    log = settings.folder / "logs" / f"{name}.log"
    results = evaluate(settings.folder / name, words, log, context.say)
    block = "named block" if settings.language else "block"
    text = "{successes} of {rollouts} rollouts put the " + block + " into the cup"
    void = len(results.get("void", []))
    apart = f"; {void} more were void, the streams were late. {busy_words()}" if void else ""
    context.say(f"      {text.format(**results)}{apart}".rstrip())
    return results
