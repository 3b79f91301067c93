# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What all LeRobot datasets have in common: features, the index columns, names of files."""

from __future__ import annotations

import enum
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from koch_episodes.errors import DatasetFormatError

CHUNKS_SIZE = 1000


class Version(str, enum.Enum):
    """The formats of this package by name; those of others have a name only."""

    V30 = "v3.0"
    V21 = "v2.1"


class Codec(enum.Enum):
    """How images are stored."""

    H264 = "h264"
    AV1 = "av1"
    COPY = "copy"  # the camera's own MJPEG packets


@dataclass(frozen=True)
class FeatureSpec:
    """One feature of info.json.

    Attributes:
        dtype: NumPy dtype name, ``string``, ``image`` or ``video``.
        shape: Per-frame shape; scalars are (1,), images (H, W, 3).
        names: One name per element, the axes of an image, or None.
        info: Video facts of a camera feature.
        channels_first: Whether info.json declares an image as (3, H, W). openpi's converter and
            others do; LeRobot takes both for the same, and so the order here is always H, W, 3.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] | None = None
    info: Mapping[str, Any] | None = field(default=None, compare=False)
    channels_first: bool = field(default=False, compare=False)

    @property
    def is_video(self) -> bool:
        """Whether the feature lives in mp4 files."""
        return self.dtype == "video"

    @property
    def is_image(self) -> bool:
        """Whether the feature is a camera image, in mp4 or parquet."""
        return self.dtype in ("video", "image")

    @property
    def is_depth(self) -> bool:
        """Whether the images are depth maps, as LeRobot 0.6 stores them; none is decoded here."""
        told = self.info or {}
        return self.is_image and bool(told.get("is_depth_map") or told.get("video.is_depth_map"))

    @property
    def is_numeric(self) -> bool:
        """Whether the feature is a column of numbers."""
        return self.dtype not in ("video", "image", "string", "language")

    def to_json(self) -> dict[str, Any]:
        """Return the info.json entry, a foreign order of axes as it was."""
        shape, names = list(self.shape), None if self.names is None else list(self.names)
        if self.channels_first:
            shape = [shape[-1], *shape[:-1]]
            names = [names[-1], *names[:-1]] if names else names
        entry: dict[str, Any] = {"dtype": self.dtype, "shape": shape, "names": names}
        if self.info is not None:
            entry["info"] = dict(self.info)
        return entry


DEFAULT_FEATURES: Mapping[str, FeatureSpec] = {
    "timestamp": FeatureSpec("float32", (1,)),
    "frame_index": FeatureSpec("int64", (1,)),
    "episode_index": FeatureSpec("int64", (1,)),
    "index": FeatureSpec("int64", (1,)),
    "task_index": FeatureSpec("int64", (1,)),
}

INFO = "meta/info.json"
KOCH = "meta/koch.json"
REPORT = "meta/koch_report.json"
KOCH_LEVELS = "meta/koch_levels.json"  # counts of pixel values by camera, for a later --append


def data_files(root: Path) -> list[Path]:
    """List the frame tables as LeRobot does."""
    return sorted((root / "data").glob("*/*.parquet"))


def read_json(path: Path, kind: type[Any] = dict) -> Any:
    """Read a JSON file that holds an object, or a list where `kind` is that.

    Raises:
        DatasetFormatError: Not there, not JSON, or of another kind.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise DatasetFormatError(path, f"unreadable file ({exc})", "JSON") from exc
    if not isinstance(found, kind):
        raise DatasetFormatError(path, type(found).__name__, f"a JSON {kind.__name__}")
    return found


def _names(value: Any) -> tuple[str, ...] | None:
    """Flatten the forms `names` takes in datasets of all ages."""
    if isinstance(value, Mapping):
        flat = [name for part in value.values() for name in (_names(part) or ())]
        return tuple(flat) or None
    if isinstance(value, list):
        return tuple(str(name) for name in value)
    return None


def parse_feature(key: str, entry: Any, where: Path) -> FeatureSpec:
    """Read one feature entry.

    Raises:
        DatasetFormatError: dtype or shape is missing or of the wrong kind.
    """
    if not isinstance(entry, Mapping) or not isinstance(entry.get("dtype"), str):
        raise DatasetFormatError(where, f"feature {key!r}: {entry!r}", "an object with a dtype")
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) for n in shape):
        raise DatasetFormatError(where, f"feature {key!r}: shape {shape!r}", "a list of integers")
    info, names = entry.get("info") or entry.get("video_info"), _names(entry.get("names"))
    spec = FeatureSpec(entry["dtype"], tuple(shape), names, info)
    if not spec.is_image or not _channels_first(spec):
        return spec
    names = (*names[1:], names[0]) if names else names
    return replace(spec, shape=(*shape[1:], shape[0]), names=names, channels_first=True)


def _channels_first(spec: FeatureSpec) -> bool:
    """Tell whether an image is declared as (3, H, W): its names decide, without them its sizes."""
    if len(spec.shape) != 3:
        return False
    if spec.names is not None and len(spec.names) == 3:
        named = [name in ("channel", "channels", "c") for name in spec.names]
        if any(named):
            return named[0]
    channels = (1, 3, 4)
    return spec.shape[0] in channels and spec.shape[2] not in channels
