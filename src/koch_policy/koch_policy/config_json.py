# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's config.json to our configurations and back.

Written files hold only keys that LeRobot 0.4.0 knows (it refuses unknown ones); keys added later
are written only where their value is not the default.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

from koch_core.options import Option, WrongValue, fitted
from koch_policy.configs import FeatureType, NormalizationMode, PolicyConfig, PolicyFeature
from koch_policy.errors import CheckpointError, ConfigError, UnknownKeysError
from koch_policy.models.registry import policy_kind

# Fields of LeRobot's base class and hardware hints: read past, they change no output.
_IGNORED = {
    "type", "device", "use_amp", "use_peft", "push_to_hub", "repo_id", "private", "tags",
    "license", "pretrained_path", "pretrained_revision", "pretrained_backbone_weights",
    "compile_model", "compile_mode", "gradient_checkpointing",
}  # fmt: skip
_BASE = {
    "device": "cpu", "use_amp": False, "push_to_hub": False, "repo_id": None, "private": None,
    "tags": None, "license": None,
}  # fmt: skip
# Added by LeRobot 0.4.4, or defaulted differently there than in 0.4.0 (crop_shape is written).
_NEW_KEYS = {"resize_shape", "crop_ratio"}
# LeRobot's ACT reads no task: its loader refuses a file that holds these, and names them.
_OWN_KEYS = {"task_encoder", "task_dim"}


_ANY = Option("any value of its type: each configuration checks its own ranges")


def read_config(path: Path) -> PolicyConfig:
    """Read config.json.

    Raises:
        CheckpointError: The file is absent or not JSON.
        UnknownPolicyError: Its type is not one of ours.
        UnknownKeysError: It holds keys that we do not know.
        ConfigError: A value is not valid.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise CheckpointError(
            path, "no such file", "A checkpoint folder holds config.json."
        ) from exc
    except (ValueError, OSError) as exc:
        raise CheckpointError(
            path, f"not readable as JSON ({exc})", "Copy the file again."
        ) from exc
    if not isinstance(content, dict):
        raise CheckpointError(path, "not a JSON object", "Copy the file again.")
    return config_from_dict(content, str(path))


def config_from_dict(content: Mapping[str, Any], where: str) -> PolicyConfig:
    """Build the configuration from the content of config.json; `where` names it in errors."""
    kind = policy_kind(str(content.get("type")), where).config
    known: dict[str, Field[Any]] = {field.name: field for field in fields(kind)}
    unknown = set(content) - set(known) - _IGNORED
    if unknown:
        raise UnknownKeysError(where, unknown, set(known) | _IGNORED)
    _refuse_ambiguous(kind, content, where)
    kinds = get_type_hints(kind)
    values: dict[str, Any] = {}
    for name, field in known.items():
        if name not in content:
            continue
        value = content[name]
        read = _MAPPINGS.get(name)
        if read is None:
            values[name] = _plain_value(value, kinds[name], field, where)
        elif isinstance(value, Mapping):
            values[name] = {k: read(k, v, f"{where}: {name}.{k}") for k, v in value.items()}
        else:
            raise ConfigError(where, name, value, "a mapping")
    for name in ("input_features", "output_features"):
        if name not in values:
            raise ConfigError(where, name, None, "the features of the policy")
    return kind(**values)


def _refuse_ambiguous(kind: type[PolicyConfig], content: Mapping[str, Any], where: str) -> None:
    absent = sorted(set(kind.lerobot_ambiguous) - set(content))
    if absent:
        raise ConfigError(
            where,
            absent[0],
            None,
            "a value",
            "LeRobot 0.6 changed its default, so a file without it has two meanings; add the "
            "value the checkpoint was trained with.",
        )


def _feature(_key: str, value: Any, where: str) -> PolicyFeature:
    try:
        if not isinstance(value["shape"], list | tuple):
            raise TypeError(value["shape"])
        return PolicyFeature(FeatureType(value["type"]), tuple(int(n) for n in value["shape"]))
    except (KeyError, TypeError, ValueError) as exc:
        raise ConfigError(where, "feature", value, '{"type": ..., "shape": [...]}') from exc


def _mode(key: str, value: Any, where: str) -> NormalizationMode:
    kinds = [kind.value for kind in FeatureType]
    if key not in kinds:
        raise ConfigError(where, "feature type", key, f"one of {', '.join(kinds)}")
    try:
        return NormalizationMode(value)
    except ValueError as exc:
        choices = ", ".join(mode.value for mode in NormalizationMode)
        raise ConfigError(where, "mode", value, f"one of {choices}") from exc


_MAPPINGS = {
    "input_features": _feature,
    "output_features": _feature,
    "normalization_mapping": _mode,
}


def _plain_value(value: Any, kind: Any, field: Field[Any], where: str) -> Any:
    """Check a JSON value against the type of a field."""
    if kind is bool and value in (0, 1):
        # LeRobot calls ACT's replace_final_stride_with_dilation an int: what it has read and
        # written again (a resumed or fine-tuned policy) says 0.
        return bool(value)
    try:
        return fitted(kind, value, _ANY)
    except WrongValue as wrong:
        expected = annotation = str(field.type).replace(" | None", "")
        if isinstance(wrong.got, float):
            expected = wrong.expected
        elif wrong.key:  # an element of a list
            expected = annotation.removeprefix("tuple[").partition(",")[0]
        elif annotation.startswith("tuple"):
            expected = f"a list ({annotation})"
        raise ConfigError(where, field.name, wrong.got, expected) from wrong


def config_to_dict(config: PolicyConfig) -> dict[str, Any]:
    """Return the content of config.json for a configuration."""
    content: dict[str, Any] = {"type": config.type}
    names = [field.name for field in fields(config)]
    lead = ["n_obs_steps", "input_features", "output_features"]
    for name in lead + [name for name in names if name not in lead]:
        if name == "n_action_steps" or name not in content:
            content[name] = _plain(getattr(config, name))
        if name == "output_features":
            content.update(_BASE)
    defaults = {field.name: field.default for field in fields(config)}
    for name in (_NEW_KEYS | _OWN_KEYS) & set(content):
        if content[name] == defaults[name] and defaults[name] is not MISSING:
            del content[name]
    if "vision_backbone" in content:
        # LeRobot's default would fetch ImageNet weights first, which fails offline.
        content["pretrained_backbone_weights"] = None
    if content.get("resize_shape") is not None:
        # The crop follows from the ratio there too; a written one would be a second truth.
        content["crop_shape"] = None
    return content


def _plain(value: Any) -> Any:
    if isinstance(value, PolicyFeature):
        return {"type": value.type.value, "shape": list(value.shape)}
    if isinstance(value, NormalizationMode):
        return value.value
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return list(value) if isinstance(value, tuple) else value
