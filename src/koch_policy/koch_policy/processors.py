# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's processor files: which features are scaled how, and with which statistics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from koch_policy.configs import ACTION, NormalizationMode, PolicyConfig, PolicyFeature
from koch_policy.errors import CheckpointError, StatisticsError
from koch_policy.files import read_json, write_json
from koch_policy.normalize import EPS, Statistics

PREPROCESSOR = "policy_preprocessor.json"
POSTPROCESSOR = "policy_postprocessor.json"
_STATE_FILES = {
    PREPROCESSOR: "policy_preprocessor_step_3_normalizer_processor.safetensors",
    POSTPROCESSOR: "policy_postprocessor_step_0_unnormalizer_processor.safetensors",
}
_PASSIVE = {"to_batch_processor", "device_processor"}
_SPACE = "koch_action_space"
_SINGLE = {"float32", "float", None}
_OLD_PREFIXES = ("normalize_inputs.", "normalize_targets.", "unnormalize_outputs.")


@dataclass(frozen=True, eq=False)
class Processors:
    """What the two pipelines amount to.

    A space of actions other than `joint` is a last step of the post-processor that LeRobot has
    not, so that it refuses by name what it would take for joints.
    """

    modes: Mapping[str, NormalizationMode]
    statistics: Statistics
    rename_map: dict[str, str]
    action_space: str = "joint"


def _steps(path: Path) -> list[dict[str, Any]]:
    steps = read_json(path).get("steps")
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise CheckpointError(path, "has no list `steps`", "Copy the file again.")
    for step in steps:
        if step.get("registry_name") == "device_processor":
            kind = (step.get("config") or {}).get("float_dtype")
            if kind not in _SINGLE:
                raise _unlike_ours(path, "float_dtype", kind, "float32")
    return steps


def _statistics(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read `<feature>.<statistic>` tensors."""
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as exc:
        raise CheckpointError(
            path, f"not a whole safetensors file ({exc})", "Copy the checkpoint folder again."
        ) from exc
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        feature, _, name = key.rpartition(".")
        found.setdefault(feature, {})[name] = value.float()
    return found


def read_processors(folder: Path, config: PolicyConfig) -> Processors:
    """Read both pipelines; actions are scaled back with the post-processor's statistics.

    Raises:
        CheckpointError: A step is none that ACT and Diffusion pipelines have, does something that
            ours does not, is missing or there twice; or a file is bad.
        StatisticsError: The two files disagree about the actions.
    """
    rename: dict[str, str] = {}
    path = folder / PREPROCESSOR
    steps = _steps(path)
    for step in steps:
        if step.get("registry_name") == "rename_observations_processor":
            rename |= _renames(path, _options(path, step))
        elif step.get("registry_name") not in {*_PASSIVE, "normalizer_processor"}:
            raise _foreign_step(path, step)
    scaling = _only(path, steps, "normalizer_processor")
    modes = _modes(_options(path, scaling), path)
    _require_described(_options(path, scaling), config.input_features, path)
    statistics = _load_state(folder, scaling)

    path = folder / POSTPROCESSOR
    steps = _steps(path)
    for step in steps:
        if step.get("registry_name") not in {*_PASSIVE, "unnormalizer_processor", _SPACE}:
            raise _foreign_step(path, step)
    spaces = [_options(path, step) for step in steps if step.get("registry_name") == _SPACE]
    scaling = _only(path, steps, "unnormalizer_processor")
    options = _options(path, scaling)
    back = _modes(options, path).get("ACTION", NormalizationMode.IDENTITY)
    into = modes.get("ACTION", NormalizationMode.IDENTITY)
    if back is not into:
        raise _unlike_ours(path, "norm_map.ACTION", back.value, f"{into.value}, as {PREPROCESSOR}")
    restored = _load_state(folder, scaling).get(ACTION, {})
    _require_same_action(folder, statistics.get(ACTION, {}), restored)
    statistics[ACTION] = restored
    space = str(spaces[0].get("space")) if spaces else "joint"
    return Processors(modes, statistics, rename, space)


def _only(path: Path, steps: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Return the one step of a name, which must be there once."""
    found = [step for step in steps if step.get("registry_name") == name]
    if len(found) != 1:
        raise CheckpointError(
            path, f"has {len(found)} steps {name!r}, expected 1", "Copy the file again."
        )
    return found[0]


def _options(path: Path, step: dict[str, Any]) -> dict[str, Any]:
    """Return a step's configuration; what would change values in a way of its own is refused."""
    options: dict[str, Any] = step.get("config") or {}
    if not isinstance(options, dict):
        raise CheckpointError(path, f"`config` is {options!r}, no mapping", "Copy it again.")
    if options.get("eps", EPS) != EPS:
        raise _unlike_ours(path, "eps", options["eps"], str(EPS))
    if options.get("normalize_observation_keys") is not None:
        keys = options["normalize_observation_keys"]
        raise _unlike_ours(path, "normalize_observation_keys", keys, "all observations")
    return options


def _renames(path: Path, options: dict[str, Any]) -> dict[str, str]:
    """Return the map of a renaming step, {name outside: name inside}."""
    found: dict[str, str] = options.get("rename_map") or {}
    if not isinstance(found, dict) or not all(isinstance(new, str) for new in found.values()):
        raise CheckpointError(
            path, f"`rename_map` is {found!r}, no mapping of names", "Copy the file again."
        )
    return found


def _require_described(
    options: Mapping[str, Any], features: Mapping[str, PolicyFeature], path: Path
) -> None:
    """Refuse a normaliser that knows a feature as another type than config.json, or not at all."""
    described = options.get("features")
    if described is None:
        return
    if not isinstance(described, dict):
        raise CheckpointError(path, f"`features` is {described!r}, no mapping", "Copy it again.")
    for key, feature in features.items():
        kind = (described.get(key) or {}).get("type")
        if kind != feature.type.value:
            expected = f"{feature.type.value}, as config.json has it"
            raise _unlike_ours(path, f"features.{key}.type", kind, expected)


def _unlike_ours(path: Path, option: str, got: object, expected: str) -> CheckpointError:
    return CheckpointError(
        path,
        f"`{option}` is {got!r}, expected {expected}",
        'Run this policy with runtime="lerobot" where LeRobot is installed.',
    )


def _foreign_step(path: Path, step: dict[str, Any]) -> CheckpointError:
    name = step.get("registry_name") or step.get("class")
    return CheckpointError(
        path,
        f"step {name!r} is none of ours",
        'Run this policy with runtime="lerobot" where LeRobot is installed.',
    )


def _load_state(folder: Path, step: dict[str, Any]) -> dict[str, dict[str, Tensor]]:
    name = step.get("state_file")
    if name is None:
        return {}
    if not isinstance(name, str) or Path(name).name != name:
        raise CheckpointError(folder, f"state file {name!r} lies outside", "Do not use this file.")
    return _statistics(folder / name)


def _modes(options: dict[str, Any], path: Path) -> dict[str, NormalizationMode]:
    try:
        return {k: NormalizationMode(v) for k, v in options.get("norm_map", {}).items()}
    except (ValueError, AttributeError) as exc:
        raise CheckpointError(
            path, f"unknown normalisation ({exc})", "Copy the file again."
        ) from exc


def _require_same_action(
    folder: Path, into: Mapping[str, Tensor], back: Mapping[str, Tensor]
) -> None:
    for name in into.keys() & back.keys():
        if not into[name].equal(back[name]):
            raise StatisticsError(
                str(folder),
                ACTION,
                f"differ in {name!r} between the pre- and the post-processor",
                "The files come from different trainings; copy the folder again.",
            )


def statistics_in_weights(
    folder: Path, config: PolicyConfig, tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], Processors]:
    """Split the weights of LeRobot 0.3 into the network's own and the statistics.

    There the dots of a feature's name became underscores, so names are matched to the features of
    config.json instead of being turned back (a camera may be called `wrist_left`).
    """
    features: dict[str, PolicyFeature] = {**config.input_features, **config.output_features}
    by_buffer = {"buffer_" + key.replace(".", "_"): key for key in features}
    statistics: dict[str, dict[str, Tensor]] = {}
    own: dict[str, Tensor] = {}
    for key, value in tensors.items():
        if not key.startswith(_OLD_PREFIXES):
            own[key] = value
            continue
        _, buffer, name = key.split(".")
        if buffer not in by_buffer:
            raise CheckpointError(
                folder, f"{key} belongs to no feature of config.json", "Copy the folder again."
            )
        statistics.setdefault(by_buffer[buffer], {})[name] = value.float()
    scaled = [
        config.normalization_mapping.get(feature.type.value) for feature in features.values()
    ]
    if len(own) == len(tensors) and set(scaled) - {None, NormalizationMode.IDENTITY}:
        raise CheckpointError(
            folder,
            f"no {PREPROCESSOR} and no statistics among the weights",
            "Copy the whole checkpoint folder.",
        )
    return own, Processors(config.normalization_mapping, statistics, {})


def write_processors(folder: Path, config: PolicyConfig, processors: Processors) -> None:
    """Write both JSON files and their statistics."""
    tensors = {
        f"{feature}.{name}": value.float().contiguous().clone()
        for feature, values in processors.statistics.items()
        for name, value in values.items()
    }
    modes = {key: mode.value for key, mode in processors.modes.items()}
    everything = {**config.input_features, **config.output_features}
    device = {
        "registry_name": "device_processor",
        "config": {"device": "cpu", "float_dtype": None},
    }

    def scaling(registry_name: str, features: Mapping[str, PolicyFeature], file: str) -> Any:
        described = {
            key: {"type": feature.type.value, "shape": list(feature.shape)}
            for key, feature in features.items()
        }
        options = {"eps": EPS, "features": described, "norm_map": modes}
        return {"registry_name": registry_name, "config": options, "state_file": file}

    before = [
        {
            "registry_name": "rename_observations_processor",
            "config": {"rename_map": processors.rename_map},
        },
        {"registry_name": "to_batch_processor", "config": {}},
        device,
        scaling("normalizer_processor", everything, _STATE_FILES[PREPROCESSOR]),
    ]
    after = [
        scaling("unnormalizer_processor", config.output_features, _STATE_FILES[POSTPROCESSOR]),
        device,
    ]
    if processors.action_space != "joint":
        after.append({"registry_name": _SPACE, "config": {"space": processors.action_space}})
    write_json(folder / PREPROCESSOR, {"name": "policy_preprocessor", "steps": before})
    write_json(folder / POSTPROCESSOR, {"name": "policy_postprocessor", "steps": after})
    for file in _STATE_FILES.values():
        save_file(tensors, folder / file)
