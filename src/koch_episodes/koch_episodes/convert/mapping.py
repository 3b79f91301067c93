# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics fill which dataset features: from the rig, or from a --map file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from koch_core.frame import SampleRule
from koch_core.options import Option, OptionModel, UnknownKey, option, read, same_as
from koch_episodes.convert.options import ActionFrom, ConvertOptions, StampFrom
from koch_episodes.dataset.layout import DEFAULT_FEATURES
from koch_episodes.decode import IMAGE_TYPES, named_twice
from koch_episodes.errors import MappingError
from koch_rig.action_layout import ActionLayout, commanded_arm
from koch_rig.load_streams import DEFAULT_JOINT_AGE_S
from koch_rig.rig import Rig
from koch_rig.stream import StreamKind, topic_of

ACTION = "action"
STATE = "observation.state"
TCP_POSE = "observation.tcp_pose"
INTERVENTION = "intervention"
DONE, REWARD, SUCCESS = "next.done", "next.reward", "next.success"
IMAGES = "observation.images."
_DEFAULT_AGE_S = 0.2
_KEY = re.compile(r"[^./\s\x00-\x1f\x7f\ud800-\udfff][^/\x00-\x1f\x7f\ud800-\udfff]*")
_RESERVED = {*DEFAULT_FEATURES, "task"}
DTYPES = ("float32", "float64", "int64", "int32", "int16", "uint8", "bool")
_LARGEST = 1e9  # of a number in a --map file: a second in nanoseconds, and no infinity
_A_NUMBER = f"a number of at most {_LARGEST:.0e}"
_AGE = Option(
    "age beyond which a sample is not used [ms]",
    above=0.0,
    high=_LARGEST,
    expected=f"a number above 0, at most {_LARGEST:.0e}",
)


@dataclass(frozen=True, kw_only=True)
class MapFile(OptionModel):
    """What a --map file says."""

    fps: Any = option(None, "frames per second (or --fps)")
    robot_type: str | None = option(None, "robot_type of the dataset")
    task: str | None = option(None, "task text where the bag has none")
    max_age_ms: float = same_as(_AGE, 200.0)
    features: Mapping[Any, Any] = option(
        {}, "{feature: topic, source or list of them}", expected="an object (key: value lines)"
    )


@dataclass(frozen=True, kw_only=True)
class MapSource(OptionModel):
    """One source of a feature in a --map file."""

    topic: str = option(..., "ROS topic", expected="a topic name that begins with /")
    names: tuple[str, ...] | None = option(
        None,
        "elements to take, in order (default: those of the first message)",
        expected="a list of element names",
    )
    field: str = option(
        "position",
        "of a JointState",
        choices=("position", "velocity", "effort"),
        expected="position, velocity or effort",
    )
    max_age_ms: float | None = same_as(_AGE, None)
    offset_ms: float = option(
        0.0, "added to stamps [ms]", low=-_LARGEST, high=_LARGEST, expected=_A_NUMBER
    )
    scale: float = option(
        1.0, "factor on the values", low=-_LARGEST, high=_LARGEST, expected=_A_NUMBER
    )
    stamp: StampFrom = option(StampFrom.AUTO, "which clock to believe")
    rule: SampleRule | None = option(
        None, "which sample belongs to a tick (default: next for actions, else newest)"
    )
    dtype: str = option(
        "float32",
        "of the column",
        choices=DTYPES,
        expected=", ".join(DTYPES[:-1]) + f" or {DTYPES[-1]}",
    )
    shape: tuple[int, ...] | None = option(
        None,
        "of a value of the column, like [2, 3] (default: one axis)",
        low=1,
        expected="a list of whole numbers above 0",
    )


@dataclass(frozen=True)
class FeatureSource:
    """One topic that fills (a part of) a feature.

    Attributes:
        topic: ROS topic.
        max_age_s: Age beyond which a sample does not exist, [s].
        offset_s: Added to stamps, [s].
        names: Elements to take, in order; empty: those of the first message.
        field: JointState field: ``position``, ``velocity``, ``effort``.
        scale: Factor on the values (57.29578 makes degrees of radians).
        stamp: Which clock to believe.
        rule: Which sample belongs to a tick.
        arm: Arm of the rig whose units apply, or None: values as they are.
        prefix: Put before its elements' names, where arms are joined: the follower's name.
        given: Keys that a --map file says of it.
        dtype: Of the dataset's column.
        shape: Of a value of the column, where it has several axes; the elements in C order.
    """

    topic: str
    max_age_s: float = _DEFAULT_AGE_S
    offset_s: float = 0.0
    names: tuple[str, ...] = ()
    field: str = "position"
    scale: float = 1.0
    stamp: StampFrom = StampFrom.AUTO
    rule: SampleRule = SampleRule.NEWEST
    arm: str | None = None
    prefix: str = ""
    given: frozenset[str] = frozenset()
    dtype: str = "float32"
    shape: tuple[int, ...] = ()


@dataclass(frozen=True)
class MappedFeature:
    """One dataset feature.

    Attributes:
        key: Feature key.
        sources: Topics, their values joined in order; an image has exactly one.
    """

    key: str
    sources: tuple[FeatureSource, ...]

    @property
    def dtype(self) -> str:
        """Type of the dataset's column, one for all sources."""
        return self.sources[0].dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a value of the dataset's column where it has several axes; else empty."""
        return self.sources[0].shape


@dataclass(frozen=True)
class FeatureMap:
    """All features of a conversion.

    Attributes:
        features: In dataset order, action first as LeRobot has it.
        fps: Frames per second.
        robot_type: For info.json.
        task: Task text where the bag has none.
        where: File it came from, for messages.
    """

    features: tuple[MappedFeature, ...]
    fps: int
    robot_type: str | None
    task: str | None
    where: str

    @property
    def sources(self) -> list[FeatureSource]:
        """The different sources, in order."""
        return list(dict.fromkeys(s for feature in self.features for s in feature.sources))

    @property
    def topics(self) -> dict[str, FeatureSource]:
        """Topic to the first source that uses it."""
        found: dict[str, FeatureSource] = {}
        for feature in self.features:
            for source in feature.sources:
                found.setdefault(source.topic, source)
        return found


def map_from_rig(rig: Rig, options: ConvertOptions) -> FeatureMap:
    """Take the rig's features.

    Raises:
        MappingError: The rig has no features, or no leader where one is asked for.
    """
    if not rig.features:
        raise MappingError(f"{rig.path}: features", "nothing", "at least one feature")
    features = []
    for key, feature in rig.features.items():
        streams = feature.streams
        if _is_action(key) and options.action_from is ActionFrom.LEADER:
            streams = tuple(_leader_stream(rig, stream) for stream in streams)
        sources = tuple(_rig_source(rig, stream, _rule(key)) for stream in streams)
        named = ActionLayout.of(
            (_named_after(rig, key, stream), source.names)
            for stream, source in zip(feature.streams, sources, strict=True)
        )
        pairs = zip(sources, named.prefixes, strict=True)
        sources = tuple(replace(source, prefix=prefix) for source, prefix in pairs)
        features.append(MappedFeature(key, sources))
    return FeatureMap(
        _ordered(features), options.fps or rig.fps, rig.robot_type, rig.task, str(rig.path)
    )


def _rule(key: str) -> SampleRule:
    return SampleRule.NEXT if _is_action(key) else SampleRule.NEWEST


def _is_action(key: str) -> bool:
    return key.split(".")[0] == ACTION


def _ordered(features: list[MappedFeature]) -> tuple[MappedFeature, ...]:
    return tuple(sorted(features, key=lambda feature: _rule(feature.key) is not SampleRule.NEXT))


def _named_after(rig: Rig, key: str, stream: str) -> str:
    """The arm in the names of a stream's elements: of actions the one that is to follow them."""
    content = rig.content_of(stream)
    if content.kind is not StreamKind.JOINTS:
        return ""
    return (_is_action(key) and commanded_arm(rig, stream)) or content.source


def _leader_stream(rig: Rig, stream: str) -> str:
    follower = stream.split("/")[0]
    leader = rig.leader_of(follower)
    if leader is None:
        raise MappingError(
            f"{rig.path}: --action-from leader",
            f"no leader of {follower!r}",
            "an arm with role leader that drives it (or --action-from command)",
        )
    return f"{leader.name}/joint_states"


def _rig_source(rig: Rig, stream: str, rule: SampleRule) -> FeatureSource:
    content = rig.content_of(stream)
    arm = content.source if content.kind is StreamKind.JOINTS else None
    declared = rig.streams.get(stream)
    names = rig.arms[arm].model.joints if arm else ()
    if declared is None:  # a leader's joint states need no entry of their own
        return FeatureSource(
            topic_of(stream), DEFAULT_JOINT_AGE_S, names=names, rule=rule, arm=arm
        )
    return FeatureSource(
        declared.topic,
        declared.max_age_s,
        declared.offset_s,
        names=tuple(names),
        rule=SampleRule.HOLD if declared.holds else rule,
        arm=arm,
    )


def map_from_yaml(path: Path, options: ConvertOptions) -> FeatureMap:
    """Read a --map file.

    Raises:
        MappingError: Unreadable, or an entry is missing or of the wrong kind.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise MappingError(str(path), f"unreadable file ({exc})", "a YAML file") from exc
    top = read(MapFile, _object(raw, str(path)), _refusal(f"{path}: "))
    age_s = top.max_age_ms / 1e3
    reserved = {*_RESERVED, TCP_POSE} if options.tcp_pose else set(_RESERVED)
    features = [
        _mapped(key, entry, f"{path}: features.{key}", age_s, reserved)
        for key, entry in top.features.items()
    ]
    every = [source for feature in features for source in feature.sources]
    if "max_age_ms" in raw and every and all(source.rule is SampleRule.HOLD for source in every):
        raise MappingError(
            f"{path}: max_age_ms", top.max_age_ms, "nothing: all sources hold, at any age"
        )
    fps = options.fps or top.fps
    if isinstance(fps, bool) or not isinstance(fps, int) or fps < 1:
        raise MappingError(f"{path}: fps", fps, "a whole number above 0 (or --fps)")
    if not features:
        raise MappingError(f"{path}: features", "nothing", "at least one feature")
    return FeatureMap(_ordered(features), fps, top.robot_type, top.task, str(path))


def _mapped(key: Any, entry: Any, where: str, age_s: float, reserved: set[str]) -> MappedFeature:
    """One entry of `features`: a topic, or a list of them."""
    if not isinstance(key, str) or not _KEY.fullmatch(key) or key in reserved:
        raise MappingError(
            where,
            key,
            "a name of printable characters without '/', not beginning with a dot, none of "
            + ", ".join(sorted(reserved)),
        )
    listed = entry if isinstance(entry, list) else [entry]
    sources = tuple(_source(part, where, age_s, _rule(key)) for part in listed)
    if not sources:
        raise MappingError(where, entry, "a topic")
    if len(dtypes := {source.dtype for source in sources}) > 1:
        raise MappingError(f"{where}.dtype", sorted(dtypes), "one dtype for all sources")
    if len(sources) > 1 and any(source.shape for source in sources):
        raise MappingError(f"{where}.shape", "several sources", "one source")
    return MappedFeature(key, sources)


def _object(raw: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise MappingError(where, raw, "an object (key: value lines)")
    return raw


def _refusal(where: str) -> Callable[[str, object, str, str], MappingError]:
    """What makes the error of a wrong value below a place in a --map file."""

    def refuse(key: str, got: object, expected: str, hint: str) -> MappingError:
        if isinstance(got, UnknownKey):
            listed = ", ".join(sorted(got.known))
            told = f"{listed}. {hint}" if hint else listed
            return MappingError(where.rstrip(": ."), f"unknown key {key}", told)
        return MappingError(f"{where}{key}", got, expected)

    return refuse


def _source(raw: Any, where: str, age_s: float, rule: SampleRule) -> FeatureSource:
    said = _object({"topic": raw} if isinstance(raw, str) else raw, where)
    entry = read(MapSource, said, _refusal(f"{where}."))
    if not entry.topic.startswith("/"):
        raise MappingError(f"{where}.topic", entry.topic, "a topic name that begins with /")
    rule = entry.rule or rule
    if rule is SampleRule.HOLD and entry.max_age_ms is not None:
        got = entry.max_age_ms
        raise MappingError(f"{where}.max_age_ms", got, "nothing: a value that holds has any age")
    return FeatureSource(
        entry.topic,
        age_s if entry.max_age_ms is None else entry.max_age_ms / 1e3,
        entry.offset_ms / 1e3,
        entry.names or (),
        entry.field,
        entry.scale,
        entry.stamp,
        rule,
        given=frozenset(said),
        dtype=entry.dtype,
        shape=entry.shape or (),
    )


_FIELD_ENDINGS = {"position": "pos", "velocity": "vel", "effort": "eff"}


def element_names(feature: MappedFeature, where: str) -> tuple[str, ...]:
    """Name a vector feature's elements, each once.

    Elements of an arm of the rig are called ``<joint>.pos``, as LeRobot calls them. Where two
    sources name an element alike, the fields of one topic tell them apart (``j1.pos j1.vel``), or
    what their topics do not share (``left_j1 right_j1``, as LeRobot names two arms).

    Args:
        feature: Its sources name their elements.
        where: File of the mapping, for messages.

    Raises:
        MappingError: A source names an element twice, or two sources are the same.
    """
    sources = feature.sources
    plain = [[f"{s.prefix}{n}.pos" if s.arm else n for n in s.names] for s in sources]
    found: list[str] = []
    for source, names in zip(sources, plain, strict=True):
        alike = [
            other
            for other, theirs in zip(sources, plain, strict=True)
            if other is not source and set(names) & set(theirs)
        ]
        prefix = suffix = ""
        if any(other.topic != source.topic for other in alike):
            prefix = _label(source.topic, [other.topic for other in alike])
        if any(other.topic == source.topic for other in alike):
            suffix = f".{_FIELD_ENDINGS[source.field]}"
        found += [f"{prefix}{name}{suffix}" for name in names]
    if twice := named_twice(found):
        raise MappingError(
            f"{where}: {feature.key}", f"element {twice} twice", "different names ('names')"
        )
    return tuple(found)


def _label(topic: str, others: list[str]) -> str:
    """Return what of a topic's name the others do not share, ``left_`` of /left/joint_states."""
    parts = [name.strip("/").split("/") for name in (topic, *others)]
    for end in (-1, 0):
        while all(part and part[end] == parts[0][end] for part in parts):
            for part in parts:
                part.pop(end)
    return "".join(f"{name}_" for name in parts[0])


def with_names(feature: MappedFeature, names: Mapping[str, tuple[str, ...]]) -> MappedFeature:
    """Fill in the element names of sources that do not state them."""
    sources = tuple(
        source if source.names else replace(source, names=names.get(source.topic, ()))
        for source in feature.sources
    )
    return replace(feature, sources=sources)


def check_effect(source: FeatureSource, message_type: str, where: str) -> None:
    """Refuse what a mapping says of a topic although it means nothing for its type.

    Raises:
        MappingError: Naming it.
    """
    is_image = message_type in IMAGE_TYPES
    without = {
        "field": message_type != "sensor_msgs/msg/JointState",
        "scale": is_image,
        "names": is_image,
        "dtype": is_image,
        "shape": is_image,
    }
    for key, idle in without.items():
        if idle and key in source.given:
            raise MappingError(
                f"{where}: {key} of {source.topic}",
                getattr(source, key),
                f"nothing: it has no effect on a {message_type}",
            )
    if is_image and source.rule is SampleRule.HOLD:
        raise MappingError(
            f"{where}: rule of {source.topic}",
            source.rule.value,
            "newest or next: a camera that sends nothing shows nothing new",
        )
