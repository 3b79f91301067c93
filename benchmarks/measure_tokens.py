# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What tokens cost: their number per chunk and the error of what comes back, on a dataset.

    python benchmarks/measure_tokens.py DATASET --rig config/rig.sim.yaml

Tokenizers are learned from nine tenths of the episodes and measured on the others.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from koch_policy.configs import ACTION
from koch_policy.models.tokens import ActionTokenizer, UniformBins, fit_fast
from koch_policy.normalize import normalizer_for
from koch_policy.train.config import load_recipe
from koch_policy.train.data import Windows, split_episodes
from koch_policy.train.degrees import degrees_per_unit
from koch_policy.train.setup import dataset_statistics, policy_config
from koch_policy.train.source import open_demonstrations

_FITTED, _MEASURED = 2000, 400


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--rig", type=Path, help="gives degrees; else dataset units")
    parser.add_argument("--steps", type=int, default=30, help="of a chunk")
    parser.add_argument("--vocabulary", type=int, default=512)
    return parser.parse_args()


def main() -> None:
    """Print one line per tokenizer."""
    options = arguments()
    sizes = {"chunk_size": options.steps, "n_action_steps": options.steps}
    recipe = load_recipe("fast", "tiny").with_overrides({"policy": sizes}, "bench")
    data = open_demonstrations(options.dataset, recipe.train)
    data, degrees = degrees_per_unit(data, None, options.rig)
    unit = "degrees" if np.isfinite(degrees).any() else "dataset units"
    factor = degrees if np.isfinite(degrees).any() else np.ones_like(degrees)
    config = policy_config(data, recipe)
    normalizer = normalizer_for(config, dataset_statistics(data, recipe), where=data.name)
    learn, check = split_episodes(len(data.lengths), 0.1, recipe.train.seed)

    def chunks(episodes: list[int], count: int) -> torch.Tensor:
        windows = Windows(data, config, episodes)
        rows = windows.rows()
        picked = rows[np.linspace(0, len(rows) - 1, min(count, len(rows))).astype(int)]
        return windows.actions(picked)[ACTION]

    true = chunks(check, _MEASURED)
    fitted = normalizer.normalize(ACTION, chunks(learn, _FITTED)).numpy()

    def report(name: str, tokenizer: ActionTokenizer) -> None:
        numbers = [tokenizer.numbers(each) for each in normalizer.normalize(ACTION, true).numpy()]
        counts = np.array([len(row) for row in tokenizer.tokens(numbers)])
        values = np.stack([tokenizer.values(each, *true.shape[1:]) for each in numbers])
        back = normalizer.restore(ACTION, torch.from_numpy(values)).numpy()
        error = np.abs(back - true.numpy()) * factor
        mean, high, most = np.nanmean(error), np.nanpercentile(error, 99), np.nanmax(error)
        print(
            f"{name:14s} {tokenizer.vocabulary:5d} tokens; per chunk of {options.steps}: "
            f"{counts.mean():.1f}, at most {counts.max()}; "
            f"error mean {mean:.3f} p99 {high:.3f} max {most:.3f} {unit}, N = {len(true)}"
        )

    report("bins", UniformBins(256))
    for scale in (10.0, 20.0, 40.0):
        name = f"FAST, scale {scale:g}"
        report(name, fit_fast(list(fitted), scale=scale, vocabulary=options.vocabulary))


if __name__ == "__main__":
    main()
