# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch run --policy DIR --replay PATH`: what a policy would have done in a recording."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from koch_episodes.bag.reader import is_bag
from koch_policy.chunks import StrategyKind
from koch_policy.chunks.guided import predict_continuing
from koch_policy.chunks.strategies import strategy_kind
from koch_policy.errors import UnknownKeysError
from koch_policy.execution.compatibility import policy_units
from koch_policy.execution.inference import plain_predict
from koch_policy.offline import plot, replay
from koch_policy.recordings import bag_ticks, dataset_ticks
from koch_policy.runtime import load_policy
from koch_rig.calibration import load_calibration
from koch_rig.load import load_rig
from koch_rig.units import JointUnits

_SETTINGS = ("precision", "device", "calibration", "execution_steps")


def replay_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Return the NAME=VALUE pairs of --set, all of which mean something without a node.

    Raises:
        UnknownKeysError: Another one is given.
    """
    pairs = [setting.partition("=") for setting in settings]
    found = {name: yaml.safe_load(value) for name, _, value in pairs}
    unknown = set(found) - set(_SETTINGS)
    if unknown:
        raise UnknownKeysError("--set with --replay", unknown, _SETTINGS)
    return found


def replay_command(options: argparse.Namespace, rig_path: Path) -> int:
    """`koch run --policy DIR --replay PATH`."""
    rig = load_rig(rig_path)
    units = {
        name: JointUnits(arm, load_calibration(arm.calibration_path))
        for name, arm in rig.arms.items()
    }
    chosen = replay_settings(options.settings)
    execution_steps = int(chosen.pop("execution_steps", 0))
    policy = load_policy(options.policy, options.runtime, full_horizon=True, **chosen)
    to_rad = partial(units[rig.follower.name].to_rad, policy_units(policy))
    kind = strategy_kind(options.strategy, policy.config)
    if is_bag(options.replay):
        ticks, fps = bag_ticks(options.replay, rig, policy, units), float(rig.fps)
    else:
        ticks = dataset_ticks(options.replay, options.episode, policy, to_rad)
        fps = policy.extras.fps or float(rig.fps)
    predict = predict_continuing if kind is StrategyKind.RTC else plain_predict
    result = replay(
        policy, ticks, fps=fps, to_rad=to_rad, kind=kind, predict=predict,
        execution_steps=execution_steps,
    )  # fmt: skip
    summary = result.errors()
    delays = sorted(result.delays_s) or [0.0]
    where = options.plot or Path("replay.png")
    plot(result, where, f"{options.policy} on {options.replay}, {kind.value}")
    print(f"{len(result.recorded)} ticks, {len(result.seams)} chunks, {result.refusals} refusals")
    print(summary)
    print(
        f"inference p50 {1e3 * delays[len(delays) // 2]:.1f} ms, "
        f"p95 {1e3 * delays[int(0.95 * (len(delays) - 1))]:.1f} ms ({policy.runtime})"
    )
    print(f"plot: {where}")
    if options.json is not None:
        figures = {**summary.to_dict(), "delays_s": result.delays_s, "seams": result.seams}
        options.json.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    return 0
