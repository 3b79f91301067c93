# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Angles that fold are seen as sine and cosine, in training and wherever a policy runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.angles import expand, expanded_width
from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ENVIRONMENT
from koch_policy.dataset_view import DatasetView
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.runtime import load_policy
from koch_policy.runtime.base import example_observation
from koch_policy.train.config import Recipe, TrainConfig
from koch_policy.train.setup import make_trainer
from koch_policy.train.source import open_demonstrations

PERIOD = 0.5  # of the made-up dataset's element e1


def test_values_by_hand() -> None:
    values = np.array([[7.0, 0.0], [8.0, 90.0], [9.0, 540.0]], np.float32)
    found = expand(values, ["x", "yaw"], {"yaw": 360.0})
    np.testing.assert_allclose(found, [[7, 0, 1], [8, 1, 0], [9, 0, -1]], atol=1e-6)
    assert expanded_width(["x", "yaw"], {"yaw": 360.0}) == 3
    np.testing.assert_array_equal(expand(values, ["x", "yaw"], {}), values)


def test_neighbours_over_the_fold_are_neighbours() -> None:
    ends = expand(np.array([[-1.5707], [1.5707]], np.float32), ["yaw"], {"yaw": np.pi})
    assert np.abs(ends[0] - ends[1]).max() < 1e-3


@pytest.fixture(scope="module")
def trained(make: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset on disk, and a checkpoint that sees one element of it as an angle."""
    folder = tmp_path_factory.mktemp("angles")
    root = make.dataset(folder / "data")
    recipe = make.recipe("act", steps=1, angles={ENVIRONMENT: {"e1": PERIOD}})
    make_trainer(open_demonstrations(root, recipe.train), recipe, folder / "run").run()
    return root, folder / "run"


def test_a_policy_is_given_the_angle_and_does_not_see_the_fold(trained: Any) -> None:
    root, run = trained
    checkpoint = load_checkpoint(run)
    assert checkpoint.config.input_features[ENVIRONMENT].shape == (5,)
    assert checkpoint.extras.angles == {ENVIRONMENT: {"e1": PERIOD}}
    view = DatasetView(root, checkpoint.config, checkpoint.extras, {})
    observation = view.observation(50)
    assert observation[ENVIRONMENT].shape == (4,)
    policy = load_policy(run, "torch")
    turned = {**observation, ENVIRONMENT: observation[ENVIRONMENT].copy()}
    turned[ENVIRONMENT][1] += 3 * PERIOD
    np.testing.assert_allclose(policy.predict(turned), policy.predict(observation), atol=1e-3)
    turned[ENVIRONMENT][1] += PERIOD / 2
    assert np.abs(policy.predict(turned) - policy.predict(observation)).max() > 1e-3
    assert example_observation(checkpoint)[ENVIRONMENT].shape == (4,)


def test_mistakes_are_named(trained: Any, make: Any) -> None:
    root, _ = trained
    with pytest.raises(DatasetError, match=r"has no angle yaw\. It has e0, e1"):
        open_demonstrations(root, TrainConfig(angles={ENVIRONMENT: {"yaw": 1.0}}))
    with pytest.raises(DatasetError, match="has the action among `angles`"):
        open_demonstrations(root, TrainConfig(angles={"action": {"gripper.pos": 1.0}}))
    with pytest.raises(ConfigError, match="period above zero"):
        Recipe().with_overrides({"train": {"angles": {ENVIRONMENT: {"e1": 0}}}}, "test")
