# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Datasets that people edited, and those of other converters: numbers and images of one moment."""

from __future__ import annotations

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from koch_episodes.convert.cli import main as convert
from koch_episodes.dataset import (
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    validate_dataset,
)
from koch_episodes.dataset.edit.cli import main as edit
from koch_episodes.dataset.edit.doctor import examine
from koch_episodes.dataset.reader import StoredImages
from koch_episodes.errors import DatasetFormatError

CAMERA = "observation.images.front"
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("episode", "frame")),
    CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
}
LENGTHS = (5, 9, 4, 7)
DATA = "data/chunk-000/file-000.parquet"
EPISODES = "meta/episodes/chunk-000/file-000.parquet"


def shade(episode: int, frame: int) -> int:
    return 15 + 60 * episode + 6 * frame


def write(root: Path, version: Version, lengths: tuple[int, ...] = LENGTHS) -> Path:
    with DatasetWriter(root, FEATURES, fps=10, version=version) as writer:
        for episode, length in enumerate(lengths):
            steps = np.arange(length)
            writer.add_episode(
                {"action": np.stack([np.full(length, episode), steps], 1)},
                {CAMERA: [np.full((32, 48, 3), shade(episode, k), np.uint8) for k in steps]},
                "t",
            )
    return root


def check(root: Path, numbers: list[int], lengths: tuple[int, ...] = LENGTHS) -> None:
    """Every frame is of the episode that it claims, with the image of its moment."""
    reader = LeRobotDatasetReader(root)
    assert [episode.index for episode in reader.episodes] == numbers
    assert [episode.length for episode in reader.episodes] == [lengths[n] for n in numbers]
    assert len(reader) == sum(lengths[n] for n in numbers) == len(reader.column("action"))
    for place, number in enumerate(numbers):
        assert reader.episode_numbered(number) is reader.episodes[place]
        for k in range(lengths[number]):
            frame = reader.frame(place, k)
            assert frame["action"].tolist() == [number, k]
            assert abs(float(frame[CAMERA].mean()) - shade(number, k)) < 3
        last = reader.window(reader.episodes[place].to_index - 1, {"action": [0, 1]})
        assert last["action_is_pad"].tolist() == [False, True]


def lines(root: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> None:
    path = root / "meta/episodes.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in change(rows)))


@pytest.mark.parametrize("gone", range(4))
@pytest.mark.parametrize("files_too", [False, True])
def test_line_taken_out_of_v21(tmp_path: Path, gone: int, files_too: bool) -> None:
    root = write(tmp_path / "data", Version.V21)
    lines(root, lambda rows: [row for row in rows if row["episode_index"] != gone])
    if files_too:
        for path in [*root.rglob(f"episode_00000{gone}.*")]:
            path.unlink()
    check(root, [n for n in range(4) if n != gone])
    with pytest.raises(DatasetFormatError, match=f"no episode {gone}"):
        LeRobotDatasetReader(root).episode_numbered(gone)


@pytest.mark.parametrize(("number", "change"), [(0, -2), (1, -1), (2, 5), (3, 1)])
def test_wrong_length_in_v21(tmp_path: Path, number: int, change: int) -> None:
    root = write(tmp_path / "data", Version.V21)
    lines(
        root,
        lambda rows: [
            {**r, "length": r["length"] + change * (r["episode_index"] == number)} for r in rows
        ],
    )
    check(root, [0, 1, 2, 3])
    assert not validate_dataset(root).ok


@pytest.mark.parametrize("name", ["episode_000001_old", "episode_000004", "a"])
def test_file_of_no_episode_in_v21(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "data", Version.V21)
    folder = root / "data/chunk-000"
    shutil.copy(folder / "episode_000002.parquet", folder / f"{name}.parquet")
    check(root, [0, 1, 2, 3])


def test_file_with_rows_of_another_episode_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V21)
    folder = root / "data/chunk-000"
    shutil.copy(folder / "episode_000002.parquet", folder / "episode_000001.parquet")
    with pytest.raises(DatasetFormatError, match="0 rows of episode 1"):
        LeRobotDatasetReader(root)


def table(root: Path, name: str, change: Callable[[list[dict[str, Any]]], Any]) -> None:
    found = pq.read_table(root / name)
    rows = change(found.to_pylist())
    pq.write_table(pa.Table.from_pylist(rows, schema=found.schema), root / name)


def scrambled(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "dataset_from_index": 3 * row["dataset_from_index"], "dataset_to_index": 999}


EDITS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], list[int]]] = {
    "row gone": (lambda rows: [r for r in rows if r["episode_index"] != 1], [0, 2, 3]),
    "first row gone": (lambda rows: rows[1:], [1, 2, 3]),
    "reverse": (lambda rows: rows[::-1], [0, 1, 2, 3]),
    "length": (lambda rows: [{**r, "length": r["length"] - 2} for r in rows], [0, 1, 2, 3]),
    "from and to": (lambda rows: [scrambled(r) for r in rows], [0, 1, 2, 3]),
    "file": (lambda rows: [{**r, "data/file_index": 7} for r in rows], [0, 1, 2, 3]),
}


PLACE = f"videos/{CAMERA}/from_timestamp"


@pytest.mark.parametrize(
    ("numbers", "shift_s", "match"),
    [
        ((0, 1, 2, 3), 0.5, "episode 3 at 2.300 to 3.000 s, expected an end in the file"),
        ((0,), -0.2, "episode 0 at -0.200 .* the file begins"),
        ((2,), -0.1, "episode 2 .* that of episode 1 ends, 1.400 s"),
        ((1,), 0.3, "episode 2 .* that of episode 1 ends, 1.700 s"),
    ],
)
def test_episode_that_shows_images_of_another_is_refused(
    tmp_path: Path, numbers: tuple[int, ...], shift_s: float, match: str
) -> None:
    root = write(tmp_path / "data", Version.V30)

    def shifted(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [
            {**r, PLACE: r[PLACE] + shift_s} if r["episode_index"] in numbers else r for r in rows
        ]

    table(root, EPISODES, shifted)
    reader = LeRobotDatasetReader(root)
    assert reader.column("action").shape == (25, 2), "numbers are no video's matter"
    with pytest.raises(DatasetFormatError, match=match):
        reader.image(CAMERA, 0)


def test_video_shorter_than_its_rows_is_refused_in_v21(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V21)
    videos = root / "videos/chunk-000" / CAMERA
    shutil.copy(videos / "episode_000002.mp4", videos / "episode_000001.mp4")
    with pytest.raises(DatasetFormatError, match=r"episode 1 at .* the file, which has 0\.400 s"):
        LeRobotDatasetReader(root).image(CAMERA, 0)


def test_task_that_is_not_there_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    table(root, DATA, lambda rows: [{**row, "task_index": 3} for row in rows])
    with pytest.raises(DatasetFormatError, match="task_index 3, expected 0 to 0"):
        LeRobotDatasetReader(root)


def test_other_images_are_told_by_their_digest_and_the_cache(tmp_path: Path) -> None:
    root, other = write(tmp_path / "data", Version.V21), tmp_path / "copy"
    shutil.copytree(root, other)
    videos = [each / "videos/chunk-000" / CAMERA / "episode_000003.mp4" for each in (root, other)]
    reader = LeRobotDatasetReader(other, cache=tmp_path / "cache")
    assert abs(float(reader.image(CAMERA, 18).mean()) - shade(3, 0)) < 3
    whole = [LeRobotDatasetReader(each).image_digest(CAMERA, 25) for each in (root, other)]
    assert whole[0] == whole[1]
    black = write_black(tmp_path / "black", LENGTHS[3])
    shutil.copy(black, videos[1])
    changed = LeRobotDatasetReader(other, cache=tmp_path / "cache")
    assert changed.image_digest(CAMERA, 25) != whole[0]
    assert changed.image_digest(CAMERA, 18) == LeRobotDatasetReader(root).image_digest(CAMERA, 18)
    assert changed.image(CAMERA, 18).max() < 20


def write_black(root: Path, length: int) -> Path:
    with DatasetWriter(root, FEATURES, fps=10, version=Version.V21) as writer:
        images = [np.zeros((32, 48, 3), np.uint8)] * length
        writer.add_episode({"action": np.zeros((length, 2))}, {CAMERA: images}, "t")
    return root / "videos/chunk-000" / CAMERA / "episode_000000.mp4"


@pytest.mark.parametrize("name", EDITS)
def test_edited_v30_episode_table(tmp_path: Path, name: str) -> None:
    root = write(tmp_path / "data", Version.V30)
    change, numbers = EDITS[name]
    table(root, EPISODES, change)
    check(root, numbers)


def test_v30_rows_in_another_order_of_episodes(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    table(root, DATA, lambda rows: sorted(rows, key=lambda row: -row["episode_index"]))
    check(root, [0, 1, 2, 3])


@pytest.mark.parametrize("lengths", [LENGTHS, (6, 6, 6, 6)])
@pytest.mark.parametrize("moved", [False, True])
@pytest.mark.parametrize("gone", range(4))
def test_v30_episode_table_that_was_numbered_anew(
    tmp_path: Path, lengths: tuple[int, ...], moved: bool, gone: int
) -> None:
    """Its rows name the videos of one episode and the number of another."""
    root = write(tmp_path / "data", Version.V30, lengths)

    def without(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        rows, place = [row for row in rows if row["episode_index"] != gone], 0
        for number, row in enumerate(rows):
            row["episode_index"] = number
            if moved:
                row["dataset_from_index"], place = place, place + row["length"]
                row["dataset_to_index"] = place
        return rows

    table(root, EPISODES, without)
    if gone == 3:  # the last one: nothing was numbered again
        check(root, [0, 1, 2], lengths)
    else:
        with pytest.raises(DatasetFormatError, match="has the length or place of another"):
            LeRobotDatasetReader(root)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: [{**r, "episode_index": 0} for r in rows], "25 rows of episode 0"),
        (lambda rows: rows + rows[5:8], "12 rows of episode 1"),
        (lambda rows: rows[:7] + rows[8:], "8 rows of episode 1"),
        (lambda rows: [r for r in rows if r["episode_index"] != 2], "0 rows of episode 2"),
    ],
    ids=["one number", "twice", "hole", "none"],
)
def test_rows_that_make_no_episode_are_refused(
    tmp_path: Path, change: Callable[[list[dict[str, Any]]], Any], match: str
) -> None:
    root = write(tmp_path / "data", Version.V30)
    table(root, DATA, change)
    with pytest.raises(DatasetFormatError, match=match):
        LeRobotDatasetReader(root)


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        ([3, 32, 48], ["channels", "height", "width"]),
        ([3, 32, 48], ["channel", "height", "width"]),
        ([3, 32, 48], None),
        ([32, 48, 3], ["height", "width", "channel"]),
        ([32, 48, 3], None),
    ],
)
def test_camera_declared_with_its_channels_first(
    tmp_path: Path, shape: list[int], names: list[str] | None
) -> None:
    """As openpi's converter and others declare theirs; an append leaves it as it is."""
    root = write(tmp_path / "data", Version.V30)
    path = root / "meta/info.json"
    raw = json.loads(path.read_text())
    raw["features"][CAMERA].update(shape=shape, names=names)
    path.write_text(json.dumps(raw))
    assert validate_dataset(root).ok
    reader = LeRobotDatasetReader(root)
    assert reader.features[CAMERA].shape == reader[0][CAMERA].shape == (32, 48, 3)
    check(root, [0, 1, 2, 3])
    entry = reader.features[CAMERA].to_json()
    assert (entry["shape"], entry["names"]) == (shape, names)


def into_table(root: Path, encode: Callable[[int], Any], group: int) -> None:
    """Move the camera of a dataset into its frame table, in row groups of some size."""
    found = pq.read_table(root / DATA)
    cells = [encode(row) for row in range(len(found))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    column = pa.array(cells, kind if isinstance(cells[0], dict) else pa.binary())
    pq.write_table(found.append_column(CAMERA, column), root / DATA, row_group_size=group)
    path = root / "meta/info.json"
    raw = json.loads(path.read_text())
    raw["features"][CAMERA].update(dtype="image")
    path.write_text(json.dumps(raw))


def png(level: int) -> bytes:
    import cv2

    done, data = cv2.imencode(".png", np.full((32, 48, 3), level, np.uint8))
    assert done
    return bytes(data)


def all_shades() -> list[int]:
    return [shade(e, k) for e, length in enumerate(LENGTHS) for k in range(length)]


@pytest.mark.parametrize("group", [1, 4, 7, 25, 999])
@pytest.mark.parametrize("struct", [True, False])
def test_images_inside_the_table(tmp_path: Path, group: int, struct: bool) -> None:
    root = write(tmp_path / "data", Version.V30)
    shades = all_shades()
    into_table(
        root,
        lambda r: {"bytes": png(shades[r]), "path": "x.png"} if struct else png(shades[r]),
        group,
    )
    table(root, EPISODES, lambda rows: [r for r in rows if r["episode_index"] != 1])
    check(root, [0, 2, 3])


def _means(reader: LeRobotDatasetReader) -> list[float]:
    return [float(reader.image(CAMERA, i).mean()) for i in (20, 3, 11, 24, 0)]


def test_images_inside_the_table_for_several_processes(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    shades = all_shades()
    into_table(root, lambda r: {"bytes": png(shades[r]), "path": None}, 25)
    reader = LeRobotDatasetReader(root)
    wanted = [shades[i] for i in (20, 3, 11, 24, 0)]
    for method in ("fork", "spawn"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(_means, [reader] * 2) == [wanted] * 2
    folder = reader._stored._folder
    assert folder is not None
    assert len(list(folder.iterdir())) == 1
    del reader
    assert not folder.exists()


def test_image_that_is_not_there_is_named(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    into_table(root, lambda r: {"bytes": None if r == 9 else png(40), "path": "9.png"}, 25)
    reader = LeRobotDatasetReader(root)
    assert reader.image(CAMERA, 8).mean() == 40
    with pytest.raises(DatasetFormatError, match=r"no bytes in .* of row 9"):
        reader.image(CAMERA, 9)


def odd_png(kind: str) -> bytes:
    import cv2

    if kind == "garbage":
        return b"garbage"
    if kind == "cut off":
        return png(40)[:-30]
    image = np.zeros((32, 48), np.uint16) if kind == "16 bits" else np.zeros((8, 8, 3), np.uint8)
    return bytes(cv2.imencode(".png", image)[1])


@pytest.mark.parametrize("kind", ["garbage", "cut off", "16 bits", "another size"])
def test_damaged_image_in_the_table_is_named_and_repaired(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Frame 9 of the data is the second or a later frame of an episode."""
    root, out = write(tmp_path / "data", Version.V30), tmp_path / "out"
    into_table(root, lambda r: {"bytes": odd_png(kind) if r == 9 else png(40 + r)}, 25)
    reader = LeRobotDatasetReader(root)
    number = int(reader.column("episode_index")[9])
    frame, length = int(reader.column("frame_index")[9]), reader.episode(number).length
    assert 0 < frame < length - 1
    if kind != "another size":
        with pytest.raises(DatasetFormatError, match=f"in '{CAMERA}' of frame 9"):
            reader.image(CAMERA, 9)
        words = ["recompute-stats", str(root), "--out", str(out)]
        assert edit(words) == 2
        told = capsys.readouterr().err
        assert f"episode {number}: got in '{CAMERA}' of frame {frame}" in told
        if kind != "cut off":  # a bag's reader finds that
            assert convert(["--to-bag", str(root), "--out", str(out)]) == 2
            assert f"of frame {frame}" in capsys.readouterr().err
    assert edit(["repair", str(root), "--out", str(out)]) == 0
    assert f"episode {number}: {CAMERA} has 1 damaged images" in capsys.readouterr().out
    left = LeRobotDatasetReader(out)
    assert left.episode(number).length == max(frame, length - frame - 1)
    assert [left.image(CAMERA, k).shape for k in range(len(left))] == [(32, 48, 3)] * len(left)


def test_doctor_names_an_episode_without_its_images(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    into_table(root, lambda r: {"bytes": None, "path": "9.png"}, 25)
    found = {complaint.kind: complaint for complaint in examine(root)}
    assert "no bytes in" in found["images"].text


def test_row_group_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading it for every image took 284 ms each in episodes of 900 images."""
    root = write(tmp_path / "data", Version.V30)
    shades = all_shades()
    into_table(root, lambda r: {"bytes": png(shades[r]), "path": None}, 9)
    unpacked: list[int] = []
    unpack = StoredImages._unpack

    def counted(self: StoredImages, key: str, number: int, path: Path) -> None:
        unpacked.append(number)
        unpack(self, key, number, path)

    monkeypatch.setattr(StoredImages, "_unpack", counted)
    reader = LeRobotDatasetReader(root)
    for row in (3, 17, 11, 24, 9, 0, 23, 5, 14):
        assert reader.image(CAMERA, row).mean() == shades[row]
    assert sorted(unpacked) == [0, 1, 2]
