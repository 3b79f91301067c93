# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Cards of datasets and checkpoints for the Hub: what their files say, and nothing else.

A licence is not in the files, so that the card has none: anyone who pushes writes a README.md of
their own into the folder, which then takes the place of this.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from koch_episodes.dataset.format import DatasetInfo

_TASKS_SHOWN = 20
_SOURCE = "Made with koch_vla for a [Koch v1.1](https://github.com/jess-moss/koch-v1-1) arm."


def dataset_card(folder: Path, info: DatasetInfo) -> str:
    """README.md of a dataset."""
    head = {
        "task_categories": ["robotics"],
        "tags": ["LeRobot", "koch", *([info.robot_type] if info.robot_type else [])],
        "configs": [{"config_name": "default", "data_files": "data/*/*.parquet"}],
    }
    seconds = info.total_frames / info.fps
    facts = {
        "robot": info.robot_type or "unknown",
        "format": f"LeRobot {info.format.name}",
        "episodes": info.total_episodes,
        "frames": f"{info.total_frames} at {info.fps} Hz, {seconds / 60:.1f} minutes",
    }
    told = _read(folder / "meta/koch.json")
    for key in ("units", "fingerprint"):
        if told.get(key):
            facts[key] = str(told[key])
    tasks = info.format.tasks(folder)
    features = [
        (f"`{key}`", spec.dtype, "x".join(map(str, spec.shape)), _names(spec.names))
        for key, spec in info.features.items()
    ]
    return _page(
        head,
        folder.name,
        _facts(facts),
        "## Tasks",
        "\n".join(f"- {task}" for task in tasks[:_TASKS_SHOWN]),
        "## Features",
        _table(("feature", "type", "shape", "elements"), features),
        "## Use",
        f"```bash\nkoch hub pull NAME --out {folder.name}\n"
        f"koch train --dataset {folder.name} --policy act --out outputs/act\n```",
    )


def model_card(folder: Path, repo: str) -> str:
    """README.md of a checkpoint."""
    config, told = _read(folder / "config.json"), _read(folder / "koch.json")
    kind = str(config.get("type", "unknown"))
    head: dict[str, Any] = {
        "library_name": "lerobot",
        "pipeline_tag": "robotics",
        "tags": ["robotics", "koch", kind],
    }
    training = told.get("training") or {}
    facts = {
        "policy": kind,
        "chunk": config.get("chunk_size") or config.get("horizon") or "unknown",
        "robot": told.get("robot_type") or "unknown",
        "units": told.get("units") or "unknown",
        "rate": f"{told['fps']:g} Hz" if told.get("fps") else "unknown",
        "fingerprint of the rig": told.get("fingerprint") or "unknown",
    }
    plain = (str, int, float)
    facts |= {key: value for key, value in training.items() if isinstance(value, plain)}
    features = [
        (f"`{key}`", str(each.get("type", "")), "x".join(map(str, each.get("shape", []))))
        for group in ("input_features", "output_features")
        for key, each in (config.get(group) or {}).items()
    ]
    tasks = told.get("tasks") or []
    return _page(
        head,
        repo.rpartition("/")[2],
        _facts(facts),
        "## Tasks",
        "\n".join(f"- {task}" for task in tasks[:_TASKS_SHOWN]) or "Not known.",
        "## Inputs and outputs",
        _table(("feature", "kind", "shape"), features),
        "## Use",
        f"```bash\nkoch hub pull {repo} --out policy\nkoch up\nkoch run --policy policy\n```",
    )


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    content = json.loads(path.read_text(encoding="utf-8"))
    return content if isinstance(content, dict) else {}


def _names(names: object) -> str:
    """Names of a feature's elements, in any of LeRobot's forms."""
    if isinstance(names, Mapping):
        names = [name for group in names.values() for name in group]
    return ", ".join(map(str, names)) if isinstance(names, list | tuple) else ""


def _facts(facts: Mapping[str, object]) -> str:
    return _table(("what", "value"), [(key, str(value)) for key, value in facts.items()])


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    cells = [[cell.replace("|", "/") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def _page(head: Mapping[str, Any], title: str, *parts: str) -> str:
    front = yaml.safe_dump(dict(head), sort_keys=False)
    return "\n\n".join([f"---\n{front}---", f"# {title}", _SOURCE, *parts]) + "\n"
