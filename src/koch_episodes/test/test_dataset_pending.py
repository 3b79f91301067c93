# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Pending edits: applying them makes what the commands make that are shown for them."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from koch_episodes.dataset import DatasetWriter, FeatureSpec, LeRobotDatasetReader
from koch_episodes.dataset.edit.cli import main
from koch_episodes.dataset.edit.pending import (
    EpisodeChange,
    PendingEdit,
    commands,
    pending_file,
    read_pending,
    together,
    write_pending,
)
from koch_episodes.errors import DatasetEditError

FPS = 10
LENGTHS = (15, 9, 24, 12)
EDITS = [
    PendingEdit(0, "outcome", "failure"),
    PendingEdit(2, "trim", (0.5, 2.0)),
    PendingEdit(2, "task", "it's another task"),
    PendingEdit(1, "delete", True),
    PendingEdit(3, "task", "it's another task"),
    PendingEdit(3, "trim", (0.2, 1.1)),
    PendingEdit(1, "trim", (0.1, 0.2)),  # of an episode that goes: no command is needed
]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    with DatasetWriter(
        root, {"action": FeatureSpec("float32", (2,), ("a", "b"))}, fps=FPS, robot_type="r"
    ) as writer:
        for episode, length in enumerate(LENGTHS):
            steps = np.arange(length)
            writer.add_episode(
                {"action": np.stack([steps, steps + 100.0 * episode], 1)},
                {},
                f"task {episode % 2}",
                "success",
            )
    return root


def contents(root: Path) -> list[object]:
    """All that a policy learns from."""
    reader = LeRobotDatasetReader(root)
    return [(episode.length, episode.tasks, episode.outcome) for episode in reader.episodes] + [
        reader.column("action").tolist()
    ]


def test_applying_makes_what_the_shown_commands_make(dataset: Path, tmp_path: Path) -> None:
    write_pending(pending_file(dataset), EDITS)
    before = contents(dataset)
    assert main(["apply", str(dataset), "--out", str(tmp_path / "at_once")]) == 0
    for line in commands(dataset, EDITS, tmp_path / "stepwise"):
        assert main(shlex.split(line)[2:]) == 0
    made = contents(tmp_path / "at_once")
    assert made == contents(tmp_path / "stepwise")
    assert made[:-1] == [
        (15, ("task 0",), "failure"),
        (15, ("it's another task",), "success"),
        (9, ("it's another task",), "success"),
    ]
    assert made[-1][15] == [5.0, 205.0]  # type: ignore[index]  # frame 5 of episode 2
    assert contents(dataset) == before
    assert pending_file(dataset).is_file()


def test_the_newest_edit_counts_and_the_last_can_be_taken_back(dataset: Path) -> None:
    path = pending_file(dataset)
    edits = [
        PendingEdit(0, "delete", True),
        PendingEdit(0, "outcome", "x"),
        PendingEdit(0, "delete", False),
    ]
    assert together(edits) == {0: EpisodeChange(outcome="x")}
    assert together(edits[:2]) == {0: EpisodeChange(outcome="x", delete=True)}
    write_pending(path, edits)
    assert read_pending(path) == edits
    write_pending(path, [])
    assert not path.exists()
    assert read_pending(path) == []


@pytest.mark.parametrize(
    "plain",
    [
        {"episode": 0},
        {"episode": 0, "trim": [2.0, 1.0]},
        {"episode": 0, "trim": [0.0, float("nan")]},
        {"episode": 0, "trim": [0.0]},
        {"episode": 0, "trim": [False, True]},
        {"episode": "0", "delete": True},
        {"episode": True, "delete": True},
        {"episode": 0, "delete": "yes"},
        {"episode": 0, "outcome": 3},
        {"episode": 0, "rm -rf": True},
        {"episode": 0, "task": "a", "outcome": "b"},
    ],
)
def test_a_wrong_edit_is_refused(plain: dict[str, object]) -> None:
    with pytest.raises(DatasetEditError, match="edit"):
        PendingEdit.of(plain)


@pytest.mark.parametrize("text", ["{", "[]", '{"edits": 3}', '{"edits": [3]}', "null"])
def test_a_damaged_list_is_an_error_and_nothing_is_made(
    dataset: Path, tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pending_file(dataset).write_text(text, encoding="utf-8")
    assert main(["apply", str(dataset), "--out", str(tmp_path / "out")]) == 2
    assert "no list of edits" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (None, "no edit is pending"),
        (PendingEdit(9, "delete", True), "there is no episode 9"),
        (PendingEdit(1, "trim", (5.0, 6.0)), "nothing is left of episode 1"),
    ],
)
def test_edits_that_do_not_fit_are_told(
    dataset: Path,
    tmp_path: Path,
    edit: PendingEdit | None,
    complaint: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "edits.json"
    path.write_text(json.dumps({"edits": [] if edit is None else [edit.plain()]}))
    words = ["apply", str(dataset), "--edits", str(path), "--out", str(tmp_path / "out")]
    assert main(words) == 2
    assert complaint in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
