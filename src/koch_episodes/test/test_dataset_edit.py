# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch dataset`: what edits make, judged by an independent look at values and images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from koch_episodes.dataset import (
    Codec,
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    VideoSettings,
    validate_dataset,
)
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.edit.cut import Way
from koch_episodes.dataset.edit.edits import describe
from koch_episodes.dataset.edit.make import look, make
from koch_episodes.dataset.edit.options import EDITS
from koch_episodes.dataset.stats import column_stats, exact_quantiles
from koch_episodes.errors import OutputExistsError

CAMERA = "observation.images.front"
FPS = 10
FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    "observation.state": FeatureSpec("float32", (3,), ("x", "y", "z")),
    CAMERA: FeatureSpec("video", (32, 48, 3), ("height", "width", "channels")),
    "next.reward": FeatureSpec("float32", (1,)),
}
LENGTHS = (15, 9, 24, 12)
OUTCOMES = ("success", "failure", "success", "")


def shade(episode: int, frame: int) -> int:
    return 20 + 50 * episode + 2 * frame


def write(
    root: Path,
    version: str,
    lengths: tuple[int, ...] = LENGTHS,
    video: VideoSettings | None = None,
) -> Path:
    """Values tell episode and frame: action[1] is 100 * episode + frame, images have `shade`."""
    with DatasetWriter(
        root, FEATURES, fps=FPS, robot_type="r", version=version, video=video
    ) as writer:
        for episode, length in enumerate(lengths):
            steps = np.arange(length)
            writer.add_episode(
                {
                    "action": np.stack([steps, steps + 100.0 * episode], 1),
                    "observation.state": np.stack([steps] * 3, 1) * 0.5,
                    "next.reward": steps / 10,
                },
                {
                    CAMERA: [
                        np.full((32, 48, 3), shade(episode % 4, k), np.uint8)
                        for k in range(length)
                    ]
                },
                f"task {episode % 2}",
                OUTCOMES[episode % 4],
            )
    return root


@pytest.fixture(params=list(Version), ids=lambda v: v.value)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "data", request.param)


Wanted = list[tuple[int, int, int]]  # episode of the original, first frame, behind the last


def check(root: Path, wanted: Wanted, *, within: float = 1.5) -> LeRobotDatasetReader:
    """Values, images, numbers and statistics are those of the wanted stretches."""
    assert not [str(found) for found in validate_dataset(root, decode=True).findings]
    reader = LeRobotDatasetReader(root)
    assert [e.length for e in reader.episodes] == [stop - start for _, start, stop in wanted]
    assert [e.index for e in reader.episodes] == list(range(len(wanted)))
    for place, (episode, start, stop) in enumerate(wanted):
        for k in range(stop - start):
            item = reader.frame(place, k)
            if "action" in item:
                assert item["action"].tolist() == [start + k, 100.0 * episode + start + k]
            assert item["timestamp"] == pytest.approx(k / FPS)
            if CAMERA in item:
                assert abs(item[CAMERA].mean() - shade(episode % 4, start + k)) <= within
    assert reader.stats is not None
    for key in ("action", "observation.state", "next.reward"):
        if key not in reader.features:
            continue
        values = reader.column(key)
        told = column_stats(values)
        if reader.info.format.has_quantiles:
            told |= exact_quantiles(values)
            assert "q50" in reader.stats[key]
        for name in ("min", "max", "mean", "std", "count", "q01", "q50"):
            if name in reader.stats[key]:
                np.testing.assert_allclose(reader.stats[key][name], told[name], atol=1e-6)
    return reader


ALL: Wanted = [(episode, 0, length) for episode, length in enumerate(LENGTHS)]


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_trimming_an_even_and_an_odd_begin(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert (
        run("trim", dataset, "--out", out, "--episodes", "0,2", "--start", 0.3, "--end", 0.5) == 0
    )
    reader = check(out, [(0, 3, 10), (1, 0, 9), (2, 3, 19), (3, 0, 12)])
    assert reader.stats is not None
    low = np.min([shade(0, 3), shade(1, 0), shade(2, 3), shade(3, 0)]) / 255
    np.testing.assert_allclose(reader.stats[CAMERA]["min"], low, atol=2 / 255)
    check(dataset, ALL)


def test_keeping_seconds_of_an_episode(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("trim", dataset, "--out", out, "--keep", "2:0.4-1.2", "--keep", "0:1-") == 0
    check(out, [(0, 10, 15), (1, 0, 9), (2, 4, 12), (3, 0, 12)])


def test_trimming_copies_packets_where_it_can(dataset: Path, tmp_path: Path) -> None:
    (plan,) = plans("trim", dataset, tmp_path / "out", start=0.3)
    found = look(plan)
    # The encoder writes a key frame every second frame: one image each is encoded again.
    assert found.ways == {Way.HEAD: 4}
    assert found.encoded == 4
    (plan,) = plans("trim", dataset, tmp_path / "out", start=0.4)
    assert look(plan).ways == {Way.COPY: 4}
    assert not (tmp_path / "out").exists()


def plans(name: str, root: Path, out: Path, **options: Any) -> Any:
    edit = EDITS[name]
    return edit.plans(edit.options(root=root, out=out, **options))


def test_rests_are_cut(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with DatasetWriter(root, FEATURES, fps=FPS) as writer:
        place = np.clip(np.arange(40) - 15, 0, 10)
        writer.add_episode(
            {
                "action": np.stack([place, 100.0 + place], 1),
                "observation.state": np.zeros((40, 3)),
                "next.reward": np.zeros(40),
            },
            {CAMERA: [np.zeros((32, 48, 3), np.uint8)] * 40},
            "t",
        )
    assert run("trim", root, "--in-place", "--idle") == 0
    reader = LeRobotDatasetReader(root)
    assert reader.column("action")[:, 0].tolist() == [0, 0, 0, *range(1, 11), 10, 10]


def test_deleting_episodes(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("delete", dataset, "--out", out, "--episodes", "0,2-2") == 0
    reader = check(out, [(1, 0, 9), (3, 0, 12)])
    assert reader.tasks == ("task 1",)
    assert [episode.outcome for episode in reader.episodes] == ["failure", ""]


def test_deleting_by_outcome_in_place(dataset: Path) -> None:
    assert run("delete", dataset, "--in-place", "--outcome", "failure") == 0
    check(dataset, [(0, 0, 15), (2, 0, 24), (3, 0, 12)])
    assert [path.name for path in dataset.parent.iterdir()] == ["data"]


def test_splitting_and_merging_gives_the_same_dataset(dataset: Path, tmp_path: Path) -> None:
    assert run("split", dataset, "--into", "a=0.5", "--into", "b=0.5") == 0
    check(tmp_path / "data_a", ALL[:2])
    check(tmp_path / "data_b", ALL[2:])
    out = tmp_path / "out"
    assert run("merge", tmp_path / "data_a", tmp_path / "data_b", "--out", out) == 0
    reader = check(out, ALL)
    before, after = (LeRobotDatasetReader(root).stats for root in (dataset, out))
    assert before is not None
    assert after is not None
    for name in ("min", "max", "mean", "std", "count"):
        np.testing.assert_allclose(before[CAMERA][name], after[CAMERA][name], rtol=1e-9)
    assert reader.tasks == ("task 0", "task 1")


def test_splitting_by_episodes(dataset: Path, tmp_path: Path) -> None:
    words = ("--into", "val=3,1", "--into", "train=0,2", "--out", tmp_path / "parts")
    assert run("split", dataset, *words) == 0
    check(tmp_path / "parts/val", [(3, 0, 12), (1, 0, 9)])
    check(tmp_path / "parts/train", [(0, 0, 15), (2, 0, 24)])


def test_relabelling(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--episodes", "1-2", "--rename", "task 1=Öffne = die Tür.", "--outcome", "failure")
    assert run("relabel", dataset, "--out", out, *words) == 0
    reader = check(out, ALL)
    assert reader.tasks == ("task 0", "Öffne = die Tür.", "task 1")
    assert [e.tasks[0] for e in reader.episodes] == [
        "task 0",
        "Öffne = die Tür.",
        "task 0",
        "task 1",
    ]
    assert [e.outcome for e in reader.episodes] == ["success", "failure", "failure", ""]
    assert run("relabel", out, "--in-place", "--task", "One.") == 0
    assert check(out, ALL).tasks == ("One.",)


def test_dropping_features(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ("--feature", CAMERA, "--feature", "next.reward")
    assert run("drop-feature", dataset, "--out", out, *words) == 0
    reader = check(out, ALL)
    assert CAMERA not in reader.features
    assert "next.reward" not in reader.features
    assert not list(out.rglob("*.mp4"))


def test_encoding_again(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("reencode", dataset, "--out", out, "--vcodec", "h264", "--gop", 5, "--crf", 10) == 0
    reader = check(out, ALL)
    info = reader.features[CAMERA].info
    assert info is not None
    assert (info["video.g"], info["video.crf"]) == (5, 10)


def test_statistics_are_worked_out_again(dataset: Path) -> None:
    right = LeRobotDatasetReader(dataset).stats
    path = dataset / ("meta/stats.json" if (dataset / "meta/stats.json").exists() else "")
    if path.is_file():
        path.unlink()
    else:
        lines = (dataset / "meta/episodes_stats.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        for row in rows:
            row["stats"]["action"]["mean"] = [7.0, 7.0]
            del row["stats"][CAMERA]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (dataset / "meta/episodes_stats.jsonl").write_text(text)
    assert run("recompute-stats", dataset, "--in-place") == 0
    reader = check(dataset, ALL)
    assert right is not None
    assert reader.stats is not None
    np.testing.assert_allclose(reader.stats[CAMERA]["mean"], right[CAMERA]["mean"], atol=0.5 / 255)


def test_lost_task_texts_are_told_apart_by_the_episodes(tmp_path: Path) -> None:
    """Episode 2 has both tasks; what the others have leaves one text for each number."""
    root = write(tmp_path / "data", "v3.0")
    (frames,) = (root / "data").rglob("*.parquet")
    rows = pq.read_table(frames)
    numbers = rows["task_index"].to_numpy().copy()
    begin = sum(LENGTHS[:2])
    numbers[begin + 10 : begin + LENGTHS[2]] = 1
    place = rows.column_names.index("task_index")
    pq.write_table(rows.set_column(place, "task_index", pa.array(numbers)), frames)
    (episodes,) = (root / "meta/episodes").rglob("*.parquet")
    told = pq.read_table(episodes)
    tasks = pa.array([["task 0"], ["task 1"], ["task 1", "task 0"], ["task 1"]])
    place = told.column_names.index("tasks")
    pq.write_table(told.set_column(place, "tasks", tasks), episodes)
    (root / "meta/tasks.parquet").unlink()
    assert run("repair", root, "--out", tmp_path / "out") == 0
    reader = LeRobotDatasetReader(tmp_path / "out")
    found = [reader.tasks[number] for number in reader.column("task_index")]
    assert found == [f"task {number}" for number in numbers]


def test_a_link_to_a_dataset_stays_one(tmp_path: Path) -> None:
    """What it leads to is edited, and the link is none the wiser."""
    dataset, link = write(tmp_path / "store/data", "v3.0"), tmp_path / "link"
    link.symlink_to(dataset)
    assert run("delete", link, "--episodes", "1", "--in-place") == 0
    assert link.is_symlink()
    check(dataset, [ALL[0], ALL[2], ALL[3]])
    with DatasetWriter(link, FEATURES, fps=FPS, robot_type="r", append=True) as writer:
        columns = {
            "action": np.zeros((5, 2)), "observation.state": np.zeros((5, 3)),
            "next.reward": np.zeros(5),
        }  # fmt: skip
        writer.add_episode(columns, {CAMERA: [np.zeros((32, 48, 3), np.uint8)] * 5}, "more")
    assert link.is_symlink()
    assert len(LeRobotDatasetReader(dataset).episodes) == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "store"]
    assert [path.name for path in dataset.parent.iterdir()] == ["data"]


def test_the_folder_that_one_is_in_is_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(tmp_path / "data", "v3.0")
    monkeypatch.chdir(dataset)
    assert run("split", ".", "--into", "a=0", "--into", "b=1-3") == 0
    check(tmp_path / "data_a", ALL[:1])
    check(tmp_path / "data_b", ALL[1:])
    assert run("delete", ".", "--episodes", "1", "--in-place") == 0
    monkeypatch.chdir(tmp_path)
    check(dataset, [ALL[0], ALL[2], ALL[3]])


def test_episodes_without_quantiles_are_cut_and_joined(tmp_path: Path) -> None:
    """As LeRobot's first v3.0 datasets are: a cut episode has them, the others do not."""
    whole, older = write(tmp_path / "data", "v3.0"), write(tmp_path / "older", "v3.0")
    for table in (older / "meta/episodes").rglob("*.parquet"):
        found = pq.read_table(table)
        names = [name for name in found.column_names if name.rpartition("/")[2].startswith("q")]
        assert names
        pq.write_table(found.drop_columns(names), table)
    assert run("trim", older, "--out", tmp_path / "cut", "--start", 0.3, "--episodes", "0") == 0
    assert run("merge", whole, older, "--out", tmp_path / "joined") == 0
    assert run("merge", older, whole, "--out", tmp_path / "joined_too") == 0
    for name in ("cut", "joined", "joined_too"):
        report = validate_dataset(tmp_path / name, decode=True)
        assert not report.errors
        assert all(f"{CAMERA!r} has no q01" in str(found) for found in report.findings)
        stats = LeRobotDatasetReader(tmp_path / name).stats
        assert stats is not None
        assert "q50" in stats["action"]
        assert "q50" not in stats[CAMERA]
        tables = list((tmp_path / name / "meta/episodes").rglob("*.parquet"))
        assert not pq.read_table(tables[0])[f"stats/{CAMERA}/mean"].null_count


@pytest.mark.parametrize("codec", [Codec.AV1, Codec.H264])
def test_long_groups_of_pictures_are_cut_right(tmp_path: Path, codec: Codec) -> None:
    video = VideoSettings(
        codec, 30 if codec is Codec.AV1 else 18, 10, "12" if codec is Codec.AV1 else "veryfast"
    )
    root = write(tmp_path / "data", Version.V30, (24, 25), video)
    out = tmp_path / "out"
    (plan,) = plans("trim", root, out, start=0.3, end=0.4)
    found = make(plan)
    assert found.encoded <= 14
    check(out, [(0, 3, 20), (1, 3, 21)], within=3.0)


def test_dry_run_says_what_would_be_done_and_writes_nothing(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run("trim", dataset, "--in-place", "--start", 0.3, "--dry-run") == 0
    said = capsys.readouterr().out
    assert "episode 0: frames 3 to 14 of 15 are kept" in said
    assert "would write 4 episodes, 48 frames" in said
    assert "4 copied behind a few frames that are encoded again; 4 images encoded again" in said
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("delete", "--out", "x", "--episodes", "9"), "there is no episode 9"),
        (("trim", "--out", "x", "--keep", "0:0-1", "--keep", "0:0-0.5"), "one part of episode 0"),
        (("split", "--out", "x", "--into", "..=0.5"), "NAME=SHARE"),
        (("delete", "--out", "x", "--episodes", "a-3"), "no episode number"),
        (("delete", "--out", "x"), "Give --episodes or --outcome"),
        (("delete", "--out", "x", "--episodes", "0-3"), "no episode would be left"),
        (("delete", "--episodes", "0"), "--in-place"),
        (("trim", "--out", "x", "--start", "2"), "nothing is left of episode 0"),
        (("trim", "--out", "x", "--keep", "0:a"), "EPISODE:FROM-TO"),
        (("drop-feature", "--out", "x", "--feature", "index"), "LeRobot does not need"),
        (("drop-feature", "--out", "x", "--feature", "nothing"), "one of action"),
        (("relabel", "--out", "x", "--rename", "no=x"), "OLD is one of"),
        (("reencode", "--out", "x", "--preset", "nonsense"), "--preset: got 'nonsense', expected"),
        (("reencode", "--out", "x", "--crf", "60"), "--crf: got 60, expected 0 to 51 for h264"),
        (("split", "--into", "a=0,1", "--into", "b=1"), "episode 1 is in a and in b"),
        (("split", "--into", "a=0.9", "--into", "b=0.2"), "not above 1 together"),
    ],
)
def test_what_makes_no_sense_is_refused_and_changes_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    words: tuple[str, ...],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "data", Version.V30)
    assert run(words[0], root, *words[1:]) == 2
    assert said in capsys.readouterr().err.replace("\n", " ")
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_datasets_that_differ_are_not_merged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", Version.V30)
    two = write(tmp_path / "two", Version.V30)
    assert run("drop-feature", two, "--in-place", "--feature", "next.reward") == 0
    assert run("merge", one, two, "--out", tmp_path / "out") == 2
    assert "features of" in capsys.readouterr().err
    for root, units in ((one, "degrees"), (two, "radians")):
        (root / "meta/koch.json").write_text(json.dumps({"units": units}))
    assert run("drop-feature", one, "--in-place", "--feature", "next.reward") == 0
    assert run("merge", one, two, "--out", tmp_path / "out") == 2
    assert "units of" in capsys.readouterr().err


def test_a_refused_edit_leaves_no_lock(tmp_path: Path) -> None:
    root = write(tmp_path / "data", Version.V30)
    (plan,) = plans("delete", root, root, episodes="0")
    with pytest.raises(OutputExistsError):
        make(plan)
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_merge_that_loses_the_units_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "one", Version.V30)
    two = write(tmp_path / "two", Version.V30)
    (one / "meta/koch.json").write_text(json.dumps({"units": "degrees"}))
    assert run("merge", one, two, "--out", tmp_path / "out") == 0
    assert f"meta/koch.json is left out, since {two} has none" in capsys.readouterr().out
    assert not (tmp_path / "out/meta/koch.json").exists()


def test_a_damaged_koch_json_is_no_missing_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "data", Version.V30)
    (root / "meta/koch.json").write_text('{"units": ')
    assert run("delete", root, "--in-place", "--episodes", "0") == 2
    assert "meta/koch.json: got unreadable file" in capsys.readouterr().err
    check(root, ALL)
    assert run("repair", root, "--out", tmp_path / "out") == 0
    assert "meta/koch.json: unreadable, left out" in capsys.readouterr().out


def test_a_read_me_and_words_of_ones_own_stay(dataset: Path, tmp_path: Path) -> None:
    (dataset / "README.md").write_text("Ours.")
    info = json.loads((dataset / "meta/info.json").read_text())
    (dataset / "meta/info.json").write_text(json.dumps({**info, "lab": "north"}))
    assert run("delete", dataset, "--in-place", "--episodes", "0") == 0
    assert (dataset / "README.md").read_text() == "Ours."
    assert json.loads((dataset / "meta/info.json").read_text())["lab"] == "north"


def test_info_tells_of_a_dataset(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", dataset) == 0
    said = capsys.readouterr().out
    assert "4 episodes, 60 frames, 6.0 s" in said
    assert "2 success, 1 failure, 1 (none)" in said
    assert run("info", dataset, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(json.dumps(describe(dataset)))


# -- repair -----------------------------------------------------------------------------------


def damage_video(root: Path) -> Wanted:
    """The last video file is cut off: the episodes in it end where it ends."""
    path = sorted(root.rglob("*.mp4"))[-1]
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * 0.9)])
    return []


def damage_totals(root: Path) -> Wanted:
    info = json.loads((root / "meta/info.json").read_text())
    (root / "meta/info.json").write_text(json.dumps({**info, "total_frames": 3}))
    for name in ("meta/stats.json", "meta/episodes_stats.jsonl"):
        (root / name).unlink(missing_ok=True)
    return ALL


def damage_numbers(root: Path) -> Wanted:
    """One value is not a number: the longer side of its episode stays."""
    for path in sorted((root / "data").rglob("*.parquet")):
        table = pq.read_table(path)
        rows = table.to_pylist()
        hit = False
        for row in rows:
            if row["episode_index"] == 2 and row["frame_index"] == 5:
                row["action"] = [float("nan"), 1.0]
                hit = True
        if hit:
            pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    return [ALL[0], ALL[1], (2, 6, 24), ALL[3]]


def damage_tasks(root: Path) -> Wanted:
    for name in ("meta/tasks.parquet", "meta/tasks.jsonl"):
        (root / name).unlink(missing_ok=True)
    return ALL


@pytest.mark.parametrize("damage", [damage_video, damage_totals, damage_numbers, damage_tasks])
def test_what_is_sound_of_a_damaged_dataset_is_kept(
    dataset: Path, tmp_path: Path, damage: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = damage(dataset)
    out = tmp_path / "out"
    assert run("repair", dataset, "--out", out) == 0
    said = capsys.readouterr().out
    if wanted:
        assert [e.tasks[0] for e in check(out, wanted).episodes] == [
            f"task {n % 2}" for n in range(4)
        ]
        return
    assert "lacks" in said or "Left out" in said
    reader = LeRobotDatasetReader(out)
    assert not validate_dataset(out, decode=True).findings
    assert 0 < len(reader) < sum(LENGTHS)


# -- many episodes ----------------------------------------------------------------------------

PEAK = """
import re, sys
from pathlib import Path
from koch_episodes.dataset.edit.cli import main
assert main(sys.argv[1:]) == 0
# Not ru_maxrss: a child starts with its parent's, here pytest's.
print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_episodes(tmp_path: Path) -> None:
    few = write(tmp_path / "few", Version.V30, (3,) * 18)
    many = tmp_path / "many"
    assert run("merge", *[few] * 12, "--out", many) == 0
    peaks = []
    for root in (few, many):
        done = subprocess.run(
            [sys.executable, "-c", PEAK, "delete", str(root), "--in-place", "--episodes", "0"],
            capture_output=True,
            text=True,
            timeout=200,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split()[-1]) / 1024)
    assert len(LeRobotDatasetReader(many).episodes) == 215
    assert peaks[1] - peaks[0] < 40
