# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""`koch run --replay DATASET` for whatever `koch train` learns from, and what it refuses."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_episodes.dataset.layout import FeatureSpec
from koch_episodes.dataset.writer import DatasetWriter
from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ENVIRONMENT
from koch_policy.dataset_view import DatasetView
from koch_policy.errors import DatasetError
from koch_policy.run_cli import main
from koch_policy.runtime.calibration import sample_observations
from koch_policy.train.cli import main as train


def write(root: Path, names: tuple[str, ...], *, fps: int = 20, turned: bool = False) -> Path:
    """Three episodes of a robot with some joints, in no particular unit."""
    order = tuple(reversed(names)) if turned else names
    vector = FeatureSpec("float32", (len(names),), order)
    environment = FeatureSpec("float32", (2,), ("bx", "by"))
    features = {
        "observation.state": vector, ENVIRONMENT: environment,
        "action": vector,
    }  # fmt: skip
    with DatasetWriter(root, features, fps=fps, robot_type="toy") as writer:
        for episode in range(3):
            time_s = np.arange(40)[:, None] / 20 + episode
            motion = np.sin(time_s * np.arange(1, len(names) + 1)).astype(np.float32)
            shown = motion[:, ::-1] if turned else motion
            goal = np.tile(np.array([episode, 1.0], np.float32), (40, 1)) + time_s.astype("f4")
            columns = {"observation.state": shown, "action": shown, ENVIRONMENT: goal}
            writer.add_episode(columns, {}, "wave")
        writer.finalize()
    return root


SMALL = [
    "--set", "train.steps=2", "--set", "train.batch_size=4", "--set", "policy.dim_model=32",
    "--set", "policy.n_heads=2", "--set", "policy.chunk_size=8",
    "--set", "policy.n_action_steps=8", "--threads", "1",
]  # fmt: skip


@pytest.mark.parametrize("joints", [("a", "b"), ("w", "x", "y", "z", "tool"), tuple("abcdefghi")])
def test_any_robot_is_replayed_in_the_units_of_its_dataset(
    joints: tuple[str, ...], tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOCH_RIG", str(tmp_path / "none.yaml"))
    root = write(tmp_path / "data", joints)
    run = tmp_path / "run"
    assert train(["--dataset", str(root), "--out", str(run), *SMALL]) == 0
    report = tmp_path / "r.json"
    asked = ["--policy", str(run), "--replay", str(root), "--episode", "2", "--runtime", "torch"]
    assert main([*asked, "--plot", str(tmp_path / "p.png"), "--json", str(report)]) == 0
    assert "40 ticks" in capsys.readouterr().out
    figures = json.loads(report.read_text())
    assert tuple(figures["joints"]) == joints
    assert figures["unit"] == "dataset units"
    assert (tmp_path / "p.png").stat().st_size > 1000


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset and a policy trained on it."""
    folder = tmp_path_factory.mktemp("trained")
    root = write(folder / "data", ("a", "b", "c"))
    assert train(["--dataset", str(root), "--out", str(folder / "run"), *SMALL]) == 0
    return root, folder / "run"


def test_elements_in_another_order_are_put_right(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    root, run = trained
    turned = write(tmp_path / "turned", ("a", "b", "c"), turned=True)
    policy = load_checkpoint(run)
    views = [DatasetView(each, policy.config, policy.extras, {}) for each in (root, turned)]
    np.testing.assert_array_equal(views[0].actions, views[1].actions)
    for row in (0, 41, 119):
        first, second = (view.observation(row) for view in views)
        np.testing.assert_array_equal(first["observation.state"], second["observation.state"])
    frames = [sample_observations(each, policy, 4) for each in (root, turned)]
    np.testing.assert_array_equal(
        frames[0][3]["observation.state"], frames[1][3]["observation.state"]
    )


def unknown_space(root: Path) -> None:
    (root / "meta/koch.json").write_text(json.dumps({"action_space": "polar"}))


def degrees(root: Path) -> None:
    (root / "meta/koch.json").write_text(json.dumps({"units": "degrees"}))


@pytest.mark.parametrize(
    ("damage", "match"),
    [(unknown_space, "action_space 'polar'"), (degrees, "is in degrees, not in")],
)
def test_what_training_refuses_is_refused_everywhere(
    damage: Any, match: str, trained: tuple[Path, Path], tmp_path: Path, capsys: Any
) -> None:
    root, run = trained
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    damage(copy)
    policy = load_checkpoint(run)
    policy = replace(policy, extras=replace(policy.extras, units="lerobot"))
    with pytest.raises(DatasetError, match=match):
        sample_observations(copy, policy)
    with pytest.raises(DatasetError, match=match):
        main(["--policy", str(run), "--replay", str(copy), "--runtime", "torch"])


@pytest.mark.parametrize(
    ("joints", "fps", "match"),
    [
        (("a", "b", "c"), 30, "has 30 frames per second, the policy's actions have 20"),
        (("a", "b", "d"), 20, "has no c"),
    ],
)
def test_data_that_do_not_fit_are_refused(
    joints: tuple[str, ...], fps: int, match: str, trained: tuple[Path, Path], tmp_path: Path
) -> None:
    policy = load_checkpoint(trained[1])
    other = write(tmp_path / "other", joints, fps=fps)
    with pytest.raises(DatasetError, match=match):
        DatasetView(other, policy.config, policy.extras, {})
