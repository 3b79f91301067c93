# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Does a run go on with what it was begun with? Data, statistics, split and recipe, compared.

A checkpoint holds the statistics that its weights were trained under. Data that have grown, or
others at the same path, would go on under other statistics, and episodes that were held out would
be learnt from. Nothing of that would show in the loss.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from koch_core.errors import KochError
from koch_policy.errors import CheckpointError
from koch_policy.normalize import Statistics
from koch_policy.train.config import Recipe
from koch_policy.train.data import Demonstrations

# Fields of `train` that decide about data, split, statistics or the saved state.
_FIXED = (
    "seed", "validation_fraction", "inputs", "outcomes", "parts", "image_size", "image_sizes",
    "crops",
    "imagenet_statistics", "zero_range", "angles", "ema_decay", "episodes", "weights", "freeze",
    "keep_statistics", "action_space", "lora", "teacher", "teacher_fraction", "teacher_decay",
)  # fmt: skip
_SHOWN = 12


class ResumeError(CheckpointError):
    """A run cannot go on with other data or another recipe."""

    def __init__(self, out: Path, lines: Sequence[str]) -> None:
        shown = "".join(f"\n  {line}" for line in lines[:_SHOWN])
        more = f"\n  and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        KochError.__init__(
            self,
            f"{out}: the run was begun with something else (then -> now):{shown}{more}\n"
            "Resume with what it was begun with, or start a new run from its weights: leave "
            f"--resume out, choose another --out and add --set train.pretrained_policy={out}",
        )
        self.lines = list(lines)


def data_identity(data: Demonstrations) -> dict[str, Any]:
    """Describe demonstrations for a checkpoint: plain values, digests of vectors and images."""
    return {
        "episodes": len(data.lengths),
        "frames": sum(data.lengths),
        "fps": data.fps,
        "units": data.units,
        "vectors": {key: values.shape[1] for key, values in data.vectors.items()},
        "names": {key: list(names) for key, names in data.names.items()},
        "cameras": {key: list(frames.shape) for key, frames in data.frames.items()},
        "tasks": list(data.tasks),
        "digest": _digest(data, len(data.lengths)),
        "images": _image_digests(data, len(data.lengths)),
    }


def data_differences(stored: Mapping[str, Any], data: Demonstrations) -> list[str]:
    """Compare what `data_identity` said with the data of today; readable lines."""
    now = data_identity(data)
    plain = [key for key in stored if key in now and key not in ("digest", "images")]
    lines = [
        f"dataset {key}: {stored[key]} -> {now[key]}" for key in plain if stored[key] != now[key]
    ]
    images = stored.get("images", now["images"])  # runs of older versions did not tell
    if stored.get("digest") in (None, now["digest"]) and images == now["images"]:
        return lines
    before = int(stored["episodes"])
    first_digest, first_images = now["digest"], now["images"]
    if before < len(data.lengths):
        first_digest, first_images = _digest(data, before), _image_digests(data, before)
    others = [key for key in images if first_images.get(key) not in (None, images[key])]
    lines += [f"the images of {key} in {data.name} are others" for key in others]
    if stored.get("digest") not in (None, first_digest):
        lines.append(f"the values in {data.name} are others")
    elif before < len(data.lengths) and not others:
        lines.append(f"the dataset has grown: its first {before} episodes are the same")
    return lines


def _digest(data: Demonstrations, episodes: int) -> str:
    rows = sum(data.lengths[:episodes])
    digest = hashlib.sha256(repr(data.lengths[:episodes]).encode())
    for key in sorted(data.vectors):
        digest.update(key.encode())
        digest.update(np.ascontiguousarray(data.vectors[key][:rows]).tobytes())
    digest.update(np.ascontiguousarray(data.task_index[:rows]).tobytes())
    return digest.hexdigest()


def _image_digests(data: Demonstrations, episodes: int) -> dict[str, str]:
    rows = sum(data.lengths[:episodes])
    return {key: frames.digest(rows) for key, frames in data.frames.items()}


def statistics_differences(stored: Statistics, now: Statistics) -> list[str]:
    """Compare mean, deviation and range of each feature; one line per feature that differs."""
    lines = []
    for key, measured in now.items():
        for name in ("mean", "std", "min", "max"):
            if name not in measured or name not in stored.get(key, {}):
                continue
            before, after = (np.asarray(each[key][name]).reshape(-1) for each in (stored, now))
            # Images are measured on decoded pixels, which differ between decoders.
            if before.shape != after.shape or not np.allclose(before, after, 1e-2, 1e-5):
                lines.append(f"{key} {name}: {_numbers(before)} -> {_numbers(after)}")
                break
    return lines


def recipe_differences(stored: Recipe, now: Recipe, *, everything: bool = False) -> list[str]:
    """Compare two recipes; readable lines.

    Args:
        stored: The run's.
        now: What is asked for.
        everything: Compare all fields, not only those that a run cannot change.
    """
    before, after = stored.to_dict(), now.to_dict()
    lines = []
    for group in ("policy", "augment", "train"):
        old, new = before[group], after[group]
        for key in sorted({*old, *new}):
            is_fixed = group == "policy" or key in _FIXED
            if (everything or is_fixed) and _plain(old.get(key)) != _plain(new.get(key)):
                lines.append(f"{group}.{key}: {old.get(key)!r} -> {new.get(key)!r}")
    return lines


def _plain(value: Any) -> Any:
    """Lists for tuples: JSON and YAML know no other."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _numbers(values: Any) -> str:
    shown = ", ".join(f"{value:.4g}" for value in values[:6])
    return f"[{shown}{', ...' if len(values) > 6 else ''}]"
