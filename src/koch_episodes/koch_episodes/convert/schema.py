# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a dataset made from some bags will look like, found out from the first bag that fits."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from koch_episodes.bag import Bag, Topic, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.convert.mapping import (
    ACTION,
    STATE,
    TCP_POSE,
    FeatureMap,
    element_names,
    map_from_rig,
    map_from_yaml,
    with_names,
)
from koch_episodes.convert.options import ConvertOptions, StampFrom
from koch_episodes.convert.topics import TopicReader, size_of
from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.errors import (
    BagError,
    DecodeError,
    EpisodeError,
    MappingError,
    MessageTypeError,
    MissingTopicError,
)
from koch_rig.errors import KochError
from koch_rig.load import load_rig
from koch_rig.rig import Rig

_TCP_NAMES = ("x", "y", "z", "r00", "r10", "r20", "r01", "r11", "r21")


@dataclass(frozen=True)
class Schema:
    """What all episodes of a dataset share; travels to the worker processes.

    Attributes:
        names: Topic to element names, for vector topics.
        sizes: Topic to (height, width) in [px], for picture topics.
        fingerprint: The rig's, or None.
    """

    names: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, tuple[int, int]]
    fingerprint: str | None


def rig_of(bag: Bag, options: ConvertOptions) -> Rig | None:
    """Load the rig given by --rig, or the one stored in the bag; None where --map is used.

    Raises:
        MappingError: There is no rig at all.
    """
    if options.map is not None:
        return None
    if options.rig is not None:
        return load_rig(options.rig)
    text = bag.custom.get("koch.rig")
    if not text:
        raise MappingError(
            f"of bag {bag.path}",
            "no rig stored in it",
            "--rig FILE, or --map FILE for bags that were not made by this suite",
        )
    with tempfile.TemporaryDirectory(prefix="koch_rig_") as folder:
        path = Path(folder) / "rig.yaml"
        path.write_text(text, encoding="utf-8")
        return load_rig(path)


def map_of(rig: Rig | None, options: ConvertOptions) -> FeatureMap:
    """Build the feature map of a conversion."""
    if rig is not None:
        return map_from_rig(rig, options)
    assert options.map is not None
    return map_from_yaml(options.map, options)


def find_schema(
    bags: Sequence[Path], options: ConvertOptions
) -> tuple[FeatureMap, Schema, Rig | None]:
    """Look into the bags until one tells everything.

    Raises:
        KochError: None of them does; the first bag's reason.
    """
    if options.rig is not None:
        load_rig(options.rig)  # what is wrong with it is no bag's fault
    reason: KochError | None = None
    for path in bags:
        try:
            with open_bag(path) as bag:
                rig = rig_of(bag, options)
                feature_map = map_of(rig, options)
                return feature_map, _look(bag, feature_map, options, rig), rig
        except KochError as exc:
            reason = reason or _of_bag(exc, path)
    raise reason or BagError(Path("."), "no bags", "Give at least one.")


def _of_bag(error: KochError, path: Path) -> KochError:
    """Name the bag in an error that came from what is stored in it."""
    text = str(error)
    if path.name not in text and not isinstance(error, MappingError):
        error.args = (f"Bag {path.name}: {text}",)
    return error


def check_topics(bag: Bag, feature_map: FeatureMap) -> None:
    """Raise MissingTopicError where the bag lacks a topic of the mapping."""
    missing = [topic for topic in feature_map.topics if topic not in bag.topics]
    if missing:
        raise MissingTopicError(bag.path, missing, bag.topics)


def check_kind(topic: Topic, reader: TopicReader, is_picture: bool) -> None:
    """Raise MessageTypeError where a picture stands for numbers or the reverse."""
    if reader.is_picture != is_picture:
        raise MessageTypeError(topic.name, topic.type, "a picture" if is_picture else "numbers")


def _look(bag: Bag, feature_map: FeatureMap, options: ConvertOptions, rig: Rig | None) -> Schema:
    from koch_rig.fingerprint import fingerprint

    check_topics(bag, feature_map)
    types = TypeDecoder()
    readers = {
        topic: TopicReader(bag.topics[topic], source, types, StampFrom.RECEIVE)
        for topic, source in feature_map.topics.items()
    }
    names: dict[str, tuple[str, ...]] = {
        topic: source.names for topic, source in feature_map.topics.items() if source.names
    }
    for topic in names:
        check_kind(bag.topics[topic], readers[topic], is_picture=False)
    sizes: dict[str, tuple[int, int]] = {}
    open_topics = {topic for topic in readers if topic not in names}
    for message in bag.messages(open_topics):
        if message.topic not in open_topics:
            continue
        reader = readers[message.topic]
        try:
            if reader.is_picture:
                sizes[message.topic] = size_of(reader.picture(message)[1])
            else:
                names[message.topic] = reader.names(message)
        except DecodeError:
            continue
        open_topics.discard(message.topic)
        if not open_topics:
            break
    if open_topics:
        raise EpisodeError(bag.name, f"no readable message on {', '.join(sorted(open_topics))}")
    return Schema(names, sizes, fingerprint(rig) if rig is not None else None)


def dataset_features(
    feature_map: FeatureMap, schema: Schema, options: ConvertOptions
) -> dict[str, FeatureSpec]:
    """Return the dataset's features in order.

    Raises:
        MappingError: A picture feature has several sources, or an option asks for what is not
            there.
    """
    specs: dict[str, FeatureSpec] = {}
    for feature in feature_map.features:
        pictures = [s.topic for s in feature.sources if s.topic in schema.sizes]
        if pictures and len(feature.sources) > 1:
            raise MappingError(
                f"{feature_map.where}: {feature.key}",
                "several topics",
                "one topic for a camera feature",
            )
        if pictures:
            size = schema.sizes[pictures[0]]
            specs[feature.key] = FeatureSpec("video", (*size, 3), ("height", "width", "channels"))
            continue
        names = element_names(with_names(feature, schema.names), options.units)
        specs[feature.key] = FeatureSpec("float32", (len(names),), names)
    state = next((f for f in feature_map.features if f.key == STATE), None)
    if options.tcp_pose:
        if state is None or state.sources[0].arm is None:
            raise MappingError(
                "--include-tcp-pose",
                "no arm behind observation.state",
                "a rig whose observation.state comes from an arm",
            )
        specs[TCP_POSE] = FeatureSpec("float32", (9,), _TCP_NAMES)
    if options.delta_actions:
        shapes = {specs[key].shape if key in specs else None for key in (ACTION, STATE)}
        if len(shapes) > 1 or None in shapes:
            raise MappingError(
                "--delta-actions", f"shapes {shapes}", "action and observation.state of one length"
            )
    return specs
