# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in LeRobot's folder layout, read strictly and written for LeRobot 0.4 and later.

    config.json, model.safetensors, policy_preprocessor.json, policy_postprocessor.json and the
    two safetensors files of statistics they name; koch.json holds what is ours alone.

Checkpoints of LeRobot 0.3, whose statistics are among the weights, are read too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from koch_policy.angles import expanded_width
from koch_policy.config_json import config_to_dict, read_config
from koch_policy.configs import PolicyConfig, PolicyFeature
from koch_policy.errors import CheckpointError, PickleRefusedError, WeightsMismatchError
from koch_policy.files import (
    CONFIG,
    PICKLE_SUFFIXES,
    RECIPE,
    read_json,
    refuse_pickle,
    resolve_checkpoint,
    write_folder,
    write_json,
)
from koch_policy.metadata import (
    METADATA,
    CheckpointMetadata,
    read_metadata,
    write_metadata,
)
from koch_policy.models.registry import build_model, policy_model
from koch_policy.normalize import Normalizer, Statistics, ZeroRange
from koch_policy.processors import (
    PREPROCESSOR,
    Processors,
    read_processors,
    statistics_in_weights,
    write_processors,
)

WEIGHTS = "model.safetensors"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A loaded checkpoint: network (evaluation mode, float32, CPU), scaling, our metadata."""

    path: Path
    config: PolicyConfig
    model: nn.Module
    normalizer: Normalizer
    statistics: Statistics
    rename_map: dict[str, str]
    extras: CheckpointMetadata


def load_checkpoint(path: Path | str, *, zero_range: ZeroRange | None = None) -> Checkpoint:
    """Read a checkpoint.

    Args:
        path: Its folder, or a training output.
        zero_range: What to do with features that never moved in training; None: what was done
            there, where our training wrote it, else they are refused.

    Raises:
        CheckpointError: A file is missing, truncated or not what it should be.
        PickleRefusedError: The weights are pickled.
        WeightsMismatchError: Keys or shapes of the weights do not fit config.json.
        StatisticsError: Statistics are missing or have zero range.
        ConfigError, UnknownKeysError, UnknownPolicyError: config.json is not valid.
    """
    folder = resolve_checkpoint(Path(path))
    config = read_config(folder / CONFIG)
    tensors = _uncompiled(read_tensors(folder / WEIGHTS))
    if (folder / PREPROCESSOR).is_file():
        processors = read_processors(folder, config)
    else:
        tensors, processors = statistics_in_weights(folder, config, tensors)
    model = _built(config, folder / CONFIG)
    load_weights(model, tensors, folder / WEIGHTS)
    model.eval()
    features = {**config.input_features, **config.output_features}
    normalizer = Normalizer(
        features,
        processors.modes,
        processors.statistics,
        where=str(folder),
        zero_range=zero_range or _trained_zero_range(folder),
    )
    metadata = read_metadata(folder)
    _require_same_meaning(folder, metadata, processors, features)
    return Checkpoint(
        path=folder,
        config=config,
        model=model,
        normalizer=normalizer,
        statistics=processors.statistics,
        rename_map=processors.rename_map,
        extras=metadata,
    )


def _require_same_meaning(
    folder: Path,
    metadata: CheckpointMetadata,
    processors: Processors,
    features: Mapping[str, PolicyFeature],
) -> None:
    """Raise CheckpointError where koch.json says another thing than the files beside it."""
    if metadata.action_space != processors.action_space:
        raise CheckpointError(
            folder / METADATA,
            f"`action_space` is {metadata.action_space!r}, in the post-processor "
            f"{processors.action_space!r}",
            "Copy the whole checkpoint folder.",
        )
    for key, names in metadata.names.items():
        width = expanded_width(names, metadata.angles.get(key, {}))
        if key in features and width != features[key].shape[0]:
            raise CheckpointError(
                folder / METADATA,
                f"`names.{key}` has {len(names)} names, the feature has {features[key].shape}",
                "Copy the whole checkpoint folder.",
            )


def _trained_zero_range(folder: Path) -> ZeroRange:
    """What training did with features that never moved: its recipe is beside the weights."""
    recipe = read_json(folder / RECIPE) if (folder / RECIPE).is_file() else {}
    group = recipe.get("train")
    said = group.get("zero_range") if isinstance(group, dict) else None
    return ZeroRange.CONSTANT if said == ZeroRange.CONSTANT.value else ZeroRange.REFUSE


def save_checkpoint(
    path: Path | str,
    config: PolicyConfig,
    model: nn.Module,
    statistics: Statistics,
    extras: CheckpointMetadata | None = None,
) -> None:
    """Write a checkpoint folder atomically (temporary folder, then rename)."""
    tensors = policy_tensors(model)
    with write_folder(Path(path)) as folder:
        write_json(folder / CONFIG, config_to_dict(config))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        extras = extras or CheckpointMetadata()
        modes = config.normalization_mapping
        write_processors(folder, config, Processors(modes, statistics, {}, extras.action_space))
        write_metadata(folder, extras)


def policy_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return a network's weights on the CPU under the names that checkpoints use."""
    prefix = policy_model(model).state_dict_prefix
    return {
        prefix + key: value.detach().to("cpu").contiguous().clone()
        for key, value in model.state_dict().items()
    }


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; anything else is refused."""
    if not path.is_file():
        for other in sorted(path.parent.iterdir()) if path.parent.is_dir() else []:
            if other.suffix in PICKLE_SUFFIXES:
                raise PickleRefusedError(other)
        if (path.parent / "adapter_model.safetensors").is_file():
            raise CheckpointError(
                path, "no such file: this is a PEFT adapter (`use_peft`)", "Merge it with LeRobot."
            )
        raise CheckpointError(path, "no such file", "Copy the whole checkpoint folder.")
    refuse_pickle(path)
    try:
        return load_file(path)
    except SafetensorError as exc:
        raise CheckpointError(
            path,
            f"not a whole safetensors file ({exc})",
            "Copy it again: it is cut off or damaged.",
        ) from exc


def _built(config: PolicyConfig, path: Path) -> nn.Module:
    """Build the network; sizes that no memory holds are the configuration's fault."""
    try:
        return build_model(config)
    except (RuntimeError, MemoryError) as exc:
        reason = str(exc).partition("\n")[0]
        raise CheckpointError(
            path, f"describes a network that cannot be built ({reason})", "Check its sizes."
        ) from exc


def _uncompiled(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights under plain names: torch.compile (`compile_model`) puts one of its own in."""
    return {key.replace("._orig_mod.", "."): value for key, value in tensors.items()}


def load_weights(model: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Put weights into a network, strictly.

    Raises:
        WeightsMismatchError: A key is missing, unexpected or has another shape.
        CheckpointError: A weight is NaN or infinite.
    """
    prefix = policy_model(model).state_dict_prefix
    expected = {prefix + key: value for key, value in model.state_dict().items()}
    missing = expected.keys() - tensors.keys()
    unexpected = tensors.keys() - expected.keys()
    shapes = [
        f"{key} is {tuple(tensors[key].shape)}, expected {tuple(value.shape)}"
        for key, value in expected.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    if missing or unexpected or shapes:
        raise WeightsMismatchError(path, missing, unexpected, shapes)
    for key, value in tensors.items():
        if value.is_floating_point() != expected[key].is_floating_point():
            raise CheckpointError(
                path, f"{key} is {value.dtype}, expected {expected[key].dtype}", "Copy it again."
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise CheckpointError(path, f"{key} holds NaN or infinity", "The training diverged.")
    own = {key: tensors[prefix + key].to(value.dtype) for key, value in model.state_dict().items()}
    model.load_state_dict(own)
