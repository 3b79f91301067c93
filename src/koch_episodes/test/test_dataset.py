# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Writing and reading datasets: windows, caches, processes, roll-over, errors."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from koch_core.image import resize_rgb
from koch_episodes.dataset import (
    Codec,
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    VideoSettings,
    validate_dataset,
)
from koch_episodes.errors import DatasetFormatError, DatasetWriteError, OutputExistsError

CAMERA = "observation.images.front"
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    "observation.state": FeatureSpec("float32", (3,), ("x", "y", "z")),
    CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    "next.reward": FeatureSpec("float32", (1,)),
}
LENGTHS = (5, 9, 4)


def shade(episode: int, frame: int) -> int:
    return 20 + 60 * episode + 6 * frame


def add(writer: DatasetWriter, episode: int, length: int) -> None:
    frames = np.arange(length)
    writer.add_episode(
        {
            "action": np.stack([frames, frames + 100.0 * episode], 1),
            "observation.state": np.stack([frames] * 3, 1) * 0.5,
            "next.reward": frames / 10,
        },
        {CAMERA: [np.full((32, 48, 3), shade(episode, k), np.uint8) for k in range(length)]},
        f"task {episode % 2}",
    )


@pytest.fixture(params=list(Version), ids=lambda v: v.value)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=10, robot_type="r", version=request.param) as writer:
        for episode, length in enumerate(LENGTHS):
            add(writer, episode, length)
    return root


def test_finishing_twice_leaves_the_dataset_whole(tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "data", FEATURES, fps=10) as writer:
        add(writer, 0, 5)
        writer.finalize()
    assert not validate_dataset(tmp_path / "data", decode=True).findings
    assert LeRobotDatasetReader(tmp_path / "data").episodes[0].length == 5


def test_what_was_written_is_read(dataset: Path) -> None:
    reader = LeRobotDatasetReader(dataset)
    assert [e.length for e in reader.episodes] == list(LENGTHS)
    assert reader.tasks == ("task 0", "task 1")
    assert reader.stats is not None
    assert reader.stats["action"]["max"].tolist() == [8.0, 203.0]
    assert not validate_dataset(dataset, decode=True).findings
    index = 0
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            item = reader[index]
            assert item["index"] == index
            assert item["episode_index"] == episode
            assert item["timestamp"] == pytest.approx(frame / 10)
            assert item["next.reward"] == pytest.approx(frame / 10)
            assert item["action"].tolist() == [frame, frame + 100 * episode]
            assert abs(float(item[CAMERA].mean()) - shade(episode, frame)) < 2.5
            assert item["task"] == f"task {episode % 2}"
            index += 1
    assert reader.frame(1, 8)["index"] == reader[13]["index"]
    assert reader[-1]["index"] == 17


def test_random_order_gives_the_same_images_as_order(dataset: Path) -> None:
    reader = LeRobotDatasetReader(dataset)
    in_order = [reader.image(CAMERA, i) for i in range(len(reader))]
    for i in np.random.default_rng(3).integers(0, len(reader), 60):
        np.testing.assert_array_equal(reader.image(CAMERA, int(i)), in_order[int(i)])


def test_names_of_the_first_release_are_still_known(dataset: Path) -> None:
    reader = LeRobotDatasetReader(dataset)
    (camera,) = reader.picture_keys
    assert np.array_equal(reader.picture(camera, 3), reader[3][camera])


def test_window_repeats_the_edge_and_marks_it(dataset: Path) -> None:
    reader = LeRobotDatasetReader(dataset)
    item = reader.window(12, {"action": range(4), CAMERA: [-1, 0], "observation.state": [-9, 0]})
    assert item["action"][:, 0].tolist() == [7, 8, 8, 8]
    assert item["action_is_pad"].tolist() == [False, False, True, True]
    assert item["observation.state"][:, 0].tolist() == [0, 3.5]
    assert item["observation.state_is_pad"].tolist() == [True, False]
    assert item[CAMERA].shape == (2, 32, 48, 3)
    assert "next.reward" in item
    first = reader.window(5, {"action": [-1, 0]})
    assert first["action"][:, 1].tolist() == [100, 100]
    with pytest.raises(IndexError, match="frame 18 of 18"):
        reader.window(18, {})


def _sums(reader: LeRobotDatasetReader) -> list[int]:
    return [int(reader.image(CAMERA, i).sum()) for i in range(len(reader))]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_reader_and_cache(dataset: Path, tmp_path: Path, method: str) -> None:
    reader = LeRobotDatasetReader(dataset, image_size=(16, 24), cache=tmp_path / "cache")
    wanted = _sums(LeRobotDatasetReader(dataset, image_size=(16, 24)))
    reader.image(CAMERA, 3)  # a decoder is open when the others start
    if method == "spawn":
        import pickle

        again = pickle.loads(pickle.dumps(reader))
        assert _sums(again) == wanted
    else:
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_sums, [reader] * 2) == [wanted] * 2
    assert _sums(reader) == wanted
    assert reader._caches[CAMERA].known == len(reader)


def test_cache_answers_without_the_video(dataset: Path, tmp_path: Path) -> None:
    reader = LeRobotDatasetReader(dataset, cache=tmp_path / "cache")
    *_, done = reader.fill_cache(CAMERA)
    assert done == len(reader)
    wanted = _sums(reader)
    for path in dataset.rglob("*.mp4"):
        path.unlink()
    assert _sums(LeRobotDatasetReader(dataset, cache=tmp_path / "cache")) == wanted


def test_resize_is_an_area_average() -> None:
    image = np.zeros((4, 8, 3), np.uint8)
    image[:, ::2] = 200
    small = resize_rgb(image, 2, 4)
    assert small.shape == (2, 4, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2


def test_files_roll_over_at_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from koch_episodes.dataset import v30

    monkeypatch.setattr(v30, "MB", 10)  # 100 "MB" are now 1000 bytes
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=10) as writer:
        for episode in range(3):
            add(writer, episode, 6)
    assert len(list(root.glob("data/*/*.parquet"))) == 3
    assert len(list(root.glob(f"videos/{CAMERA}/*/*.mp4"))) >= 2
    assert not validate_dataset(root, decode=True).findings
    reader = LeRobotDatasetReader(root)
    assert abs(float(reader.image(CAMERA, 17).mean()) - shade(2, 5)) < 2.5


def quantiles_of(root: Path, key: str) -> dict[str, Any]:
    stats = json.loads((root / "meta/stats.json").read_text())[key]
    return {name: np.ravel(stats[name]) for name in ("q01", "q10", "q50", "q90", "q99")}


@pytest.mark.parametrize("order", [(40, 6, 17), (6, 40, 17)])
@pytest.mark.parametrize("appended", [0, 1, 2])
def test_quantiles_over_unlike_episodes_are_quantiles(
    tmp_path: Path, order: tuple[int, ...], appended: int
) -> None:
    """A long episode at rest in the dark, a short one that moves in the light."""
    root, features = tmp_path / "data", {key: FEATURES[key] for key in ("action", CAMERA)}
    tables = [np.arange(n)[:, None] * [1.0, 0.1] + 300 * (n < 10) for n in order]
    for number, table in enumerate(tables):
        if number == 0 or number > 2 - appended:
            writer = DatasetWriter(root, features, fps=10, append=number > 0)
        shades = [250 if len(table) < 10 else k for k in range(len(table))]
        images = [np.full((32, 48, 3), shade, np.uint8) for shade in shades]
        writer.add_episode({"action": table}, {CAMERA: images}, "t")
        if number >= 2 - appended:
            writer.finalize()
    shades_shown = np.concatenate([np.full(n, 250) if n < 10 else np.arange(n) for n in order])
    found, shown = quantiles_of(root, "action"), quantiles_of(root, CAMERA)
    stored = LeRobotDatasetReader(root).column("action").astype(np.float64)
    for name, share in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(found[name], np.quantile(stored, share, axis=0), rtol=1e-9)
        wanted = np.quantile(shades_shown, share) / 255
        np.testing.assert_allclose(shown[name], wanted, atol=1.5 / 255)
    assert quantiles_of(root, "index")["q50"][0] == (sum(order) - 1) / 2


def test_counts_of_images_that_others_added_are_not_used(tmp_path: Path) -> None:
    root, features = tmp_path / "data", {CAMERA: FEATURES[CAMERA], "action": FEATURES["action"]}
    with DatasetWriter(root, features, fps=10) as writer:
        add_shade(writer, 0)
    stats = json.loads((root / "meta/stats.json").read_text())
    stats[CAMERA]["count"] = [99]  # as if LeRobot had recorded more episodes
    (root / "meta/stats.json").write_text(json.dumps(stats))
    with DatasetWriter(root, features, fps=10, append=True) as writer:
        add_shade(writer, 200)
    assert not (root / "meta/koch_levels.json").exists()
    assert 0.0 < quantiles_of(root, CAMERA)["q50"][0] < 0.2


def add_shade(writer: DatasetWriter, shade: int) -> None:
    images = [np.full((32, 48, 3), shade, np.uint8)] * 5
    writer.add_episode({"action": np.zeros((5, 2))}, {CAMERA: images}, "t")


def test_table_has_lerobots_types(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=10) as writer:
        add(writer, 0, 5)
    schema = pq.read_schema(root / "data/chunk-000/file-000.parquet")
    assert [f"{field.name}: {field.type}" for field in schema] == [
        "action: fixed_size_list<element: float>[2]",
        "observation.state: fixed_size_list<element: float>[3]",
        "next.reward: float",
        "timestamp: float",
        "frame_index: int64",
        "episode_index: int64",
        "index: int64",
        "task_index: int64",
    ]
    tasks = pq.read_schema(root / "meta/tasks.parquet")
    assert json.loads(tasks.metadata[b"pandas"])["index_columns"] == ["task"]
    info = json.loads((root / "meta/info.json").read_text())
    assert info["features"][CAMERA]["info"]["video.codec"] == "h264"
    assert info["splits"] == {"train": "0:1"}


def test_tables_and_scalars_of_any_type_are_written(tmp_path: Path) -> None:
    """Features that LeRobot allows beside vectors of float32."""
    rng = np.random.default_rng(3)
    given: dict[str, tuple[tuple[int, ...], Any]] = {
        "float64": ((2, 3), rng.normal(size=(6, 2, 3))),
        "float32": ((1, 4), rng.normal(size=(6, 1, 4)).astype(np.float32)),
        "uint8": ((2, 2, 2), rng.integers(0, 256, (6, 2, 2, 2)).astype(np.uint8)),
        "int16": ((3,), rng.integers(-9, 9, (6, 3)).astype(np.int16)),
        "int64": ((1,), np.arange(6) + (1 << 60)),
        "bool": ((4,), rng.integers(0, 2, (6, 4)).astype(bool)),
        "string": ((1,), np.array([f"wörd {k}" for k in range(6)], dtype=object)),
    }
    features = {f"a_{dtype}": FeatureSpec(dtype, shape) for dtype, (shape, _) in given.items()}
    columns = {f"a_{dtype}": values for dtype, (_, values) in given.items()}
    with DatasetWriter(tmp_path / "data", features, fps=10) as writer:
        for _ in range(2):
            writer.add_episode(columns, {}, "go")
    assert [str(found) for found in validate_dataset(tmp_path / "data").findings] == []
    reader = LeRobotDatasetReader(tmp_path / "data")
    for key, values in columns.items():
        assert reader.column(key).dtype == values.dtype
        assert reader.column(key).tolist() == [*values.tolist(), *values.tolist()]
    assert reader.stats is not None
    table = np.concatenate([columns["a_float64"]] * 2).reshape(-1, 3)
    np.testing.assert_allclose(reader.stats["a_float64"]["mean"], table.mean(axis=0))
    np.testing.assert_allclose(reader.stats["a_float64"]["q90"], np.quantile(table, 0.9, axis=0))
    assert reader.stats["a_float64"]["count"].tolist() == [12]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            {"pose": np.zeros((5, 3, 2))},
            r"feature pose: got shape \(5, 3, 2\), .*\(frames, 2, 3\)",
        ),
        ({"pose": np.zeros((5, 6))}, r"feature pose: got shape \(5, 6\)"),
        ({"pose": np.zeros((4, 2, 3))}, "pose of 4 frames, x of 5 frames, expected"),
        ({"other": np.zeros(5)}, "episode 0, columns: got pose, x, other, expected those of pose"),
        ({"x": None}, "episode 0, columns: got pose, expected those of pose, x"),
        ({"still": np.zeros(5)}, "episode 0, columns: got pose, x, still, expected"),
    ],
)
def test_columns_that_do_not_fit_are_named(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    features = {"pose": FeatureSpec("float32", (2, 3)), "x": FeatureSpec("float32", (1,))}
    given = {"pose": np.zeros((5, 2, 3)), "x": np.zeros(5), **change}
    columns = {key: values for key, values in given.items() if values is not None}
    with (
        pytest.raises(DatasetWriteError, match=match),
        DatasetWriter(tmp_path / "data", features, fps=10) as writer,
    ):
        writer.add_episode(columns, {}, "go")
    assert list(tmp_path.iterdir()) == []


def test_images_inside_the_tables_are_refused_by_name(tmp_path: Path) -> None:
    features = {"x": FeatureSpec("float32", (1,)), "still": FeatureSpec("image", (8, 8, 3))}
    images = {"still": [np.zeros((8, 8, 3), np.uint8)] * 3}
    with (
        pytest.raises(DatasetWriteError, match="feature still: got dtype image, expected video"),
        DatasetWriter(tmp_path / "data", features, fps=10) as writer,
    ):
        writer.add_episode({"x": np.zeros(3)}, images, "go")


def test_nothing_appears_when_writing_fails(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with (
        pytest.raises(DatasetWriteError, match=r"NaN or infinity"),
        DatasetWriter(root, {"action": FEATURES["action"]}, fps=10) as writer,
    ):
        writer.add_episode({"action": np.array([[1.0, np.nan]])}, {}, "t")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetWriteError, match="no episodes"):
        DatasetWriter(root, FEATURES, fps=10).finalize()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"fps": 20}, "fps"),
        ({"robot_type": "other"}, "robot_type"),
        ({"version": Version.V21}, "layout"),
    ],
)
def test_append_refuses_what_does_not_fit(
    tmp_path: Path, change: dict[str, Any], match: str
) -> None:
    root = tmp_path / "data"
    plain = {"fps": 10, "robot_type": "r"}
    with DatasetWriter(root, FEATURES, **plain) as writer:  # type: ignore[arg-type]
        add(writer, 0, 5)
    with pytest.raises(OutputExistsError):
        DatasetWriter(root, FEATURES, fps=10)
    with pytest.raises(DatasetWriteError, match=match):
        DatasetWriter(root, FEATURES, append=True, **{**plain, **change})
    with pytest.raises(DatasetWriteError, match="feature action"):
        DatasetWriter(root, {"action": FeatureSpec("float32", (3,))}, append=True, **plain)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "match"),
    [
        ("meta/episodes/chunk-000/file-000.parquet", "unreadable file"),
        ("data/chunk-000/file-000.parquet", "malformed"),
        ("meta/tasks.parquet", "malformed|unreadable"),
        ("meta/stats.json", "meta/stats.json"),
        ("meta/info.json", "5 frames, expected 6, as info.json says"),
    ],
)
def test_append_to_what_is_not_whole_is_refused(tmp_path: Path, path: str, match: str) -> None:
    """Its new rows would be numbered wrongly, if they came to be at all."""
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=10) as writer:
        add(writer, 0, 5)
    file = root / path
    whole = file.read_bytes()
    if path.endswith("info.json"):
        file.write_bytes(whole.replace(b'"total_frames": 5', b'"total_frames": 6'))
    else:
        file.write_bytes(whole[:-40])
    with pytest.raises(DatasetFormatError, match=match):
        DatasetWriter(root, FEATURES, fps=10, append=True)


@pytest.mark.parametrize("version", list(Version))
def test_outcomes_stand_in_the_tables_and_choose_episodes(
    tmp_path: Path, version: Version
) -> None:
    root, ends = tmp_path / "data", ("success", "", "failure", "success")
    with DatasetWriter(root, {"action": FEATURES["action"]}, fps=10, version=version) as writer:
        for number, outcome in enumerate(ends):
            writer.add_episode({"action": np.full((4 + number, 2), number)}, {}, "t", outcome)
    assert tuple(e.outcome for e in LeRobotDatasetReader(root).episodes) == ends
    assert not validate_dataset(root).findings
    for wanted, numbers in ((["success"], [0, 3]), (["failure", "success"], [0, 2, 3])):
        reader = LeRobotDatasetReader(root, outcomes=wanted)
        assert [episode.index for episode in reader.episodes] == numbers
        assert np.unique(reader.column("action")).tolist() == numbers
        assert len(reader) == sum(4 + number for number in numbers)
    with pytest.raises(DatasetFormatError, match=r"ended as \(none\), failure, success, expected"):
        LeRobotDatasetReader(root, outcomes=["sucess"])


@pytest.mark.parametrize("first", ["", "success"])
def test_all_episode_tables_have_an_outcome_or_none(tmp_path: Path, first: str) -> None:
    """LeRobot reads them as one table, by the columns of the first."""
    root, features = tmp_path / "data", {"action": FEATURES["action"]}
    for outcome in (first, "failure", ""):
        with DatasetWriter(root, features, fps=10, append=root.exists()) as writer:
            writer.add_episode({"action": np.zeros((5, 2))}, {}, "t", outcome)
    found = [e.outcome for e in LeRobotDatasetReader(root).episodes]
    assert found == (["success", "failure", ""] if first else ["", "", ""])
    names = {tuple(pq.read_schema(path).names) for path in root.glob("meta/episodes/*/*")}
    assert len(names) == 1


@pytest.mark.parametrize("version", list(Version))
@pytest.mark.parametrize("info", [True, False])
def test_append_of_another_codec_is_refused(tmp_path: Path, version: Version, info: bool) -> None:
    """Told by the files, where a foreign dataset says nothing about its codec."""
    root, video = tmp_path / "data", VideoSettings(Codec.H264)
    with DatasetWriter(root, FEATURES, fps=10, version=version, video=video) as writer:
        add(writer, 0, 5)
    if not info:
        raw = json.loads((root / "meta/info.json").read_text())
        raw["features"][CAMERA].pop("info")
        (root / "meta/info.json").write_text(json.dumps(raw))
    more = {"fps": 10, "version": version, "append": True}
    av1 = VideoSettings.for_codec(Codec.AV1)
    with pytest.raises(DatasetWriteError, match=r"codec of .*front.*av1.*h264 as it has"):
        DatasetWriter(root, FEATURES, **more, video=av1)  # type: ignore[arg-type]
    with DatasetWriter(root, FEATURES, **more, video=video) as writer:  # type: ignore[arg-type]
        add(writer, 1, 5)
    assert validate_dataset(root).ok


@pytest.mark.parametrize(
    ("path", "content", "match"),
    [
        ("meta/info.json", "{", "unreadable"),
        ("meta/info.json", '{"fps": 30}', "no codebase_version, features"),
        ("meta/info.json", '{"codebase_version": "v2.0", "fps": 30, "features": {}}', "v2.0"),
        ("meta/tasks.parquet", "x", "unreadable"),
        ("data/chunk-000/file-000.parquet", "", "every|columns|unreadable|got"),
    ],
)
def test_reader_names_the_broken_file(tmp_path: Path, path: str, content: str, match: str) -> None:
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=10) as writer:
        add(writer, 0, 5)
    (root / path).write_text(content)
    with pytest.raises(DatasetFormatError, match=match):
        LeRobotDatasetReader(root)
