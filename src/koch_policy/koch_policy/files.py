# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Where a checkpoint is, and files and folders that are written atomically; without torch."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from koch_core.files import write_atomically
from koch_policy.errors import CheckpointError, PickleRefusedError

CONFIG = "config.json"
RECIPE = "koch_train_config.json"  # what our training was told; beside config.json
SCHEMES = ("tcp://", "tls://")
PICKLE_SUFFIXES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")


@contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling folder and put it in the place of `path` on success."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        old = path.with_name(f".{path.name}.old")
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: Path, content: Any) -> None:
    """Write JSON, indented by four, atomically."""
    write_atomically(path, json.dumps(content, indent=4) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: The file is absent or holds no JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as exc:
        raise CheckpointError(path, f"not readable as JSON ({exc})", "Copy it again.") from exc
    if not isinstance(content, dict):
        raise CheckpointError(path, "not a JSON object", "Copy it again.")
    return content


def resolve_checkpoint(path: Path) -> Path:
    """Return the folder that holds config.json: the path itself or where training put it.

    Raises:
        CheckpointError: There is none.
        PickleRefusedError: The path is a pickled file.
    """
    path = Path(path)
    if path.is_file():
        refuse_pickle(path)
        raise CheckpointError(path, "this is a file", "Name the folder that holds config.json.")
    for inner in ("", "pretrained_model", "checkpoints/last/pretrained_model"):
        if (path / inner / CONFIG).is_file():
            return path / inner
    what = "no config.json here" if path.is_dir() else "no such folder"
    raise CheckpointError(
        path, what, "Name a checkpoint folder, or a training output that has checkpoints/last."
    )


def is_hub_name(text: str) -> bool:
    """Whether this may be a name on the Hugging Face Hub, such as lerobot/smolvla_base."""
    return re.fullmatch(r"[\w.-]*\w/[\w.-]*\w", text) is not None


def is_address(text: str) -> bool:
    """Whether this names a policy server, such as tcp://gpu-box:8766."""
    return text.startswith(SCHEMES)


def refuse_pickle(path: Path) -> None:
    """Refuse a file that runs code when it is read.

    Raises:
        PickleRefusedError: It is one.
    """
    with path.open("rb") as file:
        start = file.read(4)
    if path.suffix in PICKLE_SUFFIXES or start.startswith(_PICKLE_STARTS):
        raise PickleRefusedError(path)
