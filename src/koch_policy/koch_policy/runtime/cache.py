# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The folder next to a checkpoint where runtimes keep what they made of it.

    CHECKPOINT/.koch_cache/<hash>/   exported networks; the hash covers weights, config and code
    CHECKPOINT/.koch_cache/choice.json   which runtime was faster, per machine and precision

Where the checkpoint's folder cannot be written, the cache is in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import os
import platform
from pathlib import Path
from typing import Any

import torch

from koch_policy.checkpoint import WEIGHTS, Checkpoint
from koch_policy.errors import CheckpointError
from koch_policy.files import CONFIG, read_json, write_json

_FOLDER = ".koch_cache"


def cache_root(checkpoint: Checkpoint) -> Path:
    """Return the cache folder of a checkpoint, created."""
    root = checkpoint.path / _FOLDER
    try:
        root.mkdir(exist_ok=True)
        if os.access(root, os.W_OK):
            return root
    except OSError:
        root = checkpoint.path  # not writable: fall through to the user's cache folder
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    name = hashlib.sha256(str(checkpoint.path.resolve()).encode()).hexdigest()[:16]
    root = home / "koch_policy" / name
    root.mkdir(parents=True, exist_ok=True)
    return root


def export_key(checkpoint: Checkpoint, *parts: str) -> str:
    """Return the hash of everything an export depends on.

    Args:
        checkpoint: Its weights, configuration and statistics.
        parts: Versions and options of the exporter.
    """
    digest = hashlib.sha256()
    for file in (CONFIG, WEIGHTS):
        with (checkpoint.path / file).open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    for feature in sorted(checkpoint.statistics):
        for name, value in sorted(checkpoint.statistics[feature].items()):
            digest.update(f"{feature}.{name}".encode() + value.numpy().tobytes())
    modes = sorted((k, v.value) for k, v in checkpoint.config.normalization_mapping.items())
    digest.update(repr((modes, parts)).encode())
    return digest.hexdigest()[:24]


def _machine(precision: str) -> str:
    threads = torch.get_num_threads()
    return f"{platform.node()} {platform.processor()} {threads} threads {precision}"


def read_choice(checkpoint: Checkpoint, precision: str) -> str | None:
    """Return the runtime that was measured to be faster here, None when not measured."""
    path = cache_root(checkpoint) / "choice.json"
    if not path.is_file():
        return None
    try:
        entry = read_json(path).get(_machine(precision), {})
    except CheckpointError:
        return None  # a torn file is measured again
    choice = entry.get("runtime")
    return choice if choice in ("torch", "openvino") else None


def write_choice(
    checkpoint: Checkpoint, precision: str, runtime: str, times_s: dict[str, float]
) -> None:
    """Remember a measurement."""
    path = cache_root(checkpoint) / "choice.json"
    content: dict[str, Any] = read_json(path) if path.is_file() else {}
    content[_machine(precision)] = {"runtime": runtime, "seconds": times_s}
    write_json(path, content)
