# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics the features of a dataset become: the rig's, those of a --map file, or their own.

The way back must find what was written, so the topics are those from which `koch convert` would
make the dataset. Where a dataset holds the rig, the calibrations and no other columns, they are
the recorder's. Otherwise a topic is named after its feature, and a `map.yaml` beside the bags
tells the way back.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from koch_core.errors import KochError
from koch_core.options import OptionError
from koch_episodes.convert.columns import calibration_from
from koch_episodes.convert.mapping import (
    DONE,
    DTYPES,
    INTERVENTION,
    REWARD,
    SUCCESS,
    TCP_POSE,
    FeatureMap,
    FeatureSource,
    MappedFeature,
    map_from_rig,
    map_from_yaml,
)
from koch_episodes.convert.options import ActionFrom, ConvertOptions
from koch_episodes.convert.schema import rig_from
from koch_episodes.dataset.edit.pieces import features_of
from koch_episodes.dataset.edit.source import SourceDataset
from koch_episodes.dataset.layout import Codec, FeatureSpec
from koch_episodes.decode import given_names, named_twice
from koch_episodes.errors import MappingError
from koch_rig.action_layout import JOINT
from koch_rig.calibration import load_calibration
from koch_rig.fingerprint import fingerprint
from koch_rig.load import load_rig
from koch_rig.rig import Rig
from koch_rig.units import JointUnits, Units

MAP_FILE = "map.yaml"
_DERIVED = (TCP_POSE, INTERVENTION, REWARD, DONE, SUCCESS)
_ALLOWED = ("rig", "map", "units", "episodes")


@dataclass(frozen=True)
class BagLayout:
    """What the bags of a dataset look like.

    Attributes:
        map: Features with their sources, all elements named.
        options: What `koch convert` must be asked for on the way back.
        rig: The rig whose topics they are.
        units: Arm to what converts its joints; empty for radians and without a rig.
        custom: Custom data of each bag.
        left_out: Features that no topic holds.
        told: What people should know.
        map_text: Content of the file that tells the way back; empty with a rig or a --map file.
        nameless: Features whose elements have no names.
    """

    map: FeatureMap
    options: ConvertOptions
    rig: Rig | None = None
    units: Mapping[str, JointUnits] = field(default_factory=dict)
    custom: Mapping[str, str] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    map_text: str = ""
    nameless: frozenset[str] = frozenset()

    def way_back(self, bags: Path) -> str:
        """The command that makes the dataset again."""
        words = ["koch", "convert", str(bags), "--out", "NEW", *self._map_words(bags)]
        usual = ConvertOptions()
        if self.rig is None or self.map.fps != self.rig.fps:
            words += [] if self.map_text else ["--fps", str(self.map.fps)]
        for flag, value, default in (
            ("--units", self.options.units.value, usual.units.value),
            ("--action-from", self.options.action_from.value, usual.action_from.value),
            ("--vcodec", self.options.codec.value, usual.codec.value),
            ("--format", self.options.version, usual.version),
        ):
            words += [flag, value] if value != default else []
        if self.options.action_space != JOINT:
            words += ["--action-space", self.options.action_space]
        words += ["--delta-actions"] * self.options.delta_actions
        words += ["--include-tcp-pose"] * self.options.tcp_pose
        words += ["--include-rewards"] * self.options.rewards
        return shlex.join(words)

    def _map_words(self, bags: Path) -> list[str]:
        if self.map_text:
            return ["--map", str(bags / MAP_FILE)]
        return [] if self.options.map is None else ["--map", str(self.options.map)]


def layout_of(source: SourceDataset, options: ConvertOptions) -> BagLayout:
    """Decide the topics of a dataset.

    Args:
        source: The dataset.
        options: `rig`, `map`, `units` and `episodes` of it count.

    Raises:
        KochError: A rig or map is given that does not fit, or an option that has no effect.
    """
    _check_options(options)
    back = _way_back(source, options)
    if options.map is not None:
        return _of_map(source, options.map, back)
    if options.rig is not None:
        return _of_rig(source, load_rig(options.rig), back, strict=True)
    text, why = source.koch.get("rig"), "the dataset holds no rig"
    if text:
        try:
            return _of_rig(source, rig_from(text), back, strict=False)
        except KochError as exc:
            why = str(exc)
    return _of_features(source, back, f"topics are named after features, since {why}")


def _check_options(options: ConvertOptions) -> None:
    usual = ConvertOptions(rig=options.rig, map=options.map)
    plain, default = options.to_json(), usual.to_json()
    for name, value in plain.items():
        if name not in _ALLOWED and value != default[name]:
            flag = f"--{name.replace('_', '-')}"
            raise OptionError(flag, value, "nothing beside --to-bag, which converts all as it is")


def _way_back(source: SourceDataset, options: ConvertOptions) -> ConvertOptions:
    """What the dataset was, or could have been, converted with."""
    koch = source.koch
    copies = [
        (spec.info or {}).get("video.codec") == "mjpeg"
        for spec in source.features.values()
        if spec.is_image and not spec.is_depth
    ]
    told = koch.get("units")
    if told and options.units is not ConvertOptions().units and options.units.value != told:
        raise OptionError("--units", options.units.value, f"{told}, as {source.root} has them")
    codec = Codec.COPY if copies and all(copies) else Codec.H264
    if koch.get("vcodec") == Codec.AV1.value:
        codec = Codec.AV1
    return ConvertOptions(
        fps=source.info.fps,
        units=Units(told) if told else options.units,
        action_from=ActionFrom(koch.get("action_from", ActionFrom.COMMAND.value)),
        delta_actions=bool(koch.get("delta_actions")),
        action_space=str(koch.get("action_space") or JOINT),
        tcp_pose=TCP_POSE in source.features,
        rewards=SUCCESS in source.features and DONE in source.features,
        codec=codec,
        version=source.info.format.name,
    )


# -- the topics of a rig ------------------------------------------------------------------------


def _of_rig(source: SourceDataset, rig: Rig, back: ConvertOptions, *, strict: bool) -> BagLayout:
    """The recorder's topics.

    Args:
        source: The dataset.
        rig: Its rig.
        back: What it is converted with.
        strict: Leave out columns that are none of the rig's; else they are an error.
    """
    named = map_from_rig(rig, back)
    features = tuple(_fitted(source, feature, str(rig.path)) for feature in named.features)
    known = {feature.key for feature in features} | set(_DERIVED)
    left_out = tuple(key for key in features_of(source) if key not in known)
    if left_out and not strict:
        got = f"other columns, {', '.join(left_out)},"
        raise MappingError(f"of {source.root}", got, "those of its rig alone")
    texts = _calibrations(source, rig, features) if back.units is not Units.RADIANS else {}
    units = {
        arm: JointUnits(rig.arms[arm], calibration_from(text, arm, rig.arms[arm].model.joints))
        for arm, text in texts.items()
    }
    custom = {"koch.rig": rig.text, "koch.fingerprint": fingerprint(rig)}
    custom |= {f"koch.calibration.{arm}": text for arm, text in texts.items()}
    return BagLayout(replace(named, features=features), back, rig, units, custom, left_out)


def _calibrations(
    source: SourceDataset, rig: Rig, features: Sequence[MappedFeature]
) -> dict[str, str]:
    """Calibration of each arm of the features: the dataset's own, else the rig's file."""
    stored = dict(source.koch.get("calibrations") or {})
    found = {}
    for arm in sorted({s.arm for f in features for s in f.sources if s.arm}):
        path = rig.arms[arm].calibration_path
        if arm not in stored:
            load_calibration(path, rig.arms[arm].model.joints)
        found[arm] = stored[arm] if arm in stored else path.read_text(encoding="utf-8")
    return found


def _fitted(source: SourceDataset, feature: MappedFeature, where: str) -> MappedFeature:
    """Name the elements of a feature's sources after the dataset's.

    Raises:
        MappingError: The dataset has no such feature, or one of another length.
    """
    spec = source.features.get(feature.key)
    if spec is None:
        got = f"no feature {feature.key}"
        raise MappingError(f"{where}: {source.root}", got, ", ".join(features_of(source)))
    if spec.is_depth:
        raise MappingError(
            f"{where}: {feature.key}", "a depth map", "numbers or images of colours"
        )
    if spec.is_image:
        return feature
    if not spec.is_numeric:
        raise MappingError(f"{where}: {feature.key}", spec.dtype, "numbers or images")
    width = _width(spec)
    unnamed = [each for each in feature.sources if not each.names]
    if len(unnamed) == 1:
        taken = sum(len(each.names) for each in feature.sources)
        start = sum(len(s.names) for s in feature.sources[: feature.sources.index(unnamed[0])])
        names = _names(spec)[start : start + width - taken]
        sources = [replace(s, names=names) if s is unnamed[0] else s for s in feature.sources]
        feature = replace(feature, sources=tuple(sources))
    count = sum(len(each.names) for each in feature.sources)
    if len(unnamed) > 1 or count != width:
        got = f"{count} named elements of {len(feature.sources)} topic(s)"
        raise MappingError(f"{where}: {feature.key}", got, f"the {width} elements of it ('names')")
    return feature


def _width(spec: FeatureSpec) -> int:
    width = 1
    for size in spec.shape:
        width *= size
    return width


def _names(spec: FeatureSpec) -> tuple[str, ...]:
    """Names of the elements of a column; made ones where it has none of its own."""
    names = spec.names or ()
    sound = len(names) == _width(spec) and not named_twice(names) and all(names)
    return tuple(names) if sound else given_names((), _width(spec))


# -- the topics of a map, or of the features themselves -----------------------------------------


def _of_map(source: SourceDataset, path: Path, back: ConvertOptions) -> BagLayout:
    options = replace(back, map=path, action_from=ActionFrom.COMMAND, tcp_pose=False)
    named = map_from_yaml(path, replace(options, rewards=False))
    features = tuple(_fitted(source, feature, str(path)) for feature in named.features)
    known = {feature.key for feature in features}
    left_out = tuple(key for key in features_of(source) if key not in known)
    options = replace(options, rewards=False, delta_actions=False, action_space=JOINT)
    return BagLayout(replace(named, features=features), options, None, {}, {}, left_out)


def _of_features(source: SourceDataset, back: ConvertOptions, why: str) -> BagLayout:
    features, nameless, left_out = [], set(), []
    topics: set[str] = set()
    entries: dict[str, Any] = {}
    for key, spec in features_of(source).items():
        if spec.is_depth or (not spec.is_image and spec.dtype not in DTYPES):
            left_out.append(key)
            continue
        topic = _topic(key, topics, "/image_raw/compressed" if spec.is_image else "")
        dtype = "float32" if spec.is_image else spec.dtype
        names = () if spec.is_image else _names(spec)
        shape = spec.shape if spec.is_numeric and len(spec.shape) > 1 else ()
        made = FeatureSource(topic, names=names, dtype=dtype, shape=shape)
        features.append(MappedFeature(key, (made,)))
        entries[key] = {"topic": topic, **({"dtype": dtype} if dtype != "float32" else {})}
        if shape:
            entries[key]["shape"] = list(shape)
        elif spec.is_numeric and (spec.names is None or tuple(spec.names) != made.names):
            nameless.add(key)
    if not features:
        raise MappingError(f"of {source.root}", "no feature", "numbers or images")
    text = {"fps": source.info.fps, "features": entries}
    if source.info.robot_type:
        text["robot_type"] = source.info.robot_type
    named = FeatureMap(tuple(features), source.info.fps, source.info.robot_type, None, MAP_FILE)
    options = replace(back, delta_actions=False, tcp_pose=False, rewards=False)
    options = replace(options, action_space=JOINT)
    options = replace(options, action_from=ActionFrom.COMMAND)
    dump = yaml.safe_dump(text, sort_keys=False, allow_unicode=True)
    return BagLayout(
        named, options, left_out=tuple(left_out), told=(why,), map_text=dump,
        nameless=frozenset(nameless),
    )  # fmt: skip


def _topic(key: str, taken: set[str], ending: str) -> str:
    """Name a topic after a feature, as ROS allows it, each once."""
    words = [re.sub(r"\W", "_", word, flags=re.ASCII) or "_" for word in key.split(".")]
    plain = "".join(f"/{'_' * word[0].isdigit()}{word}" for word in words)
    number, topic = 1, plain
    while topic in taken:
        number += 1
        topic = f"{plain}_{number}"
    taken.add(topic)
    return topic + ending
