# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`--episodes` selects episodes of datasets and bags by expression, alike in every command."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.expression import ExpressionError
from koch_episodes.convert.cli import main as convert
from koch_episodes.convert.options import ConvertOptions
from koch_episodes.dataset import (
    DatasetWriter,
    FeatureSpec,
    LeRobotDatasetReader,
    Version,
    validate_dataset,
)
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.selection import as_expression
from koch_episodes.inspect_cli import main as inspect

FEATURES = {
    "action": FeatureSpec("float32", (2,), ("a", "b")),
    "intervention": FeatureSpec("bool", (1,)),
    "count": FeatureSpec("int64", (1,)),
}
EPISODES = (  # length, task, outcome, frames with a human
    (15, "Pick the red block.", "success", (3, 4)),
    (1, "Pick the blue block.", "failure", ()),
    (24, "Nimm den roten Würfel, 'A'", "success", ()),
    (12, "Pick the red block.", "", (0,)),
)


def write(root: Path, version: str, *, outcomes: bool = True) -> Path:
    with DatasetWriter(root, FEATURES, fps=10, robot_type="r", version=version) as writer:
        for number, (length, task, outcome, human) in enumerate(EPISODES):
            writer.add_episode(
                {
                    "action": np.full((length, 2), number) + np.arange(length)[:, None],
                    "intervention": np.isin(np.arange(length), human),
                    "count": np.arange(length) + 100 * number,
                },
                {},
                task,
                outcome if outcomes else "",
            )
    return root


@pytest.fixture(params=list(Version), ids=lambda v: v.value)
def dataset(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write(tmp_path / "data", request.param)


def run(*words: object) -> int:
    return main([str(word) for word in words])


SELECTIONS = [
    ("0,3", [0, 3]),
    ("1-2", [1, 2]),
    ("outcome == 'success'", [0, 2]),
    ("outcome == 'success' and task ~ 'red'", [0]),
    ("outcome == ''", [3]),
    ("task ~ 'Würfel'", [2]),
    ("task == \"Nimm den roten Würfel, 'A'\"", [2]),
    ("length == 1", [1]),
    ("duration_s >= 1.5", [0, 2]),
    ("index in (1, 2) or intervention", [0, 1, 2, 3]),
    ("intervention", [0, 3]),
    ("not intervention", [1, 2]),
    ("count > 300", [3]),
    ("source == 'data' and index < 2", [0, 1]),
]


@pytest.mark.parametrize(("text", "numbers"), SELECTIONS)
def test_info_shows_what_is_selected(
    dataset: Path, text: str, numbers: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", dataset, "--episodes", text, "--json") == 0
    told = json.loads(capsys.readouterr().out)["selected"]
    assert [each["episode"] for each in told] == numbers
    assert [each["length"] for each in told] == [EPISODES[number][0] for number in numbers]
    assert run("info", dataset, "--episodes", text) == 0
    frames = sum(EPISODES[number][0] for number in numbers)
    line = f"selected: {len(numbers)} of 4 episodes, {frames} frames"
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(("text", "numbers"), SELECTIONS)
def test_reader_and_edits_select_the_same(dataset: Path, text: str, numbers: list[int]) -> None:
    reader = LeRobotDatasetReader(dataset)
    assert [episode.index for episode in reader.chosen(text)] == numbers
    if len(numbers) < 4:
        out = dataset.parent / "left"
        assert run("delete", dataset, "--episodes", text, "--out", out) == 0
        left = [number for number in range(4) if number not in numbers]
        kept = LeRobotDatasetReader(out)
        assert [e.length for e in kept.episodes] == [EPISODES[number][0] for number in left]
        assert not validate_dataset(out, decode=True).findings


def test_relabel_trim_and_split_take_expressions(dataset: Path) -> None:
    relabel = ("relabel", dataset, "--in-place", "--outcome", "bad")
    assert run(*relabel, "--episodes", "outcome == ''") == 0
    told = [episode.outcome for episode in LeRobotDatasetReader(dataset).episodes]
    assert told == ["success", "failure", "success", "bad"]
    words = ("trim", dataset, "--in-place", "--start", 0.5)
    assert run(*words, "--episodes", "task ~ 'red' and length > 12") == 0
    assert [e.length for e in LeRobotDatasetReader(dataset).episodes] == [10, 1, 24, 12]
    good = "good=outcome == 'success' and duration_s > 1.5"
    assert run("split", dataset, "--into", good, "--into", "rest=outcome != 'success'") == 0
    parts = [LeRobotDatasetReader(dataset.with_name(f"data_{name}")) for name in ("good", "rest")]
    assert [[e.length for e in part.episodes] for part in parts] == [[24], [1, 12]]


def test_split_shares_out_the_selected_episodes(dataset: Path) -> None:
    words = ("split", dataset, "--episodes", "length > 1", "--into", "a=0.34", "--into", "b=0.66")
    assert run(*words) == 0
    parts = [LeRobotDatasetReader(dataset.with_name(f"data_{name}")) for name in "ab"]
    assert [[e.length for e in part.episodes] for part in parts] == [[15], [24, 12]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("outcome == 'lost'", "selects no episode"),
        ("outcme == 'success'", "column 1: got the field 'outcme', which"),
        ("outcme == 'success'", "Did you mean 'outcome'?"),
        ("outcme == 'success'", "expected one of index, length, duration_s, task, source, "
         "outcome, intervention, count."),
        ("action > 0", "'action', which"),
        ("outcome = 'success'", "column 9"),
        ("7", "there is no episode 7"),
        ("a-3", "no episode number"),
        ("2-1", "ends before it begins. Write 1-2."),
    ],
)  # fmt: skip
def test_what_selects_nothing_is_an_error(
    dataset: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for edit in ("info", "delete", "relabel"):
        more = () if edit == "info" else ("--out", dataset.parent / "out")
        more = (*more, "--task", "x") if edit == "relabel" else more
        assert run(edit, dataset, *more, "--episodes", text) == 2
        assert message in capsys.readouterr().err
    assert not (dataset.parent / "out").exists()


def test_a_dataset_without_outcomes_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write(tmp_path / "plain", Version.V30, outcomes=False)
    assert run("info", root, "--episodes", "outcome == 'success'") == 2
    told = capsys.readouterr().err
    assert f"'outcome', which {root} does not hold" in told
    assert "index, length, duration_s, task, source, intervention, count" in told


def test_inspect_lists_and_draws_the_selected(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = tmp_path / "seen.png"
    assert inspect([str(dataset), "--episodes", "length > 12", "-o", str(image)]) == 0
    told = capsys.readouterr().out
    assert "episode 0:" in told
    assert "episode 2:" in told
    assert "episode 1:" not in told
    assert image.stat().st_size > 1000


# -- bags -------------------------------------------------------------------------------------

WriteBag = Callable[..., Path]


@pytest.fixture
def bags(write_bag: WriteBag, recorder_custom: Callable[..., Any]) -> Path:
    """Three bags of one episode each: number 4 (red), 5 (blue, failed), 6 (red)."""
    for number, (task, outcome, seconds) in {
        4: ("Pick the red block.", "success", 1.2),
        5: ("Pick the blue block.", "failure", 1.5),
        6: ("Pick the red block.", "success", 2.0),
    }.items():
        data = recorder_custom(number, **{"koch.task": task, "koch.outcome": outcome})
        bag = write_bag(f"bags/episode_{number:06d}", seconds=seconds, custom=data)
    return bag.parent


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("outcome == 'success' and task ~ 'red'", [36, 60]),
        ("outcome == 'failure'", [45]),
        ("index == 5", [45]),
        ("4,6", [36, 60]),
        ("5-6", [45, 60]),
        ("duration_s > 1.8", [60]),
        ("length < 50", [36, 45]),
        ("source == 'episode_000006'", [60]),
        ("not intervention and index > 5", [60]),
    ],
)
def test_convert_keeps_the_selected(
    bags: Path, text: str, lengths: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    out = bags.parent / "out"
    assert convert([str(bags), "--out", str(out), "--jobs", "1", "--episodes", text]) == 0
    found = [episode.length for episode in LeRobotDatasetReader(out).episodes]
    assert found == pytest.approx(lengths, abs=2)
    if len(found) < 3:
        assert "left out (--episodes does not mean them)" in capsys.readouterr().err
    assert not validate_dataset(out).findings


def test_convert_of_nothing_and_of_unknown_fields_is_refused(
    bags: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(bags), "--out", str(bags.parent / "out"), "--jobs", "1", "--episodes"]
    assert convert([*words, "task ~ 'green'"]) == 2
    assert (
        "--episodes \"task ~ 'green'\" selects no episode of 3 bag(s)" in capsys.readouterr().err
    )
    assert not (bags.parent / "out").exists()
    with pytest.raises(ExpressionError, match="'speed', which a bag does not hold"):
        replace(ConvertOptions(), episodes="speed > 3")


@pytest.mark.parametrize(("text", "missing"), [("4,99", 99), ("5-9", 7), ("0", 0)])
def test_convert_refuses_a_number_that_no_bag_has(
    bags: Path, text: str, missing: int, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(bags), "--out", str(bags.parent / "out"), "--jobs", "1", "--episodes", text]
    assert convert(words) == 2
    told = capsys.readouterr().err
    assert f"--episodes {text}: there is no episode {missing}. There are 4, 5, 6 in 3 bag" in told
    assert [path.name for path in bags.parent.iterdir() if "out" in path.name] == []


def test_convert_names_a_number_that_a_bag_that_was_not_read_may_have(
    bags: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = bags.parent / "out"
    words = ["--out", str(out), "--jobs", "1"]
    assert convert([str(bags / "episode_000004"), *words]) == 0
    assert convert([str(bags), *words, "--append", "--episodes", "4,5"]) == 0
    assert "no bag that was read has episode 4" in capsys.readouterr().err
    assert len(LeRobotDatasetReader(out).episodes) == 2


def test_bags_are_made_of_the_selected(dataset: Path) -> None:
    words = ["--to-bag", str(dataset), "--out", str(dataset.parent / "bags")]
    assert convert([*words, "--episodes", "outcome == 'success' and length < 20"]) == 0
    found = sorted(path.name for path in (dataset.parent / "bags").glob("episode_*"))
    assert found == ["episode_000000"]


def test_marks_of_bags_take_expressions(bags: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("info", bags, "--episodes", "task ~ 'blue'") == 0
    told = capsys.readouterr().out
    assert "of 0 episode(s)" in told
    assert "Pick the blue block." in told
    assert "Pick the red block." not in told
    assert run("delete", bags, "--episodes", "outcome == 'failure'") == 0
    assert run("relabel", bags, "--episodes", "index == 6", "--task", "Again.") == 0
    out = bags.parent / "out"
    assert convert([str(bags), "--out", str(out), "--jobs", "1"]) == 0
    reader = LeRobotDatasetReader(out)
    assert [episode.tasks for episode in reader.episodes] == [
        ("Pick the red block.",),
        ("Again.",),
    ]
    assert run("delete", bags, "--episodes", "task ~ 'green'") == 2
    assert "selects no episode" in capsys.readouterr().err


def test_numbers_are_expressions_too() -> None:
    assert as_expression("0,3-5", "--episodes") == "0 <= index <= 0 or 3 <= index <= 5"
    assert as_expression("length > 3", "--episodes") == "length > 3"
