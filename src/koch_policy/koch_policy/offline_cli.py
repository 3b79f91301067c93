# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch run --policy DIR --replay PATH`: what a policy would have done in a recording."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from koch_core.errors import KochError
from koch_core.terminal import say
from koch_episodes.bag.reader import is_bag
from koch_episodes.dataset import load_info
from koch_episodes.dataset.recorded import plain_name
from koch_policy.chunks import StrategyKind
from koch_policy.chunks.guided import predict_continuing
from koch_policy.chunks.strategies import chosen_execution
from koch_policy.configs import ACTION
from koch_policy.errors import UnknownKeysError
from koch_policy.execution.compatibility import (
    Actions,
    MismatchError,
    PlainActions,
    action_layout,
    check_policy,
    policy_actions,
    policy_units,
)
from koch_policy.execution.inference import plain_predict
from koch_policy.offline import Tick, plot, replay
from koch_policy.policy import Policy
from koch_policy.recordings import bag_ticks, dataset_ticks
from koch_policy.run_options import RunOptions
from koch_policy.runtime import load_policy
from koch_rig.action_layout import ACTION_SPACES
from koch_rig.joints import joint_of
from koch_rig.load import load_rig
from koch_rig.units import Units, joint_units

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


@dataclass(frozen=True, eq=False)
class _Recording:
    """What is replayed.

    Attributes:
        ticks: Observations and actions.
        fps: Ticks per second.
        actions: What the policy's chunks mean, in `unit`.
        names: Of the action's elements.
        unit: In which actions are compared.
    """

    ticks: Iterator[Tick]
    fps: float
    actions: Actions
    names: tuple[str, ...]
    unit: str


def _bag(path: Path, options: RunOptions, policy: Policy, rig_path: Path) -> _Recording:
    """A bag holds joint states in [rad]: the rig says what the policy sees of them."""
    rig = load_rig(rig_path)
    units = joint_units(rig)
    layout = action_layout(policy, rig)
    ticks = bag_ticks(path, rig, policy, units)
    actions = policy_actions(policy, rig, units, layout)
    return _Recording(ticks, float(rig.fps), actions, layout.names, "rad")


def _dataset(path: Path, options: RunOptions, policy: Policy, rig_path: Path) -> _Recording:
    """A dataset needs no rig: what it holds is what the policy learnt from.

    Actions are compared in [rad] where that is known, which a person can judge better.
    """
    width = policy.config.action_dim
    named = policy.extras.joints or policy.extras.names.get(ACTION)
    named = named or [f"{ACTION}.{index}" for index in range(width)]
    names = tuple(plain_name(name) for name in named)
    to_rad = _to_rad(policy, names, rig_path, is_asked=options.rig is not None)
    unit = "rad" if to_rad is not None else "dataset units"
    convert = to_rad or (lambda values: np.asarray(values, np.float64))
    ticks = dataset_ticks(path, options.episode, policy, convert)
    fps = float(load_info(path).fps)
    actions: Actions = PlainActions(convert)
    if ACTION_SPACES[policy.extras.action_space].needs_state:
        rig = load_rig(rig_path)
        layout = action_layout(policy, rig)
        check_policy(policy, rig, str(options.policy), allow=True)
        actions = policy_actions(policy, rig, joint_units(rig, layout.arms), layout)
        if to_rad is None:
            raise MismatchError(policy.config.type, rig, ["actions: not in the rig's joints"])
    return _Recording(ticks, fps, actions, names, unit)


def _to_rad(
    policy: Policy, names: tuple[str, ...], rig_path: Path, *, is_asked: bool
) -> Callable[[NDArray[Any]], NDArray[np.float64]] | None:
    """How a policy's actions become [rad]; None where they are no joints of a rig at hand."""
    units = policy_units(policy)
    if not all(map(joint_of, names)):
        return None
    if units is Units.RADIANS:
        return lambda values: np.asarray(values, np.float64)
    try:
        rig = load_rig(rig_path)
        layout = action_layout(policy, rig)
        if names != layout.names:
            line = f"action: names are {', '.join(names)}; the rig's are {', '.join(layout.names)}"
            raise MismatchError(policy.config.type, rig, [line])
        return partial(layout.to_rad, joint_units(rig, layout.arms), units)
    except KochError:
        if is_asked:
            raise
        return None  # the default rig is not the one of this dataset, or not calibrated


def replay_command(options: RunOptions, rig_path: Path) -> int:
    """`koch run --policy DIR --replay PATH`."""
    path, checkpoint = options.replay, options.policy
    assert path is not None  # both hold: RunOptions
    assert checkpoint is not None
    chosen = replay_settings(options.settings)
    execution_steps = int(chosen.pop("execution_steps", 0))
    policy = load_policy(checkpoint, options.runtime, full_horizon=True, **chosen)
    kind, _ = chosen_execution(options.strategy, 0, policy.config, policy.extras)
    recording = (_bag if is_bag(path) else _dataset)(path, options, policy, rig_path)
    predict = predict_continuing if kind is StrategyKind.RTC else plain_predict
    result = replay(
        policy, recording.ticks, fps=recording.fps, actions=recording.actions, kind=kind,
        predict=predict, execution_steps=execution_steps, names=recording.names,
        unit=recording.unit,
    )  # fmt: skip
    summary = result.errors()
    delays = sorted(result.delays_s) or [0.0]
    where = options.plot or Path("replay.png")
    plot(result, where, f"{options.policy} on {options.replay}, {kind.value}")
    say(f"{len(result.recorded)} ticks, {len(result.seams)} chunks, {result.refusals} refusals")
    say(str(summary))
    say(
        f"inference p50 {1e3 * delays[len(delays) // 2]:.1f} ms, "
        f"p95 {1e3 * delays[int(0.95 * (len(delays) - 1))]:.1f} ms ({policy.runtime})"
    )
    say(f"plot: {where}")
    if options.json is not None:
        figures = {**summary.to_dict(), "delays_s": result.delays_s, "seams": result.seams}
        options.json.write_text(json.dumps(figures) + "\n", encoding="utf-8")
    return 0
