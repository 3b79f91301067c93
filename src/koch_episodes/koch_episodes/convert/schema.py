# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a dataset made from some bags will look like, decided by all messages of all of them."""

from __future__ import annotations

import json
import math
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from koch_core.errors import KochError
from koch_episodes.bag import Bag, open_bag
from koch_episodes.convert.mapping import (
    ACTION,
    DONE,
    IMAGES,
    INTERVENTION,
    REWARD,
    STATE,
    SUCCESS,
    TCP_POSE,
    FeatureMap,
    MappedFeature,
    element_names,
    map_from_rig,
    map_from_yaml,
    with_names,
)
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.segments import damage_told
from koch_episodes.convert.survey import Survey
from koch_episodes.convert.topics import Form
from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.decode import IMAGE_TYPES, given_names
from koch_episodes.errors import (
    BagError,
    EpisodeError,
    MappingError,
    MessageTypeError,
    MissingTopicError,
)
from koch_rig.action_layout import ACTION_SPACES, JOINT, ActionLayout
from koch_rig.load import load_rig
from koch_rig.rig import Rig

_TCP_NAMES = ("x", "y", "z", "r00", "r10", "r20", "r01", "r11", "r21")


@dataclass(frozen=True)
class Schema:
    """What all episodes of a dataset share; travels to the worker processes.

    Attributes:
        names: Topic to element names, for vector topics.
        sizes: Topic to (height, width) in [px], for image topics.
        fingerprint: The rig's, or None.
        intervention: Whether there is a column that says when a human drove.
    """

    names: Mapping[str, tuple[str, ...]]
    sizes: Mapping[str, tuple[int, int]]
    fingerprint: str | None
    intervention: bool = False

    def to_json(self) -> str:
        """Return a text that differs where schemas do."""
        return json.dumps(asdict(self), sort_keys=True)


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
    return rig_from(text)


def rig_from(text: str) -> Rig:
    """Load a rig from the text of its file.

    Raises:
        KochError: It is no sound rig.
    """
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


def find_map(
    bags: Sequence[Path], options: ConvertOptions
) -> tuple[FeatureMap, Rig | None, str | None]:
    """Look into the bags until one tells features and rig; returned with the rig's fingerprint.

    Raises:
        KochError: None of them does; the first bag's reason.
    """
    from koch_rig.fingerprint import fingerprint

    if options.rig is not None:
        load_rig(options.rig)  # what is wrong with it is no bag's fault
    if options.map is not None:
        return map_from_yaml(options.map, options), None, None
    reason: KochError | None = None
    for path in bags:
        try:
            with open_bag(path) as bag:
                rig = rig_of(bag, options)
                feature_map = map_of(rig, options)
                check_topics(bag, feature_map)
                return feature_map, rig, fingerprint(rig) if rig is not None else None
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
        raise MissingTopicError(bag.path, missing, bag.topics, bag.foreign)


def check_numbers(bag: Bag, feature_map: FeatureMap) -> None:
    """Raise MessageTypeError where a topic of images is named although numbers are meant.

    An arm has numbers, and so have elements of the state and the action that are called by name.
    """
    for feature in feature_map.features:
        for source in feature.sources:
            topic = bag.topics[source.topic]
            numbers = source.arm or (source.names and feature.key in (ACTION, STATE))
            if numbers and topic.type in IMAGE_TYPES:
                raise MessageTypeError(topic.name, topic.type, "numbers")


def check_kinds(bag: Bag, feature_map: FeatureMap, schema: Schema) -> None:
    """Raise MessageTypeError where an image stands for numbers or the reverse."""
    for name in feature_map.topics:
        topic, is_image = bag.topics[name], name in schema.sizes
        if (topic.type in IMAGE_TYPES) != is_image:
            expected = "an image" if is_image else "numbers"
            raise MessageTypeError(topic.name, topic.type, expected)


Tally = Mapping[str, Counter[Form]]
"""Topic to its forms, and how many messages have each."""


def tally_of(survey: Survey) -> dict[str, Counter[Form]]:
    """Count the forms of each topic; of two fields of one topic, the first one's."""
    found: dict[str, Counter[Form]] = {}
    for reading, seen in survey.seen.items():
        found.setdefault(reading.topic, seen.counts())
    return found


def decide_schema(
    feature_map: FeatureMap,
    tallies: Mapping[str, Tally],
    fingerprint: str | None,
    damage: Sequence[str] = (),
) -> Schema:
    """Give every topic the image size or element names that most messages of all bags have.

    Args:
        feature_map: The mapping.
        tallies: Bag name to its tally.
        fingerprint: The rig's, or None.
        damage: What of the bags could not be read.

    Raises:
        EpisodeError: A topic has no readable message in any bag.
    """
    names: dict[str, tuple[str, ...]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    for topic in feature_map.topics:
        shapes: Counter[Any] = Counter()
        whys: Counter[str] = Counter()
        for tally in tallies.values():
            for form, count in tally.get(topic, {}).items():
                if form.why:
                    whys[form.why] += count
                else:
                    shapes[form.size or form.names] += count
        if not shapes:
            why = f" ({whys.most_common(1)[0][0]})" if whys else ""
            lines = [f"no readable message on {topic}{why}", *damage_told(damage)]
            raise EpisodeError(", ".join(tallies), "; ".join(lines))
        shape = shapes.most_common(1)[0][0]
        if isinstance(shape[0], int):
            sizes[topic] = shape
        else:
            names[topic] = shape
    return Schema(names, sizes, fingerprint)


def _check_same_elements(action: tuple[str, ...], state: tuple[str, ...]) -> None:
    """Refuse the difference of unlike elements; arrays without names are taken as they come."""
    nameless = given_names((), len(action))
    if action != state and nameless not in (action, state):
        raise MappingError(
            "--delta-actions",
            f"action {', '.join(action)} and observation.state {', '.join(state)}",
            "the same elements in one order ('names' of a source sets it)",
        )


def _has_kind(key: str) -> bool:
    """Tell whether policies expect this very key to hold numbers or an image."""
    return key in (ACTION, STATE) or key.startswith(IMAGES)


def _mapped_spec(feature: MappedFeature, feature_map: FeatureMap, schema: Schema) -> FeatureSpec:
    """Return shape and type of a feature that the mapping names.

    Raises:
        MappingError: As `dataset_features`.
    """
    where = f"{feature_map.where}: {feature.key}"
    images = [s.topic for s in feature.sources if s.topic in schema.sizes]
    if bool(images) != feature.key.startswith(IMAGES) and _has_kind(feature.key):
        got, wanted = ("images", "numbers") if images else ("numbers", "images")
        raise MappingError(where, got, f"a topic of {wanted}")
    if images and len(feature.sources) > 1:
        raise MappingError(where, "several topics", "one topic for a camera feature")
    if images:
        size = schema.sizes[images[0]]
        return FeatureSpec("video", (*size, 3), ("height", "width", "channels"))
    names = element_names(with_names(feature, schema.names), feature_map.where)
    if not feature.shape:
        return FeatureSpec(feature.dtype, (len(names),), names)
    if math.prod(feature.shape) != len(names):
        elements = f"the {len(names)} elements of {feature.sources[0].topic}"
        raise MappingError(f"{where}.shape", list(feature.shape), f"a shape of {elements}")
    return FeatureSpec(feature.dtype, feature.shape, names if len(feature.shape) == 1 else None)


def _check_one_arm(feature_map: FeatureMap) -> None:
    """Refuse to compute the pose of a tool where the state is not that of one arm."""
    state = next((f for f in feature_map.features if f.key == STATE), None)
    if state is None or len(state.sources) > 1 or state.sources[0].arm is None:
        raise MappingError(
            "--include-tcp-pose",
            "no arm behind observation.state, or several",
            "a rig whose observation.state comes from one arm",
        )


def _posed(
    feature_map: FeatureMap, specs: Mapping[str, FeatureSpec], options: ConvertOptions
) -> FeatureSpec:
    """Return the action as poses of the hands that it moves.

    Raises:
        MappingError: It does not come from arms of a rig alone.
    """
    action = next((f for f in feature_map.features if f.key == ACTION), None)
    if action is None or not all(source.arm for source in action.sources):
        raise MappingError(
            "--action-space", "an action that is no arm's", "a rig whose action is joints of arms"
        )
    layout = ActionLayout.of((source.arm or "", source.names) for source in action.sources)
    codec = ACTION_SPACES[options.action_space].codec(layout, {}, options.units)
    names = codec.names_of(tuple(specs[ACTION].names or ()))
    return FeatureSpec("float32", (len(names),), names)


def dataset_features(
    feature_map: FeatureMap, schema: Schema, options: ConvertOptions
) -> dict[str, FeatureSpec]:
    """Return the dataset's features in order.

    Raises:
        MappingError: An image feature has several sources, numbers stand for images or the
            reverse, or an option asks for what is not there.
    """
    specs = {f.key: _mapped_spec(f, feature_map, schema) for f in feature_map.features}
    if options.tcp_pose:
        _check_one_arm(feature_map)
        specs[TCP_POSE] = FeatureSpec("float32", (9,), _TCP_NAMES)
    if schema.intervention:
        specs[INTERVENTION] = FeatureSpec("bool", (1,))
    if options.rewards:
        taken = [key for key in (DONE, REWARD, SUCCESS) if key in specs]
        if taken:
            raise MappingError("--include-rewards", f"{taken[0]} in the mapping", "one of the two")
        specs[REWARD] = FeatureSpec("float32", (1,))
        specs.update({key: FeatureSpec("bool", (1,)) for key in (DONE, SUCCESS)})
    if options.action_space != JOINT:
        specs[ACTION] = _posed(feature_map, specs, options)
    if options.delta_actions:
        shapes = {specs[key].shape if key in specs else None for key in (ACTION, STATE)}
        if len(shapes) > 1 or None in shapes:
            raise MappingError(
                "--delta-actions", f"shapes {shapes}", "action and observation.state of one length"
            )
        _check_same_elements(specs[ACTION].names or (), specs[STATE].names or ())
    return specs
