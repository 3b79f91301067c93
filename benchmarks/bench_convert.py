#!/usr/bin/env python3
# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How quickly recorded episodes become a LeRobot dataset, per codec, next to LeRobot's own writer.

The episodes: two 640x480 cameras at 30 images/s (noise of a real sensor, objects that move),
joint states and commands at 100 Hz, written as MCAP bags. LeRobot gets the same images, decoded
beforehand, through `add_frame` and `save_episode` with its default settings. It runs in the Python
given by --lerobot-python (or KOCH_LEROBOT_PYTHON).

    python benchmarks/bench_convert.py --lerobot-python /path/to/lerobot/bin/python
    python benchmarks/bench_convert.py --episodes 1 --seconds 7200 --distinct 60  # memory

Rates are frames/s of the dataset: a frame is one row with one image of each of the two cameras.
Both sides are timed once their code is loaded: LeRobot from its first frame on, the conversion
after one of a few seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src" / name) for name in ("koch_core", "koch_rig", "koch_episodes")]

import numpy as np  # noqa: E402
from watch import Watch  # noqa: E402

from koch_core.image import PacketDecoder  # noqa: E402
from koch_episodes.bag import open_bag  # noqa: E402
from koch_episodes.convert import ConvertOptions, convert  # noqa: E402
from koch_episodes.dataset.layout import Codec  # noqa: E402
from koch_episodes.dataset.video import VideoSettings, VideoWriter  # noqa: E402
from koch_rig.arm_model import KOCH_V1_1  # noqa: E402

J = len(KOCH_V1_1.joints)

HEIGHT, WIDTH, FPS, NS = 480, 640, 30, 1_000_000_000
CAMERAS = ("above", "front")
TARGETS = {Codec.H264: 12.0, Codec.AV1: 1.6, Codec.COPY: 100.0}
LEROBOT_IDLE_2_CORES = 17.0  # frames/s of LeRobot 0.4.4, measured on an idle 2-core machine
MAP = """
fps: 30
robot_type: koch_follower
task: "Pick up the rectangular block and put it into the cup."
features:
  observation.state: {topic: /follower/joint_states, max_age_ms: 50}
  observation.images.above: {topic: /cameras/above/image_raw/compressed, max_age_ms: 80}
  observation.images.front: {topic: /cameras/front/image_raw/compressed, max_age_ms: 80}
  action: {topic: /follower/joint_command, max_age_ms: 50}
"""

LEROBOT = """
import json, sys, time
from pathlib import Path
import numpy as np
import lerobot
from lerobot.datasets.lerobot_dataset import LeRobotDataset
frames = {k: np.load(p, mmap_mode="r") for k, p in json.loads(sys.argv[1]).items()}
length, root = int(sys.argv[2]), Path(sys.argv[3])
names = [f"{n}.pos" for n in sys.argv[4].split(",")]
vector = {"dtype": "float32", "shape": (J,), "names": names}
features = {"action": vector, "observation.state": vector}
for key in frames:
    features[key] = {"dtype": "video", "shape": (480, 640, 3),
                     "names": ["height", "width", "channels"]}
dataset = LeRobotDataset.create("local/bench", 30, features, root=root, use_videos=True,
                                image_writer_threads=4 * len(frames))
zeros = np.zeros(J, np.float32)
begin = time.perf_counter()
for i in range(length):
    frame = {key: np.asarray(images[i % len(images)]) for key, images in frames.items()}
    frame.update({"action": zeros, "observation.state": zeros, "task": "bench"})
    dataset.add_frame(frame)
dataset.save_episode()
if hasattr(dataset, "finalize"):
    dataset.finalize()
print(json.dumps({"version": lerobot.__version__, "seconds": time.perf_counter() - begin}))
"""


def background(seed: int) -> np.ndarray[Any, Any]:
    """A table with some texture and things on it."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    image = np.stack(
        [
            110 + 60 * np.sin(columns / 90 + seed),
            120 + 50 * np.cos(rows / 70),
            100 + 0.1 * (rows + columns),
        ],
        -1,
    )
    for _ in range(25):
        top, left = rng.integers(0, HEIGHT - 80), rng.integers(0, WIDTH - 100)
        image[top : top + rng.integers(10, 80), left : left + rng.integers(10, 100)] = (
            rng.integers(20, 235, 3)
        )
    return image


def image(k: int, base: np.ndarray[Any, Any], noise: np.ndarray[Any, Any]) -> Any:
    """One camera image: the arm and a block move, the sensor is noisy (sigma 4)."""
    image = base.copy()
    x, y = int(300 + 200 * np.sin(k / 25)), int(200 + 120 * np.cos(k / 33))
    image[y : y + 60, x : x + 90] = (200, 60, 40)
    image[max(0, y - 120) : y, x + 30 : x + 55] = (230, 230, 225)
    shift = (k * 7919) % 400
    noisy = image + noise[shift : shift + HEIGHT, shift : shift + WIDTH]
    return np.clip(noisy, 0, 255).astype(np.uint8)


def timetable(start: int, seconds: float) -> list[tuple[int, str, int]]:
    """Return stamp, topic and number of each message in order of time."""
    messages: list[tuple[int, str, int]] = []
    for k in range(round(seconds * 100)):
        messages += [
            (start + k * NS // 100, "/follower/joint_states", k),
            (start + k * NS // 100 + 2_000_000, "/follower/joint_command", k),
        ]
    for k in range(round(seconds * FPS)):
        messages += [
            (start + k * NS // FPS + 1_000_000, f"/cameras/{c}/image_raw/compressed", k)
            for c in CAMERAS
        ]
    return sorted(messages)


def encoded(image: Any) -> bytes:
    """As a camera makes its JPEGs."""
    import simplejpeg  # not at the top, as in make_bag

    return bytes(simplejpeg.encode_jpeg(image, quality=85, colorsubsampling="422"))


def make_bag(path: Path, seconds: float, seed: int, distinct: int = 0) -> int:
    """Write one episode; returns the bytes of its images. Of those, `distinct` (0: all) differ,
    and come again and again: hours are written in a minute so."""
    # Not at the top: the workers of a conversion import this file too.
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    new = store.types
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 4, (HEIGHT + 400, WIDTH + 400, 1))
    bases = {camera: background(seed + n) for n, camera in enumerate(CAMERAS)}
    start, total = 1_760_000_000 * NS, 0
    known: dict[tuple[str, int], bytes] = {}

    def header(stamp: int) -> Any:
        return new["std_msgs/msg/Header"](
            new["builtin_interfaces/msg/Time"](stamp // NS, stamp % NS), ""
        )

    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connections: dict[str, Any] = {}
        for stamp, topic, k in timetable(start, seconds):
            if topic.startswith("/cameras"):
                kind = "sensor_msgs/msg/CompressedImage"
                shown = (topic, k % distinct if distinct else k)
                jpeg = known.get(shown) or encoded(
                    image(shown[1], bases[topic.split("/")[2]], noise)
                )
                if distinct:
                    known[shown] = jpeg
                total += len(jpeg)
                message = new[kind](header(stamp), "jpeg", np.frombuffer(jpeg, np.uint8))
            else:
                kind = "sensor_msgs/msg/JointState"
                joints, zeros = list(KOCH_V1_1.joints), np.zeros(len(KOCH_V1_1.joints))
                pose = np.sin(k / 50 + np.arange(len(joints)))
                message = new[kind](header(stamp), joints, pose, zeros, zeros)
            if topic not in connections:
                connections[topic] = writer.add_connection(topic, kind, typestore=store)
            writer.write(connections[topic], stamp, store.serialize_cdr(message, kind))
    return total


_MOST = 600  # decoded images in memory
_LEROBOT_FRAMES = 450  # it takes 25 s for them


def encode_only(task: tuple[str, str, str]) -> float:
    """Encode one camera's images of one bag, read and decoded before the clock starts; [s]."""
    codec, bag, path = task
    settings = VideoSettings.for_codec(Codec(codec))
    decoder, spent = PacketDecoder(), 0.0
    for camera in CAMERAS:
        jpegs = jpegs_of(Path(bag), f"/cameras/{camera}/image_raw/compressed")
        count = len(jpegs)
        jpegs = jpegs[:_MOST]
        images = [decoder.decode(jpeg) for jpeg in jpegs]
        begin = time.perf_counter()
        with VideoWriter(Path(path), settings, FPS, HEIGHT, WIDTH) as video:
            if settings.codec is Codec.COPY:
                for jpeg in jpegs:
                    video.write_packet(jpeg)
            else:
                for frame in images:
                    video.write(frame)
        spent += (time.perf_counter() - begin) * count / len(jpegs)
        Path(path).unlink()
    return spent


def jpegs_of(bag: Path, topic: str) -> list[bytes]:
    """Return one topic's JPEGs."""
    from rosbags.typesys import Stores, get_typestore

    store: Any = get_typestore(Stores.ROS2_JAZZY)
    with open_bag(bag) as opened:
        return [
            store.deserialize_cdr(m.data, "sensor_msgs/msg/CompressedImage").data.tobytes()
            for m in opened.messages([topic])
        ]


def pure_encoding_s(codec: Codec, work: Path, bags: Sequence[Path], jobs: int) -> float:
    """Wall time of encoding the bags' images, with as many processes as the conversion has."""
    tasks = [(codec.value, str(bag), str(work / f"pure{n}.mp4")) for n, bag in enumerate(bags)]
    with multiprocessing.get_context("fork").Pool(jobs) as pool:
        return sum(pool.map(encode_only, tasks, chunksize=1)) / jobs


def measure(codec: Codec, bags: Path, work: Path, jobs: int) -> dict[str, Any]:
    """Convert all bags with one codec."""
    out = work / f"out_{codec.value}"
    mapping = work / "map.yaml"
    mapping.write_text(MAP)
    paths = sorted(bags.iterdir())
    # Half of it before and half after: the machine's speed changes within minutes.
    pure = pure_encoding_s(codec, work, paths[0::2], jobs)
    options = ConvertOptions(map=mapping, codec=codec)
    convert([work / "short"], out, options, jobs=jobs)  # loads the code
    shutil.rmtree(out)
    os.sync()  # what was written before is no part of the conversion
    watch = Watch()
    watch.start()
    begin = time.perf_counter()
    result = convert([bags], out, options, jobs=jobs)
    wall = time.perf_counter() - begin
    peak, cpu = watch.stop()
    size = sum(p.stat().st_size for p in out.rglob("*.mp4"))
    pure += pure_encoding_s(codec, work, paths[1::2], jobs)
    shutil.rmtree(out)
    return {
        "codec": codec.value,
        "frames": result.info.total_frames,
        "wall_s": wall,
        "frames_per_s": result.info.total_frames / wall,
        "cpu_s": cpu,
        "cores": cpu / wall,
        "peak_mb": peak,
        "encoding_share": pure / wall,
        "video_mb": size / 1e6,
    }


def measure_lerobot(python: str, work: Path, frames: int) -> dict[str, Any]:
    """Let LeRobot write one episode of the same images."""
    paths = {}
    for number, camera in enumerate(CAMERAS):
        rng = np.random.default_rng(number)
        noise, base = rng.normal(0, 4, (HEIGHT + 400, WIDTH + 400, 1)), background(number)
        path = work / f"{camera}.npy"
        np.save(path, np.stack([image(k, base, noise) for k in range(150)]))
        paths[f"observation.images.{camera}"] = str(path)
    done = subprocess.run(
        [
            python,
            "-c",
            LEROBOT,
            json.dumps(paths),
            str(frames),
            str(work / "lerobot"),
            ",".join(KOCH_V1_1.joints),
        ],
        capture_output=True,
        text=True,
        env={
            **{key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
            "HF_HUB_OFFLINE": "1",
            "HF_HOME": str(work / "hf"),
        },
        check=False,
    )
    if done.returncode:
        sys.exit(f"LeRobot failed:\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    shutil.rmtree(work / "lerobot")
    return {**found, "frames_per_s": frames / found["seconds"]}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=15.0)
    parser.add_argument(
        "--distinct",
        type=int,
        default=0,
        help="images per camera and episode that differ (default: all); for memory over hours",
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--codec", action="append", choices=[c.value for c in Codec])
    parser.add_argument(
        "--lerobot-python",
        default=os.environ.get("KOCH_LEROBOT_PYTHON", "").split(os.pathsep)[0],
        help="interpreter that can import lerobot",
    )
    parser.add_argument("--json", type=Path, help="also write the figures here")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark and print a table and JSON."""
    args = arguments()
    frames = round(args.seconds * FPS)
    with tempfile.TemporaryDirectory(prefix="koch_bench_") as folder:
        work = Path(folder)
        for name in ("bags", "short"):
            (work / name).mkdir()
        for n in range(args.jobs):
            make_bag(work / "short" / f"episode_{n:06d}", 1.0, n)
        size = sum(
            make_bag(work / "bags" / f"episode_{n:06d}", args.seconds, n, args.distinct)
            for n in range(args.episodes)
        )
        print(
            f"{args.episodes} episodes x {args.seconds:g} s, 2 x {WIDTH}x{HEIGHT} @ {FPS}, "
            f"{size / args.episodes / frames / 2e3:.0f} kB per JPEG; {os.cpu_count()} cores, "
            f"{args.jobs} jobs, Python {platform.python_version()}"
        )
        rows, lerobot = [], {}
        for codec in [Codec(c) for c in args.codec or [c.value for c in Codec]]:
            if args.lerobot_python:  # again each time: the machine's speed changes within minutes
                lerobot = measure_lerobot(args.lerobot_python, work, min(frames, _LEROBOT_FRAMES))
            base = lerobot.get("frames_per_s", LEROBOT_IDLE_2_CORES)
            row = measure(codec, work / "bags", work, args.jobs)
            row["lerobot_frames_per_s"], row["target"] = base, TARGETS[codec]
            row["times_lerobot"] = row["frames_per_s"] / base
            rows.append(row)
            print(
                f"{row['codec']:5s} {row['frames_per_s']:7.1f} frames/s  "
                f"{row['times_lerobot']:6.1f} x LeRobot's {base:.1f} (aim {row['target']:g})  "
                f"{row['cores']:.2f} cores  {row['peak_mb']:.0f} MB  encoding "
                f"{100 * row['encoding_share']:.0f} % of wall  video {row['video_mb']:.0f} MB"
            )
        version = lerobot.get("version", "0.4.4 (noted, not run)")
        print(f"reference: LeRobot {version}")
        if args.json:
            args.json.write_text(json.dumps({"rows": rows, "lerobot": version}, indent=2))


if __name__ == "__main__":
    main()
