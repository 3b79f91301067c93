# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""koch.json: what a checkpoint says beyond LeRobot's files (which ignore it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from koch_policy.errors import CheckpointError, UnknownKeysError
from koch_policy.files import read_json, write_json

METADATA = "koch.json"
_FORMAT = 1


@dataclass(frozen=True)
class CheckpointMetadata:
    """Where a policy comes from and what its vectors mean.

    Attributes:
        fingerprint: Fingerprint of the rig that made the dataset, empty when unknown.
        rig: What the fingerprint covers (koch_rig.fingerprint.canonical), to explain a difference.
        names: {feature: names of its elements, in order}.
        units: Units of states and actions in the dataset ("lerobot", "degrees", "radians").
        fps: Steps per second of the actions, 0 when unknown.
        robot_type: The dataset's robot type.
        tasks: Task texts of the dataset; their order is the index of learned embeddings.
        parts: {feature: dataset keys that it joins}, for vectors put together from several.
        crops: {camera feature: box that is cut out of its images}, before their size is changed:
            left, top, width, height as fractions of the image.
        angles: {feature: {element: period}}: elements that the network sees as sine and cosine.
        action_space: In which space its actions are; see `koch_rig.action_space`.
        joints: Names in the dataset of the joints that actions of another space than `joint` move.
        execution: How its chunks are best executed, where the run does not say: `strategy`,
            `execution_steps`, and `draws`, over whose mean an iterative policy decides.
        training: Step, dataset, validation figures and the like, for people.
        runtime: Hints for runtimes, for example the measured choice.
    """

    fingerprint: str = ""
    rig: Mapping[str, Any] = field(default_factory=dict)
    names: Mapping[str, list[str]] = field(default_factory=dict)
    units: str = ""
    fps: float = 0.0
    robot_type: str = ""
    tasks: list[str] = field(default_factory=list)
    parts: Mapping[str, list[str]] = field(default_factory=dict)
    crops: Mapping[str, list[float]] = field(default_factory=dict)
    angles: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    action_space: str = "joint"
    joints: list[str] = field(default_factory=list)
    execution: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    runtime: Mapping[str, Any] = field(default_factory=dict)


def write_metadata(folder: Path, metadata: CheckpointMetadata) -> None:
    """Write koch.json into a checkpoint folder."""
    write_json(folder / METADATA, {"format": _FORMAT, **asdict(metadata)})


def read_metadata(folder: Path) -> CheckpointMetadata:
    """Read koch.json; a folder without it (LeRobot's own) gives empty metadata.

    Raises:
        CheckpointError: It has another format, or an entry of another kind.
        UnknownKeysError: It holds keys that we do not know.
    """
    path = folder / METADATA
    if not path.is_file():
        return CheckpointMetadata()
    return metadata_from(read_json(path), path)


def metadata_from(content: Mapping[str, Any], where: Path | str) -> CheckpointMetadata:
    """Check the content of koch.json; `where` names it in errors.

    Raises:
        CheckpointError: It has another format, or an entry of another kind.
        UnknownKeysError: It holds keys that we do not know.
    """
    path = Path(where)
    known = {entry.name for entry in fields(CheckpointMetadata)}
    unknown = set(content) - known - {"format"}
    if unknown:
        raise UnknownKeysError(str(path), unknown, known)
    if content.get("format") != _FORMAT:
        raise CheckpointError(
            path,
            f"has format {content.get('format')!r}, expected {_FORMAT}",
            "Update koch_policy.",
        )
    mappings = ("rig", "names", "parts", "crops", "angles", "execution", "training", "runtime")
    for key in mappings:
        if not isinstance(content.get(key, {}), dict):
            raise CheckpointError(
                path, f"`{key}` is {content[key]!r}, no mapping", "Copy it again."
            )
    for key in ("names", "parts"):
        for feature, names in content.get(key, {}).items():
            if not isinstance(names, list):
                raise CheckpointError(
                    path, f"`{key}.{feature}` is {names!r}, no list of names", "Copy it again."
                )
    for feature, box in content.get("crops", {}).items():
        if not is_crop(box):
            raise CheckpointError(
                path, f"`crops.{feature}` is {box!r}, no box in an image", "Copy it again."
            )
    return CheckpointMetadata(**{key: value for key, value in content.items() if key in known})


def is_crop(box: object) -> bool:
    """Say whether a value is left, top, width, height of a box inside an image, as fractions."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return False
    if not all(isinstance(value, int | float) and 0.0 <= value <= 1.0 for value in box):
        return False
    left, top, width, height = box
    inside = left + width <= 1.0 + 1e-9 and top + height <= 1.0 + 1e-9
    return bool(width > 0.0 and height > 0.0 and inside)
