# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""From stamped stream values to a policy's observation, by the converter's FrameAssembler."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from koch_core.frame import (
    Frame,
    FrameAssembler,
    FrameFeature,
    Missing,
    SampleRule,
)
from koch_core.image import decode_image
from koch_core.stream import StreamBuffer
from koch_episodes.decode import NamedValues, continuous, joint_vector, quaternions
from koch_policy.configs import TASK
from koch_policy.execution.compatibility import dataset_keys, policy_units
from koch_policy.policy import Policy
from koch_rig.rig import Feature, Rig
from koch_rig.stream import Stream, StreamKind
from koch_rig.units import JointUnits, Units

_IMAGES, _VECTORS = 16, 128  # samples that a buffer keeps


class ObservationBuilder:
    """Feeds one policy. `push` may be called from another thread than the rest.

    A policy's input may join several features of the rig, and a feature several streams: frames
    are assembled from streams, and joined in `observation`.

    Args:
        policy: Tells which features, in which units and with how many observation steps.
        rig: Tells which streams they come from.
        units: Converters per arm, for joint streams.
    """

    def __init__(self, policy: Policy, rig: Rig, units: Mapping[str, JointUnits]) -> None:
        self._config = policy.config
        self._image = bytes if getattr(policy, "takes_jpegs", False) else _image
        self._units = policy_units(policy)
        keys = dataset_keys(policy)
        self._named = {key: parts[0] if len(parts) == 1 else key for key, parts in keys.items()}
        streams = {
            _part(rig.features[key], stream): stream
            for parts in keys.values()
            for key in parts
            for stream in rig.features[key].streams
        }
        self._joined = {
            key: [
                _part(rig.features[each], stream)
                for each in parts
                for stream in rig.features[each].streams
            ]
            for key, parts in keys.items()
        }
        self._names = {
            key: [name.rpartition("/")[2] for name in policy.extras.names.get(key, [])]
            for key in self._joined
            if len(self._joined[key]) == 1
        }
        self.buffers = {
            name: _buffer(rig.streams[name]) for name in dict.fromkeys(streams.values())
        }
        self._vectors: list[_NamedVector] = []
        watched, read = [], []
        for key, stream in streams.items():
            rule = SampleRule.HOLD if rig.streams[stream].holds else SampleRule.NEWEST
            watched.append(FrameFeature(key, stream, rule))
            decoder = self._decoder(key, stream, rig, units)
            read.append(FrameFeature(key, stream, rule, decoder))
        self._watch = FrameAssembler(watched, self.buffers)
        self._read = FrameAssembler(read, self.buffers)
        self._history: OrderedDict[int, Frame] = OrderedDict()

    @property
    def streams(self) -> tuple[str, ...]:
        """Names of the streams to push."""
        return tuple(self.buffers)

    @property
    def has_history(self) -> bool:
        """True when every tick's observation is needed."""
        return self._config.n_obs_steps > 1

    def push(self, stream: str, stamp_ns: int, value: Any) -> None:
        """Take in a sample: `NamedValues`, or the bytes of a compressed image."""
        self.buffers[stream].push(stamp_ns, value)

    def mark(self, stream: str, since_ns: int, reason: str) -> None:
        """Take in what a stream's publisher says of its samples: see `StreamBuffer.mark`."""
        self.buffers[stream].mark(since_ns, reason)

    def missing(self, tick_ns: int) -> Missing | None:
        """What is not there at a tick, without decoding anything."""
        found = self._watch.assemble(tick_ns)
        return found if isinstance(found, Missing) else None

    def observe(self, tick: int, tick_ns: int) -> Missing | None:
        """Decode the frame of a tick and keep it; None when nothing is missing."""
        found = self._read.assemble(tick_ns)
        if isinstance(found, Missing):
            return found
        self._history[tick] = found
        while len(self._history) > self._config.n_obs_steps + 1:
            self._history.popitem(last=False)
        return None

    def observation(self, tick: int, task: str) -> dict[str, Any]:
        """The policy's input for a tick that `observe` took in.

        With several observation steps the ticks before come along; one that is not there (the
        beginning, a gap) is replaced by the next newer one, as at the beginning of an episode.
        """
        steps = self._config.n_obs_steps
        frames: list[Frame] = []
        for offset in range(steps):
            frame = self._history.get(tick - offset)
            frames.insert(0, frames[0] if frame is None else frame)
        result: dict[str, Any] = {TASK: task}
        for key, parts in self._joined.items():
            values = [_joined([frame.values[part] for part in parts]) for frame in frames]
            result[self._named[key]] = values[0] if steps == 1 else _stacked(values)
        return result

    def stamp_ns(self, tick: int) -> int:
        """Acquisition time of the oldest sample behind a tick's frame [ns]."""
        return min(self._history[tick].stamps_ns.values())

    def clear(self) -> None:
        """Forget the history, not the streams."""
        self._history.clear()
        for vector in self._vectors:
            vector.begin()

    def forget_future(self, now_ns: int) -> None:
        """Empty streams whose newest sample is in the future: the clock was set back.

        A full buffer drops its oldest sample, which every new one would be until then.
        """
        for buffer in self.buffers.values():
            newest = buffer.newest()
            if newest is not None and newest.stamp_ns - now_ns > buffer.max_age_ns:
                buffer.clear()

    def _decoder(
        self, key: str, stream: str, rig: Rig, units: Mapping[str, JointUnits]
    ) -> Callable[[Any], Any]:
        content = rig.content_of(stream)
        if content.kind is StreamKind.IMAGE:
            return self._image
        if content.kind is StreamKind.JOINTS:
            return partial(_joints, units[content.source], self._units)
        self._vectors.append(_NamedVector(self._names.get(key, [])))
        return self._vectors[-1]


def _buffer(stream: Stream) -> StreamBuffer:
    samples = _IMAGES if stream.kind is StreamKind.IMAGE else _VECTORS
    return StreamBuffer(stream.name, samples, stream.max_age_s, stream.offset_s)


def _part(feature: Feature, stream: str) -> str:
    """Name what a stream gives to a feature: the feature itself where it is the only one."""
    return feature.key if len(feature.streams) == 1 else f"{feature.key} of {stream}"


def _joined(values: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return values[0] if len(values) == 1 else np.concatenate(values)


def _stacked(values: Sequence[Any]) -> Any:
    return list(values) if isinstance(values[0], bytes) else np.stack(values)


def _image(value: Any) -> NDArray[np.uint8]:
    return decode_image(bytes(value))


def _joints(units: JointUnits, kind: Units, value: NamedValues) -> NDArray[np.float32]:
    vector = joint_vector(value.names, value.values, units.model.joints)
    return units.rad_to(kind, vector).astype(np.float32)


class _NamedVector:
    """Reads one stream's vectors, quaternions with one sign, as the converter writes them.

    Args:
        wanted: Names in the checkpoint's order; elements are picked by them where the message
            knows them all.
    """

    def __init__(self, wanted: Sequence[str]) -> None:
        self._wanted = list(wanted)
        self.begin()

    def begin(self) -> None:
        """Forget the signs: an episode begins."""
        self._last: NDArray[np.float64] | None = None

    def __call__(self, value: NamedValues) -> NDArray[np.float32]:
        names = list(value.names)
        order = self._wanted if self._wanted and set(self._wanted) <= set(names) else names
        row = joint_vector(names, value.values, order)
        for turn in quaternions(order):
            row = continuous(row[None], turn, self._last)[0]
        self._last = row
        return row.astype(np.float32)
