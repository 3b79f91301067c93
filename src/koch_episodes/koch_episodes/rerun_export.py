# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""An episode as a Rerun recording: `koch inspect --rerun FILE.rrd`, `rerun FILE.rrd` opens it.

Images stay the camera's own JPEGs, videos of a dataset are referred to frame by frame; nothing is
decoded. Everything stands under two time lines: `episode`, seconds from its start, and `stamp`.

Source: rerun-sdk 0.26, https://rerun.io/docs/reference/types/archetypes.
"""

from __future__ import annotations

import contextlib
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError, KochError
from koch_core.stream import NS_PER_S
from koch_episodes import cdr
from koch_episodes.bag import Bag, is_bag, open_bag
from koch_episodes.bag.types import TypeDecoder
from koch_episodes.errors import DatasetFormatError
from koch_rig.geometry import quaternion_from_matrix, rpy_to_matrix
from koch_rig.joints import plain_joints

_IMAGE, _JOINTS = "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/JointState"
_TRANSFORMS, _TEXT = "tf2_msgs/msg/TFMessage", "std_msgs/msg/String"
_AT_ONCE = 64  # images that are held before they are written
_AXIS_M = 0.03  # drawn length of a frame's axes
Vector = npt.NDArray[np.float64]


class RerunMissingError(KochError):
    """The extra package is not installed."""

    def __init__(self) -> None:
        super().__init__(
            "--rerun needs the package rerun-sdk, which is not installed. "
            "`./koch setup --with rerun` adds it."
        )


def export_rerun(path: Path, file: Path, *, episode: int = 0) -> None:
    """Write one episode of a bag or dataset as a Rerun recording.

    Args:
        path: Bag or dataset.
        file: The .rrd, which appears when it is whole.
        episode: Of a dataset.

    Raises:
        KochError: rerun-sdk is missing, or the episode cannot be read.
    """
    try:
        import rerun
    except ImportError as exc:
        raise RerunMissingError from exc
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.partial")
    recording = rerun.RecordingStream("koch", recording_id=f"{path.resolve().name}/{episode}")
    recording.save(partial)
    try:
        out = _Out(rerun, recording)
        if is_bag(path):
            _write_bag(path, out)
        else:
            _write_dataset(path, episode, out)
        recording.disconnect()  # which writes what waits
        partial.replace(file)
    finally:
        recording.disconnect()
        partial.unlink(missing_ok=True)


class _Out:
    """Writes columns of one episode.

    Args:
        rerun: The module, which may be missing when this one is imported.
        recording: Its stream.
    """

    def __init__(self, rerun: Any, recording: Any) -> None:
        self.rerun, self._recording = rerun, recording
        self.start_ns: int | None = None  # of the first stamp; None: there are no stamps

    def still(self, entity: str, what: Any) -> None:
        """What holds at all times."""
        self.rerun.log(entity, what, static=True, recording=self._recording)

    def columns(self, entity: str, stamps_ns: Sequence[int], columns: Any) -> None:
        """Values over time."""
        stamps = np.asarray(stamps_ns, np.int64)
        seconds = (stamps - (self.start_ns or 0)) / NS_PER_S
        times = [self.rerun.TimeColumn("episode", duration=seconds)]
        if self.start_ns is not None:
            moments = stamps.astype("datetime64[ns]")
            times.append(self.rerun.TimeColumn("stamp", timestamp=moments))
        self.rerun.send_columns(entity, times, columns, recording=self._recording)

    def curves(
        self, entity: str, stamps_ns: Sequence[int], names: Sequence[str], values: Vector
    ) -> None:
        """One scalar for each name, values (T, len(names))."""
        for name, column in zip(names, values.T, strict=True):
            self.columns(f"{entity}/{name}", stamps_ns, self.rerun.Scalars.columns(scalars=column))


# -- bags -----------------------------------------------------------------------------------------


def _write_bag(path: Path, out: _Out) -> None:
    with open_bag(path) as bag:
        kinds = {name: topic.type for name, topic in bag.topics.items()}
        moving = {name: kind for name, kind in kinds.items() if kind in (_IMAGE, _JOINTS)}
        firsts = (cdr.header_stamp_ns(message.data) for message in bag.messages(moving))
        out.start_ns = min(firsts, default=0)
        joints = _write_streams(bag, moving, out)
        frames = _LoggedFrames(bag, kinds)
    frames.write(joints, out)


def _write_streams(
    bag: Bag, kinds: Mapping[str, str], out: _Out
) -> dict[str, tuple[list[int], list[str], Vector]]:
    """Write images and joints; stamps, names and positions of each topic with joints."""
    images: dict[str, list[tuple[int, bytes]]] = defaultdict(list)
    rows: dict[str, list[tuple[int, Vector]]] = defaultdict(list)
    readers: dict[str, tuple[cdr.JointStateReader, list[str]]] = {}
    for message in bag.messages(kinds):
        stamp_ns = cdr.header_stamp_ns(message.data)
        with contextlib.suppress(DecodeError):  # as the converter: it counts as not come
            if kinds[message.topic] == _IMAGE:
                waiting = images[message.topic]
                waiting.append((stamp_ns, cdr.compressed_image(message.data)))
                if len(waiting) >= _AT_ONCE:
                    _write_images(message.topic, images.pop(message.topic), out)
                continue
            reader, names = readers.setdefault(message.topic, (cdr.JointStateReader(), []))
            found, positions = reader.read(message.data)
            names = names or list(found)
            readers[message.topic] = reader, names
            if list(found) == names and len(positions) == len(names):
                rows[message.topic].append((stamp_ns, positions))
    for topic, waiting in images.items():
        _write_images(topic, waiting, out)
    joints = {}
    for topic, pairs in rows.items():
        stamps, values = [stamp for stamp, _ in pairs], np.stack([row for _, row in pairs])
        names = readers[topic][1]
        out.curves(topic.lstrip("/"), stamps, plain_joints(names), values)
        joints[topic] = stamps, names, values
    return joints


def _write_images(topic: str, images: Sequence[tuple[int, bytes]], out: _Out) -> None:
    entity = topic.lstrip("/").partition("/image_raw")[0]
    data = [image for _, image in images]
    kinds = ["image/png" if image.startswith(b"\x89PNG") else "image/jpeg" for image in data]
    columns = out.rerun.EncodedImage.columns(blob=data, media_type=kinds)
    out.columns(entity, [stamp for stamp, _ in images], columns)


class _LoggedFrames:
    """The tree of frames: what `/tf_static` fixes, and the joints that the arms' URDFs move."""

    def __init__(self, bag: Bag, kinds: Mapping[str, str]) -> None:
        decoder = TypeDecoder()
        self._fixed: dict[str, tuple[str, Vector, Vector]] = {}  # child: parent, xyz, xyzw
        # By arm and joint; arms have joints of the same names.
        self._moving: dict[tuple[str, str], ElementTree.Element] = {}
        self._parents: dict[str, str] = {}
        wanted = {
            name: kind
            for name, kind in kinds.items()
            if (kind == _TRANSFORMS and name.endswith("tf_static"))
            or (kind == _TEXT and name.endswith("robot_description"))
        }
        for name in wanted:
            decoder.add(bag.topics[name])
        for message in bag.messages(wanted):
            read = decoder.decode(wanted[message.topic], message.data)
            if wanted[message.topic] == _TEXT:
                self._add_urdf(_arm_of(message.topic), read.data)
                continue
            for item in read.transforms:
                xyz, turn = item.transform.translation, item.transform.rotation
                self._fixed[item.child_frame_id] = (
                    item.header.frame_id,
                    np.array([xyz.x, xyz.y, xyz.z]),
                    np.array([turn.x, turn.y, turn.z, turn.w]),
                )
                self._parents[item.child_frame_id] = item.header.frame_id

    def _add_urdf(self, arm: str, text: str) -> None:
        for joint in ElementTree.fromstring(text).iter("joint"):
            parent, child = joint.find("parent"), joint.find("child")
            if joint.get("type") in ("revolute", "continuous") and None not in (parent, child):
                assert parent is not None
                assert child is not None
                (name,) = plain_joints([str(joint.get("name"))])
                self._moving[arm, name] = joint
                self._parents[str(child.get("link"))] = str(parent.get("link"))

    def write(self, joints: Mapping[str, tuple[list[int], list[str], Vector]], out: _Out) -> None:
        """Fixed frames once, moving ones over time."""
        for child, (_, xyz, turn) in self._fixed.items():
            transform = out.rerun.Transform3D(
                translation=xyz, quaternion=turn, axis_length=_AXIS_M
            )
            out.still(self._entity(child), transform)
        for topic, (stamps, names, values) in joints.items():
            if not topic.endswith("joint_states"):
                continue
            for name, angles in zip(plain_joints(names), values.T, strict=True):
                alone = self._moving.get(("", name))  # of a bag with one arm
                joint = self._moving.get((_arm_of(topic), name), alone)
                if joint is not None:
                    self._write_joint(joint, stamps, angles, out)

    def _write_joint(
        self, joint: ElementTree.Element, stamps_ns: Sequence[int], angles: Vector, out: _Out
    ) -> None:
        child = joint.find("child")
        assert child is not None
        entity = self._entity(str(child.get("link")))
        origin = quaternion_from_matrix(
            rpy_to_matrix(*_numbers(joint, "origin", "rpy", (0, 0, 0)))
        )
        axis = np.array(_numbers(joint, "axis", "xyz", (1, 0, 0)))
        turned = np.concatenate(
            [
                np.sin(angles / 2)[:, None] * axis / np.linalg.norm(axis),
                np.cos(angles / 2)[:, None],
            ],
            axis=1,
        )
        xyz = np.array(_numbers(joint, "origin", "xyz", (0, 0, 0)))
        out.columns(
            entity,
            stamps_ns,
            out.rerun.Transform3D.columns(
                translation=np.repeat(xyz[None], len(angles), axis=0),
                quaternion=_product(origin, turned),
                axis_length=[_AXIS_M] * len(angles),
            ),
        )

    def _entity(self, frame: str) -> str:
        """Path of a frame below its parents; a slash inside a name would begin a new part."""
        parts = [frame]
        while (parent := self._parents.get(parts[-1])) and parent not in parts:
            parts.append(parent)
        return "frames/" + "/".join(part.replace("/", "_") for part in reversed(parts))


def _arm_of(topic: str) -> str:
    """The namespace of a topic: `follower` of `/follower/joint_states`."""
    return topic.strip("/").rpartition("/")[0]


def _numbers(
    joint: ElementTree.Element, tag: str, key: str, default: Sequence[float]
) -> Sequence[float]:
    item = joint.find(tag)
    text = None if item is None else item.get(key)
    return default if text is None else [float(word) for word in text.split()]


def _product(first: Vector, others: Vector) -> Vector:
    """Quaternions (x, y, z, w): one times each of several (T, 4)."""
    x, y, z, w = first
    left = np.array([[w, -z, y, x], [z, w, -x, y], [-y, x, w, z], [-x, -y, -z, w]])
    return np.asarray(others @ left.T)


# -- datasets -------------------------------------------------------------------------------------


def _write_dataset(path: Path, number: int, out: _Out) -> None:
    from koch_episodes.dataset.edit.source import SourceDataset
    from koch_episodes.dataset.load import column_array

    source = SourceDataset(path)
    found = [episode for episode in source.episodes if episode.index == number]
    if not found:
        raise DatasetFormatError(path, f"no episode {number}", "one that is in it")
    (episode,) = found
    stamps = [round(k * NS_PER_S / source.info.fps) for k in range(episode.length)]
    for key in ("observation.state", "action"):
        spec = source.features.get(key)
        if spec is None or not spec.is_numeric:
            continue
        values = column_array(source.rows(episode, [key])[key], spec.shape)
        values = values.reshape(episode.length, -1).astype(np.float64)
        names = spec.names or tuple(str(place) for place in range(values.shape[1]))
        out.curves(key.replace(".", "/"), stamps, names, values)
    for key, place in episode.videos.items():
        entity = key.replace(".", "/")
        out.still(entity, out.rerun.AssetVideo(path=place.path))
        shown = [round(place.from_s * NS_PER_S) + stamp for stamp in stamps]
        out.columns(entity, stamps, out.rerun.VideoFrameReference.columns_nanos(shown))
