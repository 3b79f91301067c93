# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch convert --to-bag`: each episode of a LeRobot dataset as a rosbag2 MCAP bag.

Every topic has one message per frame, stamped with the frame's tick, so that the converter finds
the same frames again. Numbers are written as float64, and what the way back would make of them is
compared with the dataset. Frames are held one at a time, numbers one episode at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import numpy.typing as npt

from koch_core.errors import DecodeError, KochError
from koch_core.files import sole_writer
from koch_core.image import encode_jpeg, image_size, is_png
from koch_core.stream import NS_PER_S, to_ns
from koch_core.yuv import rgb_of_frame
from koch_episodes.bag.messages import (
    CAMERA_INFO,
    STRING,
    TRANSFORMS,
    MessageMaker,
    revolute_joints,
)
from koch_episodes.bag.qos import OfferedQos
from koch_episodes.bag.storage import EVENTS_TYPE
from koch_episodes.bag.writer import PARTIAL, BagWriter
from koch_episodes.convert.bag_layout import MAP_FILE, BagLayout, layout_of
from koch_episodes.convert.camera_info import info_topics, infos_of_dataset
from koch_episodes.convert.columns import dataset_columns, reward_columns
from koch_episodes.convert.events import (
    DATASET,
    INTERVENTION_BEGIN,
    INTERVENTION_END,
    START,
    Window,
)
from koch_episodes.convert.mapping import (
    ACTION,
    INTERVENTION,
    STATE,
    FeatureSource,
)
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.convert.plan import Segment
from koch_episodes.dataset.edit.cut import frames_of, packets_of, plan_cut
from koch_episodes.dataset.edit.pieces import chosen
from koch_episodes.dataset.edit.source import SourceDataset
from koch_episodes.dataset.format import Episode
from koch_episodes.dataset.layout import INFO
from koch_episodes.dataset.load import column_array, image_bytes
from koch_episodes.errors import (
    DatasetFormatError,
    EpisodeError,
    OutputExistsError,
    OutputUnwritableError,
)
from koch_rig.action_layout import ActionLayout
from koch_rig.model import published_urdf, world_camera_arm
from koch_rig.stream import (
    COMPRESSED_IMAGE,
    JOINT_STATE,
    NAMED_VECTOR,
    camera_stream,
    topic_of,
)
from koch_rig.units import Units

_BEGIN_NS = 1_700_000_000 * NS_PER_S  # a dataset does not tell when it was recorded
_PAUSE_NS = 10 * NS_PER_S  # between episodes
_QUALITY = 95  # of the JPEGs that are made of videos
_FLUSH_BYTES = 1 << 22
_STREAM = OfferedQos(reliable=True, depth=5)
_LATCHED = OfferedQos(reliable=True, latched=True, depth=1)
_RUN = "source.json"

Table = npt.NDArray[np.float64]
Progress = Callable[[int, int], None]


@dataclass
class BagResult:
    """What came of a dataset.

    Attributes:
        episodes: Bags that were written, or were there from an interrupted run.
        frames: Frames in them.
        way_back: Command that makes the dataset again.
        told: What people should know, one line each.
    """

    episodes: int
    frames: int
    way_back: str
    told: list[str] = field(default_factory=list)


def to_bags(
    root: Path,
    out: Path,
    options: ConvertOptions,
    *,
    resume: bool = False,
    progress: Progress | None = None,
) -> BagResult:
    """Write a bag for each episode of a dataset, below a folder that appears when all are there.

    Args:
        root: Dataset folder.
        out: Folder of the bags; must not exist.
        options: `rig`, `map`, `units` and `episodes` of it count.
        resume: Keep the bags of an interrupted run.
        progress: Called after each episode with the number done and the number of all.

    Raises:
        KochError: The dataset cannot be read, the rig or map does not fit, or nothing can be
            written there.
    """
    out = Path(os.path.abspath(out))
    if out.exists():
        raise OutputExistsError(out)
    source = SourceDataset(root)
    episodes = chosen(source, options.episodes)
    layout = layout_of(source, options)
    stage = out.with_name(f".{out.name}.bags")
    try:
        with sole_writer(out):
            stage.mkdir(exist_ok=True)
            _begin(stage, _identity(root, options), resume=resume)
            writer = _EpisodeWriter(source, layout)
            for number, episode in enumerate(episodes):
                writer.write(stage / f"episode_{episode.index:06d}", episode)
                if progress is not None:
                    progress(number + 1, len(episodes))
            if layout.map_text:
                (stage / MAP_FILE).write_text(layout.map_text, encoding="utf-8")
            (stage / _RUN).unlink()
            stage.rename(out)
    except OSError as exc:
        raise OutputUnwritableError(out, exc) from exc
    frames = sum(episode.length for episode in episodes)
    return BagResult(len(episodes), frames, layout.way_back(out), writer.told())


def _identity(root: Path, options: ConvertOptions) -> str:
    """What must be the same for a run to go on where another one stopped."""
    tables = sorted((root / "data").rglob("*.parquet"))
    facts = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in tables]
    maps = [path.read_text("utf-8") for path in (options.rig, options.map) if path is not None]
    said = [str(root.resolve()), (root / INFO).read_text("utf-8"), facts, maps]
    text = json.dumps([said, options.to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _begin(stage: Path, identity: str, *, resume: bool) -> None:
    """Empty the stage folder, but for the whole bags of the same run."""
    path = stage / _RUN
    goes_on = resume and path.is_file() and path.read_text(encoding="utf-8") == identity
    for inside in stage.iterdir():
        if inside != path and not (goes_on and inside.is_dir() and inside.suffix != PARTIAL):
            shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
    path.write_text(identity, encoding="utf-8")


@dataclass
class _Camera:
    """What became of one camera's images."""

    copied: int = 0
    encoded: int = 0


class _EpisodeWriter:
    """Writes episodes as bags, and notes what will not come back as it was."""

    def __init__(self, source: SourceDataset, layout: BagLayout) -> None:
        self._source = source
        self._layout = layout
        self._maker = MessageMaker()
        self._urdfs: dict[str, str] = {}
        self._joints: dict[str, list[Element]] = {}  # of each arm, those that turn
        self._notes: list[str] = list(layout.told)
        self._differ: Counter[str] = Counter()
        self._cameras: dict[str, _Camera] = {}
        self._next_ns = _BEGIN_NS
        self._is_reward = layout.options.rewards
        infos = infos_of_dataset(source.root, source.koch, source.features)
        topics = info_topics(layout.map, infos)
        self._infos = {key: (topic, infos[key]) for key, topic in topics.items()}
        if layout.left_out:
            self._notes.append(f"left out: {', '.join(layout.left_out)}")
        if layout.nameless:
            named = ", ".join(sorted(layout.nameless))
            self._notes.append(f"elements are called value_0 and so on: {named}")
        self._describe()

    def _describe(self) -> None:
        """Take the descriptions of a rig's arms, where the files for them are installed."""
        rig = self._layout.rig
        try:
            if rig is not None:
                self._urdfs = {arm: published_urdf(rig, arm) for arm in rig.arms}
        except (KochError, ImportError) as exc:
            self._notes.append(f"no robot_description and no /tf_static ({exc})")

    def write(self, folder: Path, episode: Episode) -> None:
        """Write one episode, unless its bag is there already.

        Raises:
            KochError: It cannot be read.
            OSError: It cannot be written.
        """
        start, fps = self._next_ns, self._source.info.fps
        ticks = start + np.round(np.arange(episode.length) * NS_PER_S / fps).astype(np.int64)
        self._next_ns = _whole_second(int(ticks[-1]) + _PAUSE_NS)
        tables = self._tables(episode)
        self._compare(episode, ticks, tables)
        tasks = self._source.tasks_of(episode)
        if len(set(tasks)) > 1:
            self._notes.append(f"episode {episode.index}: only the first of its tasks is kept")
        if episode.length < 2:
            self._notes.append(f"episode {episode.index}: one frame, which converts to none")
        if folder.exists():
            return
        custom = {
            **self._layout.custom,
            "koch.task": tasks[0],
            "koch.index": str(episode.index),
            "koch.outcome": episode.outcome,
            DATASET: self._source.root.resolve().name,
        }
        writer = BagWriter(folder, custom)
        try:
            self._fill(_Channels(writer, self._maker), episode, ticks, tables)
            writer.finish({})
        except BaseException:
            writer.abandon()
            raise

    # -- numbers --------------------------------------------------------------------------------

    def _tables(self, episode: Episode) -> dict[str, Table]:
        """Values of each feature as messages have them: joints in [rad], float64, shape (T, N)."""
        keys = [key for key in self._source.features if self._source.features[key].is_numeric]
        rows = self._source.rows(episode, keys)
        self._stored = {
            key: column_array(rows[key], self._source.features[key].shape).reshape(
                episode.length, -1
            )
            for key in keys
        }
        found: dict[str, Table] = {}
        options, units = self._layout.options, self._layout.units
        for feature in self._layout.map.features:
            if feature.key not in self._stored:
                continue
            table = self._stored[feature.key].astype(np.float64)
            if options.delta_actions and feature.key == ACTION:
                table = table + self._stored[STATE]
            if options.units is not Units.RADIANS and units:
                parts = ((s.arm or "", s.names) for s in feature.sources)
                table = ActionLayout.of(parts).to_rad(units, options.units, table)
            found[feature.key] = table
        return found

    def _compare(
        self, episode: Episode, ticks: npt.NDArray[np.int64], tables: Mapping[str, Table]
    ) -> None:
        """Count the frames whose numbers the converter would not find again."""
        layout, window = self._layout, Window(outcome=episode.outcome)
        scaled = {
            feature.key: np.concatenate(
                [
                    part / source.scale * source.scale
                    for source, part in _parts(feature.sources, tables[feature.key])
                ],
                axis=1,
            )
            for feature in layout.map.features
            if feature.key in tables
        }
        segment = Segment(window, 0, ticks, {}, {}, columns=scaled)
        back = dataset_columns(segment, layout.map, layout.units, layout.rig, layout.options)
        if self._is_reward:
            succeeds = episode.outcome == "success"
            back |= reward_columns(episode.length, succeeds=succeeds)
        for key, values in back.items():
            if key in self._stored:
                stored = self._stored[key]
                # What is not finite is taken for no sample on the way back.
                same = ((values.reshape(stored.shape) == stored) & np.isfinite(stored)).all(axis=1)
                self._differ[key] += int((~same).sum())

    # -- messages -------------------------------------------------------------------------------

    def _fill(
        self,
        channels: _Channels,
        episode: Episode,
        ticks: npt.NDArray[np.int64],
        tables: Mapping[str, Table],
    ) -> None:
        start = int(ticks[0])
        self._write_descriptions(channels, start)
        topics = self._topics(tables)
        images = {
            feature.key: (feature.sources[0], self._images(episode, feature.key))
            for feature in self._layout.map.features
            if self._source.features[feature.key].is_image
        }
        human = self._stored.get(INTERVENTION) if self._layout.rig is not None else None
        for k, tick in enumerate(ticks.tolist()):
            if human is not None and (k == 0 or human[k, 0] != human[k - 1, 0]):
                self._write_change(channels, episode, tick, bool(human[k, 0]), first=k == 0)
            for topic, (source, fields) in topics.items():
                stamp = tick - to_ns(source.offset_s)
                data = self._numbers(source, stamp, {f: v[k] for f, v in fields.items()})
                channels.write(topic, self._kind(source), data, stamp)
                if topic.endswith("/joint_states") and "position" in fields:
                    self._write_frames(channels, source, stamp, fields["position"][k])
            for key, (source, shown) in images.items():
                stamp = tick - to_ns(source.offset_s)
                image, form = next(shown)
                frame = self._frame_id(source.topic)
                data = self._maker.image(stamp, image, form, frame)
                channels.write(source.topic, COMPRESSED_IMAGE, data, stamp)
                if key in self._infos:
                    topic, info = self._infos[key]
                    data = self._maker.camera_info(stamp, info, frame)
                    channels.write(topic, CAMERA_INFO, data, stamp)

    def _write_descriptions(self, channels: _Channels, start_ns: int) -> None:
        """What latched topics hold begins each bag of the recorder."""
        rig = self._layout.rig
        if rig is None or not self._urdfs:
            return
        for arm, urdf in self._urdfs.items():
            names = [f"/{arm}/robot_description"]
            names += ["/robot_description"] * (arm == world_camera_arm(rig))
            for name in names:
                channels.write(name, STRING, self._maker.text(urdf), start_ns, _LATCHED)
        frames = self._maker.fixed_frames(start_ns, self._urdfs.values())
        channels.write("/tf_static", TRANSFORMS, frames, start_ns, _LATCHED)

    def _write_frames(
        self,
        channels: _Channels,
        source: FeatureSource,
        stamp: int,
        positions: npt.NDArray[np.float64],
    ) -> None:
        """Write the arm's moving frames, where its description is known, as the graph does."""
        rig, arm = self._layout.rig, source.arm
        if rig is None or arm not in self._urdfs or not np.isfinite(positions).all():
            return
        if arm not in self._joints:
            self._joints[arm] = revolute_joints(self._urdfs[arm])
        prefix = rig.arms[arm].joint_prefix
        named = (f"{prefix}{name}" for name in source.names)
        angles = dict(zip(named, positions.tolist(), strict=True))
        known = [joint for joint in self._joints[arm] if joint.get("name") in angles]
        data = self._maker.moving_frames(stamp, known, angles)
        channels.write("/tf", TRANSFORMS, data, stamp)

    def _frame_id(self, topic: str) -> str:
        """The frame of a rig camera's images; of others it is not known."""
        for name in {} if self._layout.rig is None else self._layout.rig.cameras:
            if topic == topic_of(camera_stream(name)):
                return f"{name}_optical_frame"
        return ""

    def _write_change(
        self, channels: _Channels, episode: Episode, tick: int, human: bool, *, first: bool
    ) -> None:
        """Say who drives; at the begin also that the episode begins, which sets its ticks."""
        index = episode.index
        if first:
            data = self._maker.event(tick, START, index, "", "")
            channels.write("/episodes/events", EVENTS_TYPE, data, tick)
        kind = INTERVENTION_BEGIN if human else INTERVENTION_END
        data = self._maker.event(tick, kind, index, "", "")
        channels.write("/episodes/events", EVENTS_TYPE, data, tick)

    def _topics(
        self, tables: Mapping[str, Table]
    ) -> dict[str, tuple[FeatureSource, dict[str, Table]]]:
        """Topic to a source of it and its fields; features may share a topic's fields."""
        found: dict[str, tuple[FeatureSource, dict[str, Table]]] = {}
        for feature in self._layout.map.features:
            for source, part in _parts(feature.sources, tables.get(feature.key)):
                known, fields = found.setdefault(source.topic, (source, {}))
                values = part / source.scale
                if known.names != source.names or source.field in fields:
                    held = fields.get(source.field, values)
                    same = known.names == source.names and np.array_equal(held, values)
                    if not same:
                        what = f"features that share {source.topic} hold other numbers"
                        raise EpisodeError(self._source.root.name, what, "Give --map.")
                fields[source.field] = values
        return found

    def _kind(self, source: FeatureSource) -> str:
        """Message type of a topic of numbers."""
        rig = self._layout.rig
        kinds = {} if rig is None else {s.topic: s.content for s in rig.streams.values()}
        content = kinds.get(source.topic)
        return NAMED_VECTOR if content and content.message_type == NAMED_VECTOR else JOINT_STATE

    def _numbers(
        self, source: FeatureSource, stamp: int, fields: dict[str, npt.NDArray[np.float64]]
    ) -> bytes:
        rig, names = self._layout.rig, source.names
        if self._kind(source) == NAMED_VECTOR:
            return self._maker.named_vector(stamp, names, fields["position"])
        if rig is not None and source.arm:
            names = tuple(f"{rig.arms[source.arm].joint_prefix}{name}" for name in names)
        return self._maker.joint_state(stamp, names, **fields)

    # -- images ---------------------------------------------------------------------------------

    def _images(self, episode: Episode, key: str) -> Iterator[tuple[bytes, str]]:
        """Yield the image of each frame with its form; as stored, where it is a JPEG or PNG."""
        spec, camera = self._source.features[key], self._cameras.setdefault(key, _Camera())
        if not spec.is_video:
            yield from self._stored_images(episode, key, camera)
            return
        place, fps = episode.videos[key], self._source.info.fps
        numbers = plan_cut(place, 0, episode.length, fps, spec.info).numbers
        if (spec.info or {}).get("video.codec") == "mjpeg":
            for data, count in packets_of(place.path, numbers):
                camera.copied += count
                for _ in range(count):
                    yield data, "jpeg"
            return
        for frame, count in frames_of(place.path, numbers):
            data = encode_jpeg(rgb_of_frame(frame), _QUALITY)
            camera.encoded += count
            for _ in range(count):
                yield data, "jpeg"

    def _stored_images(
        self, episode: Episode, key: str, camera: _Camera
    ) -> Iterator[tuple[bytes, str]]:
        where = f"{self._source.root}, episode {episode.index}"
        cells = self._source.rows(episode, [key])[key]
        for k in range(episode.length):
            data = image_bytes(cells[k].as_py(), where, f"{key!r} of frame {k}")
            try:
                image_size(data)
                camera.copied += 1
            except DecodeError as exc:
                got = f"in {key!r} of frame {k} {exc.why}"
                raise DatasetFormatError(where, got, "a PNG or JPEG") from exc
            yield data, "png" if is_png(data) else "jpeg"

    def told(self) -> list[str]:
        """What people should know, after all episodes."""
        exact = [key for key, count in self._differ.items() if not count]
        lines = [f"numbers come back exactly: {', '.join(exact)}"] if exact else []
        lines += [
            f"{key}: {count} frames come back with other numbers"
            for key, count in self._differ.items()
            if count
        ]
        for key, camera in self._cameras.items():
            if camera.encoded:
                lines.append(
                    f"{key}: {camera.encoded} images were decoded and made JPEGs of quality "
                    f"{_QUALITY}; they come back alike, not equal"
                )
            if camera.copied:
                lines.append(f"{key}: {camera.copied} images were copied")
        return [*lines, *dict.fromkeys(self._notes)]


def _parts(sources: Any, table: Table | None) -> Iterator[tuple[FeatureSource, Table]]:
    """Yield the columns of each source of a feature; nothing of images."""
    start = 0
    for source in sources if table is not None else ():
        assert table is not None
        yield source, table[:, start : start + len(source.names)]
        start += len(source.names)


def _whole_second(time_ns: int) -> int:
    return -(-time_ns // NS_PER_S) * NS_PER_S


class _Channels:
    """The topics of a bag that is being written, each described when it is first used."""

    def __init__(self, writer: BagWriter, maker: MessageMaker) -> None:
        self._writer = writer
        self._maker = maker
        self._numbers: dict[str, int] = {}

    def write(
        self, name: str, kind: str, data: bytes, stamp_ns: int, qos: OfferedQos = _STREAM
    ) -> None:
        """Write a message, recorded when it was stamped."""
        if name not in self._numbers:
            topic, type_hash = self._maker.topic(name, kind)
            self._numbers[name] = self._writer.add_topic(topic, type_hash=type_hash, qos=[qos])
        self._writer.write(self._numbers[name], data, stamp_ns, stamp_ns)
        if self._writer.pending > _FLUSH_BYTES:
            self._writer.flush()
