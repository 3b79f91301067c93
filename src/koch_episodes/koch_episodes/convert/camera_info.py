# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Intrinsics of cameras on their way from bag to dataset and back.

A dataset of LeRobot has no place for them. `meta/koch.json` keeps what the bags' `camera_info`
says, for each camera feature, where all bags say the same. A camera that is not calibrated says
zeros; nothing is kept of it, and nothing is made up for it on the way back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from koch_core.errors import DecodeError
from koch_episodes.bag import Bag, open_bag
from koch_episodes.bag.messages import CAMERA_INFO, CameraInfo
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.mapping import FeatureMap
from koch_episodes.dataset.layout import KOCH, FeatureSpec
from koch_episodes.errors import DatasetFormatError, MessageTypeError

_KEY = "camera_info"  # of meta/koch.json
_SIZES = {"k": 9, "r": 9, "p": 12, "binning": 2, "roi": 4}


def info_topic(image_topic: str) -> str:
    """The topic of a camera's info: beside its images, as image_transport has it."""
    return f"{image_topic.removesuffix('/compressed').rpartition('/')[0]}/camera_info"


def info_topics(feature_map: FeatureMap, cameras: Iterable[str]) -> dict[str, str]:
    """Return camera feature to info topic; none where two cameras would share it."""
    wanted = set(cameras)
    features = [feature for feature in feature_map.features if feature.key in wanted]
    found = {feature.key: info_topic(feature.sources[0].topic) for feature in features}
    used = Counter(found.values())
    used.update(source.topic for feature in feature_map.features for source in feature.sources)
    return {key: topic for key, topic in found.items() if used[topic] == 1}


def infos_of_bags(
    bags: Sequence[Path], feature_map: FeatureMap, features: Mapping[str, FeatureSpec]
) -> dict[str, CameraInfo]:
    """Return the info of each calibrated camera of which all bags say the same."""
    topics = info_topics(feature_map, (key for key, spec in features.items() if spec.is_image))
    found: list[dict[str, CameraInfo]] = []
    for path in bags if topics else ():
        with open_bag(path) as bag:
            told = {key: _first_info(bag, topic) for key, topic in topics.items()}
        known = {key: info for key, info in told.items() if info is not None}
        found.append({key: info for key, info in known.items() if fits(info, features[key])})
    first = found[0] if found else {}
    return {
        key: info for key, info in first.items() if all(each.get(key) == info for each in found)
    }


def fits(info: CameraInfo, spec: FeatureSpec) -> bool:
    """Whether it tells of images of a feature's size."""
    return info.is_calibrated and (info.height, info.width) == spec.shape[:2]


def _first_info(bag: Bag, name: str) -> CameraInfo | None:
    """What a topic's first message says; None where there is none that can be read."""
    topic = bag.topics.get(name)
    if topic is None or topic.type != CAMERA_INFO:
        return None
    try:
        types = TypeDecoder()
        types.add(topic)
        for message in bag.messages([name]):
            return CameraInfo.of_message(types.decode(topic.type, message.data))
    except (MessageTypeError, DecodeError):
        return None
    return None


def to_koch(infos: Mapping[str, CameraInfo]) -> dict[str, Any]:
    """Return the entries of koch.json; none where nothing is known."""
    return {_KEY: {key: asdict(info) for key, info in infos.items()}} if infos else {}


def infos_of_dataset(
    root: Path, koch: Mapping[str, Any], features: Mapping[str, FeatureSpec]
) -> dict[str, CameraInfo]:
    """Return the info of each camera feature of which koch.json knows it.

    Raises:
        DatasetFormatError: It is damaged, or tells of images of another size.
    """
    found = {}
    for key, entry in dict(koch.get(_KEY) or {}).items():
        spec = features.get(key)
        if spec is None or not spec.is_image:
            continue  # a camera that was dropped
        info = _of_json(root, key, entry)
        if not fits(info, spec):
            got = f"camera_info of {key} for {info.width}x{info.height} px"
            raise DatasetFormatError(root / KOCH, got, f"that of images of {spec.shape}")
        found[key] = info
    return found


def _of_json(root: Path, key: str, entry: Any) -> CameraInfo:
    names = {each.name for each in fields(CameraInfo)}
    try:
        made: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in dict(entry).items()
        }
        info = CameraInfo(**{name: made[name] for name in names})
        sizes = {name: len(getattr(info, name)) for name in _SIZES}
        if sizes == _SIZES and isinstance(info.is_calibrated, bool):
            return info
    except (TypeError, ValueError, KeyError) as exc:
        raise DatasetFormatError(
            root / KOCH, f"camera_info of {key} ({exc!r})", f"all of {sorted(names)}"
        ) from exc
    raise DatasetFormatError(root / KOCH, f"camera_info of {key}: sizes {sizes}", str(_SIZES))
