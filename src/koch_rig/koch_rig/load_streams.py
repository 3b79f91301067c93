# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The parts of the rig file that name streams: `streams` and `features`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from koch_rig.rig import Arm, Camera, Feature
from koch_rig.section import Section, ShownValue, closest
from koch_rig.stream import (
    JOINT_STREAMS,
    Stream,
    StreamKind,
    camera_stream,
    content_of,
    names_camera,
    topic_of,
)

_STREAM_NAME = re.compile(r"^[a-z][a-z0-9_]*(/[a-z][a-z0-9_]*)+$")
_FEATURE_KEY = re.compile(r"^(observation|action)(\.[a-z][a-z0-9_]*)*$")
_IMAGE_PREFIX = "observation.images."

DEFAULT_JOINT_AGE_S = 0.05
DEFAULT_OTHER_AGE_S = 0.1
_DEFAULT_CAMERA_PERIODS = 2.5  # a value lives for two missed images


def read_streams(
    root: Section,
    arms: Mapping[str, Arm],
    cameras: Mapping[str, Camera],
    features: Mapping[str, Feature],
    *,
    simulated: bool,
) -> dict[str, Stream]:
    """The streams of the file, and those that features name without an entry of their own."""
    holder = root.section("streams", optional=True)
    streams: dict[str, Stream] = {}
    for name in holder.names():
        entry = holder.section(name)
        _check_stream(root, holder.path_of(name), name, arms, cameras, simulated=simulated)
        content = content_of(name, arms, cameras)
        default = _default_age_s(name, cameras)
        holds = _read_hold(entry, name)
        streams[name] = Stream(
            name=name,
            topic=topic_of(name),
            max_age_s=entry.number(
                "max_age_ms",
                unit="ms",
                low=1,
                high=60_000,
                default=1000 * default,
                hint="Below 1 it looks like seconds: write milliseconds.",
            )
            / 1000,
            offset_s=entry.number("offset_ms", unit="ms", low=-1000, high=1000, default=0.0)
            / 1000,
            holds=holds,
            content=content,
        )
        entry.refuse_unknown()
    for feature in features.values():
        for name in feature.streams:
            if name not in streams:
                key = f"features.{feature.key}.stream"
                _check_stream(root, key, name, arms, cameras, simulated=simulated)
                streams[name] = Stream(
                    name,
                    topic_of(name),
                    _default_age_s(name, cameras),
                    content=content_of(name, arms, cameras),
                )
    return streams


def _read_hold(entry: Section, name: str) -> bool:
    """Whether a stream is sent only when its value changes; then no age of it means anything."""
    holds = entry.any_of("hold", default=False)
    where = entry.path_of("hold")
    if not isinstance(holds, bool):
        raise entry.error(where, holds, "true or false")
    if holds and names_camera(name):
        raise entry.error(where, holds, "false", "A camera that sends nothing shows nothing new.")
    if holds and entry.has("max_age_ms"):
        got = entry.any_of("max_age_ms")
        hint = "With `hold: true` a value has any age; leave one of the two out."
        raise entry.error(entry.path_of("max_age_ms"), got, "nothing beside `hold: true`", hint)
    return holds


def _default_age_s(name: str, cameras: Mapping[str, Camera]) -> float:
    """How long a value of a stream lives where the file does not say."""
    content = content_of(name, (), cameras)
    if content.kind is StreamKind.IMAGE and content.source:
        return _DEFAULT_CAMERA_PERIODS / cameras[content.source].fps
    if name.partition("/")[2] in JOINT_STREAMS:
        return DEFAULT_JOINT_AGE_S
    return DEFAULT_OTHER_AGE_S


def _check_stream(
    root: Section,
    key: str,
    name: str,
    arms: Mapping[str, Arm],
    cameras: Mapping[str, Camera],
    *,
    simulated: bool,
) -> None:
    """Refuse names that no node of this rig publishes, as far as the rig can know."""
    known = [f"{arm}/{stream}" for arm in arms for stream in JOINT_STREAMS]
    known += [camera_stream(camera) for camera in cameras]
    if simulated:
        known.append("sim/environment_state")
    if name in known:
        return
    near = closest(name, known)
    hint = f"Did you mean {near!r}?" if near else f"This rig has {', '.join(known)}."
    folder, _, rest = name.partition("/")
    ours = folder in arms or folder == "cameras" or closest(folder, [*arms, "cameras"])
    foreign_ok = bool(_STREAM_NAME.match(name)) and not (ours and not rest.startswith("command/"))
    if not foreign_ok:
        raise root.error(key, name, "the name of a stream of this rig", hint)
    if folder == "sim" and not simulated:
        raise root.error(key, name, "a stream of this rig", "It has no `simulation:` section.")


def read_features(
    root: Section, arms: Mapping[str, Arm], cameras: Mapping[str, Camera]
) -> dict[str, Feature]:
    """What a dataset frame holds, and from which stream each key is filled."""
    holder = root.section("features", optional=True)
    features: dict[str, Feature] = {}
    for key in holder.names():
        path = holder.path_of(key)
        if not _FEATURE_KEY.match(key):
            raise root.error(
                path,
                ShownValue(key),
                "observation.state, observation.images.<camera>, "
                "observation.environment_state, action, or another observation.* or action.*",
            )
        entry = holder.section(key)
        feature = Feature(key, _read_stream_names(entry))
        entry.refuse_unknown()
        _check_kind(root, path, feature)
        features[key] = feature
    return features


def _read_stream_names(entry: Section) -> tuple[str, ...]:
    """One stream, or a list of several: `stream: [left/joint_states, right/joint_states]`."""
    key = "streams" if entry.has("streams") and not entry.has("stream") else "stream"
    if key == "stream" and not isinstance(entry.any_of(key, default=""), list):
        return (entry.text(key),)
    found = entry.any_of(key)
    texts = isinstance(found, list) and all(isinstance(name, str) for name in found)
    if not texts or not found or len(set(found)) < len(found):
        expected = "a list of streams, each once"
        raise entry.error(entry.path_of(key), found, expected)
    return tuple(found)


def _check_kind(root: Section, path: str, feature: Feature) -> None:
    """Images come from cameras and nothing else does."""
    is_image_key = feature.key.startswith(_IMAGE_PREFIX)
    if is_image_key and len(feature.streams) > 1:
        raise root.error(f"{path}.stream", list(feature.streams), "one stream cameras/<camera>")
    for stream in feature.streams:
        if is_image_key != names_camera(stream):
            expected = "a stream cameras/<camera>" if is_image_key else "a stream of numbers"
            raise root.error(f"{path}.stream", stream, expected)
