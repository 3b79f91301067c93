# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Every parser that reads bytes of somebody else, as one function of these bytes.

A target passes where its parser returns or raises a `KochError`: whatever else escapes is a fault,
a crash or a hang as well. A new parser of foreign bytes gets a target here.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from koch_core.errors import KochError
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "docs" / "sample"
CORPUS = Path(__file__).parent / "corpus"


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: Of the target, and of its folder in corpus/.
        parse: Gives these bytes to the parser.
        seeds: Whole inputs, as their real writers make them.
        longest: Bytes of the longest input worth a try.
    """

    name: str
    parse: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    longest: int = 4096

    def __call__(self, data: bytes) -> None:
        """Parse; errors that are written for the user are what is wanted."""
        with suppress(KochError):
            self.parse(data)

    def kept(self) -> list[Path]:
        """Inputs that once broke it."""
        return sorted(path for path in (CORPUS / self.name).glob("*") if path.is_file())


TARGETS: dict[str, Target] = {}


def target(
    seeds: Callable[[], Iterable[bytes]], longest: int = 4096
) -> Callable[[Callable[[bytes], None]], Target]:
    """Register a parser under its function's name."""

    def register(parse: Callable[[bytes], None]) -> Target:
        found = Target(parse.__name__, parse, seeds, longest)
        TARGETS[found.name] = found
        return found

    return register


@cache
def scratch() -> Path:
    """A folder in memory where there is one: a target writes a file per input."""
    memory = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="koch_fuzz_", dir=memory if memory.is_dir() else None))


# --- the bus ------------------------------------------------------------------------------------


def _packets() -> Iterable[bytes]:
    from koch_driver.bus.packet import Instruction, build, build_status

    yield build(1, Instruction.PING)
    yield build_status(1, 0, struct.pack("<hii", -3, 12, 2048)) * 3
    yield build_status(2, 0x80, b"\xff\xff\xfd\xfd\x01")


@target(_packets, 512)
def dynamixel(data: bytes) -> None:
    """A serial line: the same packets come out however the bytes are cut."""
    from koch_driver.bus.packet import PacketParser

    at_once, apart = PacketParser(), PacketParser()
    whole = at_once.feed(data)
    cut = [packet for byte in data for packet in apart.feed(bytes([byte]))]
    assert whole == cut[: len(whole)] or at_once.crc_errors or at_once.bad_packets
    assert len(at_once.pending) <= len(data)


# --- images -------------------------------------------------------------------------------------


def _images() -> Iterable[bytes]:
    import numpy as np

    from koch_core.image import encode_jpeg

    grey = np.arange(24 * 32 * 3, dtype=np.uint8).reshape(24, 32, 3)
    yield encode_jpeg(grey, 80)
    yield encode_jpeg(grey[:8, :8].copy(), 30)


@target(_images)
def jpeg(data: bytes) -> None:
    """A camera's image, as recorder, converter and policy read it."""
    from koch_core.image import check_jpeg, decode_image, grey_eighth, image_size

    for read in (image_size, check_jpeg, grey_eighth, decode_image):
        with suppress(KochError):
            read(data)


def _parts() -> Iterable[bytes]:
    for image in _images():
        head = b"--frame\r\nContent-Type: image/jpeg\r\nX-Timestamp: 12.5\r\n"
        yield head + b"Content-Length: %d\r\n\r\n" % len(image) + image + b"\r\n--frame--\r\n"
        yield head + b"\r\n" + image + b"\n--frame\n\n"


@target(_parts)
def multipart(data: bytes) -> None:
    """A network camera's HTTP body."""
    from io import BytesIO

    from koch_cameras.multipart import ByteStream, MultipartReader, boundary_of, timestamp_ns

    reader = MultipartReader("http://camera", "frame", ByteStream("camera", BytesIO(data).read))
    boundary_of(data[:80].decode("latin-1"))
    while True:
        timestamp_ns(reader.next_part().headers.get("x-timestamp"))


# --- bags ---------------------------------------------------------------------------------------


def _bags(storage: str) -> Iterable[bytes]:
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    text = types.types["std_msgs/msg/String"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bag"
        plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
        with Writer(path, version=9, storage_plugin=plugin) as writer:
            connection = writer.add_connection("/said", "std_msgs/msg/String", typestore=types)
            for number in range(3):
                raw = types.serialize_cdr(text(f"{number}"), "std_msgs/msg/String")
                writer.write(connection, 10**9 + number, raw)
        yield next(path.glob(f"*.{storage}")).read_bytes()


def _read_bag(path: Path) -> None:
    from koch_episodes.bag.reader import Bag

    with Bag(path) as bag:
        for message in bag.messages(list(bag.topics)):
            assert message.data is not None


@target(lambda: _bags("mcap"), 16384)
def mcap(data: bytes) -> None:
    """An MCAP file, read whole, scanned for what a crash left, and repaired."""
    from koch_episodes.bag.repair import repair_all

    root = scratch() / "mcap"
    shutil.rmtree(root, ignore_errors=True)
    partial = root / "bag.partial"
    partial.mkdir(parents=True)
    (partial / "bag_0.mcap").write_bytes(data)
    with suppress(KochError):
        _read_bag(partial / "bag_0.mcap")
    for repaired in repair_all(root, root / "trash"):
        if repaired.whole:
            _read_bag(repaired.path)


@target(lambda: _bags("db3"), 65536)
def sqlite3_bag(data: bytes) -> None:
    """A rosbag2 database."""
    path = scratch() / "bag_0.db3"
    path.write_bytes(data)
    _read_bag(path)


@target(lambda: [(SAMPLE / "episode_000000" / "metadata.yaml").read_bytes()], 8192)
def bag_metadata(data: bytes) -> None:
    """A bag's metadata.yaml beside a file that is whole."""
    folder = scratch() / "described"
    if not folder.is_dir():
        folder.mkdir()
        (folder / "episode_000000_0.mcap").write_bytes(next(iter(_bags("mcap"))))
    (folder / "metadata.yaml").write_bytes(data)
    _read_bag(folder)


def _messages() -> Iterable[bytes]:
    from koch_episodes.bag.reader import Bag

    with Bag(SAMPLE / "episode_000000") as bag:
        seen = set()
        for message in bag.messages(list(bag.topics)):
            if message.topic not in seen and len(message.data) < 4096:
                seen.add(message.topic)
                yield message.data


@target(_messages)
def cdr(data: bytes) -> None:
    """Serialised messages, read field by field without ROS."""
    from koch_episodes.cdr import (
        JointStateReader,
        compressed_image,
        header_stamp_ns,
        image,
        stream_state,
    )

    reader = JointStateReader()
    for read in (header_stamp_ns, compressed_image, image, stream_state, reader.read):
        with suppress(KochError, *_CDR_ERRORS):
            read(data)


# What the readers of `cdr` promise their callers, who turn it into a DecodeError with the topic.
_CDR_ERRORS: tuple[type[Exception], ...] = (struct.error, ValueError, IndexError)


# --- datasets and checkpoints -------------------------------------------------------------------

_DATASET_FILES = (
    "meta/info.json",
    "meta/stats.json",
    "meta/tasks.parquet",
    "meta/episodes/chunk-000/file-000.parquet",
    "data/chunk-000/file-000.parquet",
)


def _one_of(names: tuple[str, ...], folder: Callable[[], Path]) -> Iterable[bytes]:
    """Files of a folder, each behind the number that says which it is."""
    for number, name in enumerate(names):
        yield bytes([number]) + (folder() / name).read_bytes()


def _replaced(data: bytes, names: tuple[str, ...], folder: Path, copy: Path) -> None:
    """Make `copy` the folder with one file replaced: the first byte says which."""
    if not copy.is_dir():
        shutil.copytree(folder, copy)
    for name in names:
        shutil.copyfile(folder / name, copy / name)
    if data:
        (copy / names[data[0] % len(names)]).write_bytes(data[1:])


@target(lambda: _one_of(_DATASET_FILES, lambda: SAMPLE / "dataset"), 1 << 17)
def dataset(data: bytes) -> None:
    """A LeRobot dataset, checked and read."""
    from koch_episodes.dataset.reader import LeRobotDatasetReader
    from koch_episodes.dataset.validate import validate_dataset

    copy = scratch() / "dataset"
    _replaced(data, _DATASET_FILES, SAMPLE / "dataset", copy)
    validate_dataset(copy, videos=False)
    opened = LeRobotDatasetReader(copy)
    opened.episode(0)
    opened.column("action")


_CHECKPOINT_FILES = ("config.json", "koch.json", "model.safetensors", "policy_preprocessor.json")


@cache
def _checkpoint() -> Path:
    from koch_policy import load_recipe, train_policy

    settings = ["train.steps=1", "train.batch_size=8", "train.validation_fraction=0"]
    settings += ["policy.dim_model=16", "policy.dim_feedforward=16", "policy.n_heads=1"]
    recipe = load_recipe("act", "tiny", settings=settings)
    out = Path(tempfile.mkdtemp(prefix="koch_fuzz_policy_"))
    return Path(train_policy(SAMPLE / "dataset", out, recipe, show_progress=False))


@target(lambda: _one_of(_CHECKPOINT_FILES, _checkpoint), 1 << 18)
def checkpoint(data: bytes) -> None:
    """A policy's folder."""
    from koch_policy.checkpoint import load_checkpoint

    copy = scratch() / "checkpoint"
    _replaced(data, _CHECKPOINT_FILES, _checkpoint(), copy)
    load_checkpoint(copy)


# --- the policy server --------------------------------------------------------------------------


def _server_messages() -> Iterable[bytes]:
    import numpy as np

    from koch_policy.server.protocol import packed

    yield packed({"kind": "hello", "version": 1, "names": ["a", "b"]})
    yield packed({"kind": "predict", "observation": {"state": np.zeros(J, np.float32)}})
    yield packed({"kind": "predict", "image": next(iter(_images()))})


@target(_server_messages)
def server_message(data: bytes) -> None:
    """What comes over the policy server's socket."""
    from koch_policy.server.protocol import packed, unpacked

    message = unpacked(data)
    assert unpacked(packed(message)).keys() == message.keys()


# --- files of the user --------------------------------------------------------------------------


@target(lambda: [(ROOT / "config" / "rig.sim.yaml").read_bytes()], 8192)
def rig(data: bytes) -> None:
    """A rig file."""
    from koch_rig.load import load_rig

    path = scratch() / "rig.yaml"
    path.write_bytes(data)
    load_rig(path, {})


def _calibrations() -> Iterable[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "config").glob("**/*.json"))[:2]]


@target(_calibrations)
def motor_calibration(data: bytes) -> None:
    """A calibration that LeRobot wrote."""
    from koch_rig.calibration import load_calibration

    path = scratch() / "calibration.json"
    path.write_bytes(data)
    load_calibration(path)


__all__ = ["CORPUS", "TARGETS", "Target"]
