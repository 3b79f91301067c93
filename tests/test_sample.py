# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The sample bag in docs/sample still converts into the dataset beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from repository import ROOT

from koch_episodes.convert import cli
from koch_episodes.dataset import LeRobotDatasetReader

SAMPLE = ROOT / "docs" / "sample"
EPISODE = SAMPLE / "episode_000000"
LARGEST_BYTES = 5_000_000


@pytest.fixture(scope="module")
def stored() -> LeRobotDatasetReader:
    return LeRobotDatasetReader(SAMPLE / "dataset")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> LeRobotDatasetReader:
    out = tmp_path_factory.mktemp("sample") / "dataset"
    assert cli.main([str(EPISODE), "--out", str(out), "--jobs", "1"]) == 0
    return LeRobotDatasetReader(out)


def test_the_sample_is_small() -> None:
    assert sum(path.stat().st_size for path in EPISODE.rglob("*")) < LARGEST_BYTES


def test_tables_are_reproduced(stored: LeRobotDatasetReader, made: LeRobotDatasetReader) -> None:
    assert made.features == stored.features
    assert [e.length for e in made.episodes] == [e.length for e in stored.episodes]
    assert made.tasks == stored.tasks
    numeric = [key for key in made.features if key not in made.image_keys]
    assert {"observation.state", "action", "observation.environment_state"} <= set(numeric)
    for key in numeric:
        np.testing.assert_array_equal(made.column(key), stored.column(key), err_msg=key)


def test_images_are_reproduced_but_for_the_encoder(
    stored: LeRobotDatasetReader, made: LeRobotDatasetReader
) -> None:
    (key,) = made.image_keys
    for index in (0, len(made) // 2, len(made) - 1):
        difference = np.subtract(made.image(key, index), stored.image(key, index), dtype=int)
        assert np.abs(difference).mean() < 3.0


def test_the_demonstration_is_in_the_numbers(stored: LeRobotDatasetReader) -> None:
    """The block begins on the table, is lifted and ends in the cup."""
    names = list(stored.features["observation.environment_state"].names or ())
    truth = stored.column("observation.environment_state")
    block = truth[:, [names.index(f"block_{axis}") for axis in "xyz"]]
    cup = truth[:, [names.index(f"cup_{axis}") for axis in "xy"]]
    assert block[:, 2].max() > block[0, 2] + 0.05
    assert np.linalg.norm(block[-1, :2] - cup[-1]) < 0.04
    assert Path(EPISODE / "metadata.yaml").is_file()
