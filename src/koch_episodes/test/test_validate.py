# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The validator finds every mistake that LeRobot's loader punishes, and nothing in good data."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec, VideoSettings, validate_dataset
from koch_episodes.dataset.layout import DEFAULT_FEATURES
from koch_episodes.dataset.video import VideoWriter
from koch_episodes.inspect_cli import main

CAMERA = "observation.images.front"
DATA = "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    features = {
        "action": FeatureSpec("float32", (2,), ("a", "b")),
        CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    }
    with DatasetWriter(tmp_path / "data", features, fps=10) as writer:
        for length in (6, 8):
            writer.add_episode(
                {"action": np.ones((length, 2))},
                {CAMERA: [np.full((32, 48, 3), 9 * k, np.uint8) for k in range(length)]},
                "t",
            )
    return tmp_path / "data"


def info(**changes: Any) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "meta/info.json"
        raw = json.loads(path.read_text())
        for key, value in changes.items():
            if value is None:
                del raw[key]
            else:
                raw[key] = value
        path.write_text(json.dumps(raw))

    return change


def column(
    key: str, change: Callable[[np.ndarray[Any, Any]], Any], file: str = DATA
) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        table = pq.read_table(root / file)
        place = table.column_names.index(key)
        values = change(table[key].to_numpy().copy())
        table = table.set_column(place, key, pa.array(values, table.schema.field(key).type))
        pq.write_table(table, root / file)

    return apply


def extra_column(root: Path) -> None:
    table = pq.read_table(root / DATA)
    pq.write_table(table.append_column("debug", pa.array(range(len(table)))), root / DATA)


def listed_scalar(root: Path) -> None:
    table = pq.read_table(root / DATA)
    place = table.column_names.index("timestamp")
    values = pa.array([[v] for v in table["timestamp"].to_pylist()], pa.list_(pa.float32()))
    pq.write_table(table.set_column(place, "timestamp", values), root / DATA)


def cut(file: str, share: float) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        data = (root / file).read_bytes()
        (root / file).write_bytes(data[: int(len(data) * share)])

    return apply


def video(frames: int, fps: int = 10, size: tuple[int, int] = (32, 48)) -> Any:
    def apply(root: Path) -> None:
        with VideoWriter(root / VIDEO, VideoSettings(), fps, *size) as writer:
            for k in range(frames):
                writer.write_rgb(np.full((*size, 3), 9 * k, np.uint8))

    return apply


def gap_in_video(root: Path) -> None:
    import av

    with av.open(str(root / VIDEO), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for k in range(14):
            frame = av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")
            frame.pts = k if k < 7 else k + 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def stats(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "meta/stats.json"
        raw = json.loads(path.read_text())
        change(raw)
        path.write_text(json.dumps(raw))

    return apply


def shift(amount: float) -> Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]:
    return lambda values: values + np.asarray(amount, values.dtype)


def remove(file: str) -> Callable[[Path], None]:
    return lambda root: (root / file).unlink()


MISTAKES: list[tuple[str, Callable[[Path], None], str]] = [
    ("total_frames", info(total_frames=15), "total_frames is 15, found 14"),
    ("total_episodes", info(total_episodes=3), "total_episodes is 3, found 2"),
    ("total_tasks", info(total_tasks=0), "total_tasks is 0, found 1"),
    ("no total_tasks", info(total_tasks=None), "no total_tasks"),
    ("no fps", info(fps=None), "no fps"),
    ("other fps", info(fps=20), "timestamps are up to"),
    ("fps of the video", info(fps=20), "frames/s, expected 20"),
    ("version", info(codebase_version="v4.0"), "codebase_version v4.0"),
    ("index", column("index", shift(1)), "is not 0, 1, 2"),
    ("frame_index", column("frame_index", shift(1)), "frame_index is not"),
    ("episode_index", column("episode_index", shift(1)), "another episode_index"),
    ("task_index", column("task_index", shift(1)), "reaches 1, but there are 1 tasks"),
    ("timestamp", column("timestamp", shift(0.001)), "timestamps are up to 0.0010"),
    ("extra column", extra_column, "'debug' is not a declared feature"),
    ("scalar as list", listed_scalar, "'timestamp' is list"),
    ("data footer", cut(DATA, 0.9), "no readable parquet footer"),
    ("episodes footer", cut(EPISODES, 0.9), "no readable parquet footer"),
    ("length", column("length", shift(1), EPISODES), "length 7, rows 0..6"),
    ("from index", column("dataset_from_index", shift(1), EPISODES), "starts at row 1"),
    (
        "from time",
        column(f"videos/{CAMERA}/from_timestamp", shift(0.05), EPISODES),
        "no frame within",
    ),
    ("missing video", remove(VIDEO), "missing; LeRobot would try to download"),
    ("broken video", cut(VIDEO, 0.5), "no frame within"),
    ("short video", video(13), "13 frames, its episodes have 14 rows"),
    ("video size", video(14, size=(32, 64)), "pictures of 32x64"),
    ("gap in video", gap_in_video, "apart, expected"),
    ("stats shape", stats(lambda s: s[CAMERA].update(mean=[0.1, 0.2, 0.3])), "shape"),
    ("stats range", stats(lambda s: s[CAMERA].update(max=[[[255]]] * 3)), "not in 0..1"),
    ("no stats", remove("meta/stats.json"), "missing; loading works, training does not"),
    ("no quantiles", stats(lambda s: s["action"].pop("q01")), "'action' has no q01"),
]


def test_good_data_has_no_findings(root: Path) -> None:
    assert [str(f) for f in validate_dataset(root, decode=True).findings] == []
    assert main([str(root), "--validate", "--no-png"]) == 0


@pytest.mark.parametrize(("name", "break_it", "text"), MISTAKES, ids=[m[0] for m in MISTAKES])
def test_mistake_is_found(
    root: Path, name: str, break_it: Callable[[Path], None], text: str
) -> None:
    break_it(root)
    report = validate_dataset(root)
    assert any(text in str(f) for f in report.findings), [str(f) for f in report.findings]
    assert name
    assert report.ok == (name in ("no stats", "no quantiles"))


def test_nan_is_found(root: Path) -> None:
    table = pq.read_table(root / DATA)
    values = np.full((14, 2), np.nan, np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    pq.write_table(
        table.set_column(table.column_names.index("action"), "action", array), root / DATA
    )
    assert any("NaN" in str(f) for f in validate_dataset(root).findings)
    assert set(DEFAULT_FEATURES) < set(table.column_names)
