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
from koch_episodes.dataset.layout import DEFAULT_FEATURES, Version
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
        "next.done": FeatureSpec("bool", (1,)),
        CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    }
    with DatasetWriter(tmp_path / "data", features, fps=10) as writer:
        for length in (6, 8):
            writer.add_episode(
                {"action": np.ones((length, 2)), "next.done": np.arange(length) == length - 1},
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


def feature(key: str, **changes: Any) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "meta/info.json"
        raw = json.loads(path.read_text())
        raw["features"].setdefault(key, {}).update(changes)
        path.write_text(json.dumps(raw))

    return apply


def null_video_path(root: Path) -> None:
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "video_path": None}))


def extra_feature(root: Path) -> None:
    feature("observation.images.none", dtype="image", shape=[4, 4, 3], names=["h", "w", "c"])(root)


def ragged(root: Path) -> None:
    table = pq.read_table(root / DATA)
    rows = [[1.0] * {3: 1, 4: 3}.get(k, 2) for k in range(len(table))]
    values = pa.array(rows, pa.list_(pa.float32()))
    place = table.column_names.index("action")
    pq.write_table(table.set_column(place, "action", values), root / DATA)


def drop(key: str) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        pq.write_table(pq.read_table(root / DATA).drop_columns([key]), root / DATA)

    return apply


def tasks_changed(*, reverse: bool = False, pandas: bool = True) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        path = root / "meta/tasks.parquet"
        table = pq.read_table(path)
        more = pa.table({"task_index": [1], "task": ["u"]}, schema=table.schema)
        table = pa.concat_tables([table, more])
        table = table.take([1, 0]) if reverse else table
        pq.write_table(table if pandas else table.replace_schema_metadata(None), path)
        info(total_tasks=2)(root)

    return apply


HARMLESS = (
    "no stats",
    "no quantiles",
    "splits",
    "names",
    "task texts",
    "place",
    "far off",
    "count",
)
"""Warnings: LeRobot loads the dataset, something else will miss it."""
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
    ("video size", video(14, size=(32, 64)), "images of 32x64"),
    ("gap in video", gap_in_video, "apart, expected"),
    ("stats shape", stats(lambda s: s[CAMERA].update(mean=[0.1, 0.2, 0.3])), "shape"),
    ("stats range", stats(lambda s: s[CAMERA].update(max=[[[255]]] * 3)), "not in 0..1"),
    ("no stats", remove("meta/stats.json"), "missing; loading works, training does not"),
    ("chunks_size", info(chunks_size=0), "chunks_size is 0"),
    ("null video_path", null_video_path, "video_path is null"),
    ("other video_path", info(video_path="v/{video_key}.mp4"), "missing; LeRobot would"),
    ("senseless video_path", info(video_path="{what}"), "video_path '{what}'"),
    ("splits", info(splits={"train": "0:1"}), "LeRobot writes 0:2"),
    ("features list", info(features=[]), "expected an object"),
    ("dtype", feature("action", dtype="floaty"), "dtype 'floaty', no number's name"),
    ("kind", feature("action", dtype="int64"), "'action' holds float32, declared is int64"),
    ("names", feature("action", names=["a"]), "'action' has 1 names, shape [2]"),
    ("image column", extra_feature, "no column 'observation.images.none'"),
    ("ragged rows", ragged, "rows of 2, 1, 3 elements"),
    ("task order", tasks_changed(reverse=True), "rows in the order [1, 0]"),
    ("task index", tasks_changed(pandas=False), "the text is no pandas index"),
    ("task texts", column("tasks", lambda _: [["x"], ["t"]], EPISODES), "names the tasks ['x']"),
    ("place", column("data/file_index", shift(5), EPISODES), "names data/chunk-000/file-005"),
    (
        "one image early",
        column(f"videos/{CAMERA}/from_timestamp", lambda v: v - [0.0, 0.1], EPISODES),
        "would show another's images",
    ),
    (
        "from time NaN",
        column(f"videos/{CAMERA}/from_timestamp", shift(float("nan")), EPISODES),
        "from_timestamp nan of episode 0",
    ),
    ("missing column", drop("index"), "no column(s) ['index']"),
    ("std", stats(lambda s: s["action"].update(std=[-1.0, 1.0])), "std is negative"),
    ("order", stats(lambda s: s["action"].update(min=[9.0, 9.0])), "not in this order"),
    ("far off", stats(lambda s: s["action"].update(max=[5.0, 1.0])), "the data have 1"),
    ("count", stats(lambda s: s["action"].update(count=[3])), "there are 14 frames"),
    ("stats list", lambda root: (root / "meta/stats.json").write_text("[]"), "no object of stat"),
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
    assert report.ok == (name in HARMLESS)


@pytest.mark.parametrize("resting", [-137.3, 0.1, 2048.7, 1e-3])
@pytest.mark.parametrize("frames", [900, 20000])
def test_joint_that_never_moved_is_no_mistake(tmp_path: Path, resting: float, frames: int) -> None:
    """LeRobot sums float32 row by row: the mean of equal numbers is then none of them."""
    features = {"action": FeatureSpec("float32", (2,), ("a", "b"))}
    values = np.stack([np.full(frames, resting), np.arange(frames)], 1).astype(np.float32)
    with DatasetWriter(tmp_path / "data", features, fps=10) as writer:
        writer.add_episode({"action": values}, {}, "t")
    mean = values.mean(axis=0)  # along the first axis numpy adds one row after the other
    stats(lambda s: s["action"].update(mean=mean.tolist()))(tmp_path / "data")
    assert not validate_dataset(tmp_path / "data").findings
    stats(lambda s: s["action"].update(mean=[resting * 1.05, 5.0]))(tmp_path / "data")
    assert not validate_dataset(tmp_path / "data").ok


def test_what_is_found_often_is_one_line(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The sets of LeRobot's converter to v3.0 have no quantiles: five of every feature."""

    def without(raw: dict[str, Any]) -> None:
        for feature_stats in raw.values():
            for name in ("q01", "q10", "q50", "q90", "q99"):
                feature_stats.pop(name)

    stats(without)(root)
    column("data/file_index", shift(3), EPISODES)(root)
    column("frame_index", shift(1))(root)
    found = [str(finding) for finding in validate_dataset(root).findings]
    assert len(found) == 5, found  # two of them: what the statistics of frame_index say
    assert sum("has no q01 (and 39 more like it)" in line for line in found) == 1
    assert sum("file-003.parquet" in line and "(and 1 more" in line for line in found) == 1
    assert main([str(root), "--validate", "--no-png"]) == 1
    assert "not valid: 2 error(s)" in capsys.readouterr().out


def test_several_axes_as_lerobot_writes_them_are_no_mistake(root: Path) -> None:
    """LeRobot 0.4 and later keep one statistic for each element of the last axis."""
    grid = np.arange(12, dtype=np.float32).reshape(3, 4)
    table = pq.read_table(root / DATA)
    values = pa.array([grid.tolist()] * len(table), pa.list_(pa.list_(pa.float32())))
    pq.write_table(table.append_column("observation.grid", values), root / DATA)
    feature("observation.grid", dtype="float32", shape=[3, 4], names=None)(root)
    rows = dict.fromkeys(("mean", "q01", "q10", "q50", "q90", "q99"), grid.mean(axis=0).tolist())
    ends = {"min": grid.min(axis=0).tolist(), "max": grid.max(axis=0).tolist()}
    spread = {"std": grid.std(axis=0).tolist(), "count": [14]}
    stats(lambda s: s.update({"observation.grid": {**rows, **ends, **spread}}))(root)
    assert not validate_dataset(root, decode=True).findings


def test_nan_is_found(root: Path) -> None:
    table = pq.read_table(root / DATA)
    values = np.full((14, 2), np.nan, np.float32)
    array = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 2)
    pq.write_table(
        table.set_column(table.column_names.index("action"), "action", array), root / DATA
    )
    assert any("NaN" in str(f) for f in validate_dataset(root).findings)
    assert set(DEFAULT_FEATURES) < set(table.column_names)


def test_v21_statistics_of_another_episode(tmp_path: Path) -> None:
    features = {"action": FeatureSpec("float32", (2,), ("a", "b"))}
    root = tmp_path / "old"
    with DatasetWriter(root, features, fps=10, version=Version.V21) as writer:
        for _ in range(2):
            writer.add_episode({"action": np.ones((6, 2))}, {}, "t")
    assert not validate_dataset(root).findings
    path = root / "meta/episodes_stats.jsonl"
    path.write_text(path.read_text().replace('"episode_index": 1', '"episode_index": 4'))
    found = validate_dataset(root)
    assert found.ok  # its loader merges whatever is there
    assert "none of [1], some of [4]" in str(found.findings[0])
