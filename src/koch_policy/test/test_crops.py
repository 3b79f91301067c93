# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A box of a camera's image: the same pixels in training, in the checkpoint and at inference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_core.image import crop_rgb, resize_rgb
from koch_episodes.dataset.reader import LeRobotDatasetReader
from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.errors import CheckpointError, ConfigError, DatasetError
from koch_policy.execution import differences
from koch_policy.execution.synthetic import FunctionPolicy
from koch_policy.metadata import (
    CheckpointMetadata,
    is_crop,
    read_metadata,
    write_metadata,
)
from koch_policy.runtime.observation import ObservationReader
from koch_policy.train.config import Recipe
from koch_policy.train.setup import make_trainer
from koch_policy.train.source import open_demonstrations
from koch_rig.arm_model import KOCH_V1_1
from koch_rig.load import load_rig

J = len(KOCH_V1_1.joints)

BOX = [0.25, 0.5, 0.5, 0.25]  # of 48x64: columns 16 to 48, rows 24 to 36
CONFIG = Path(__file__).resolve().parents[3] / "config"


def test_a_box_is_cut_at_whole_pixels() -> None:
    image = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3).astype(np.uint8)
    assert np.array_equal(crop_rgb(image, (0.25, 0.5, 0.5, 0.25)), image[24:36, 16:48])
    assert np.array_equal(crop_rgb(image, (0.0, 0.0, 1.0, 1.0)), image)
    assert crop_rgb(image, (0.999, 0.0, 0.001, 1.0)).shape == (48, 1, 3)
    assert np.array_equal(crop_rgb(np.stack([image] * 2), (0.0, 0.0, 0.5, 1.0))[1], image[:, :32])


@pytest.mark.parametrize(
    "box",
    [[0.1, 0.1, 0.5], [0.6, 0.0, 0.5, 1.0], [0.0, 0.0, 0.0, 1.0], [-0.1, 0, 1, 1], "half", None],
)
def test_what_is_no_box_is_refused(box: object, tmp_path: Path) -> None:
    assert not is_crop(box)
    with pytest.raises(ConfigError, match=r"crops\.camera"):
        Recipe().with_overrides({"train": {"crops": {"camera": box}}}, "test")
    write_metadata(tmp_path, CheckpointMetadata(crops={"camera": box}))  # type: ignore[dict-item]
    with pytest.raises(CheckpointError, match=r"crops\.camera"):
        read_metadata(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [None, [12, 16]])
def test_a_policy_sees_live_what_it_saw_in_training(
    size: list[int] | None, make: Any, tmp_path: Path
) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    train = {"image_size": size, "crops": {make.camera: BOX}}
    recipe = make.recipe("act").with_overrides({"train": train}, "test")
    data = open_demonstrations(root, recipe.train, cache=tmp_path / "cache")
    height, width = size or (12, 32)
    assert data.frames[make.camera].shape == (height, width, 3)
    trainer = make_trainer(data, recipe, tmp_path / "out")
    trainer.save()
    folder = tmp_path / "out/checkpoints/last/pretrained_model"
    checkpoint = load_checkpoint(folder)
    assert checkpoint.extras.crops == {make.camera: BOX}
    whole = LeRobotDatasetReader(root).image(make.camera, 7)
    seen = data.frames[make.camera].read(np.array([7]))[0]
    assert np.array_equal(seen, resize_rgb(whole[24:36, 16:48], height, width))
    observation = {
        **{key: data.vectors[key][7] for key in data.vectors if key != "action"},
        make.camera: whole,
    }
    live = ObservationReader(checkpoint).read(observation)[make.camera]
    assert np.array_equal(live[0].numpy(), seen)


def test_caches_of_different_boxes_do_not_mix(make: Any, tmp_path: Path) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    readers = [
        LeRobotDatasetReader(
            root, image_size=(12, 16), crops={make.camera: box}, cache=tmp_path / "cache"
        )
        for box in ((0.0, 0.0, 0.5, 0.5), (0.3, 0.3, 0.5, 0.5))
    ]
    first, second = (reader.image(make.camera, 3) for reader in readers)
    assert not np.array_equal(first, second)


@pytest.mark.slow
def test_a_camera_may_have_a_size_of_its_own(make: Any, tmp_path: Path) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    train = {"image_size": [24, 32], "image_sizes": {make.camera: [12, 16]}}
    recipe = make.recipe("act").with_overrides({"train": train}, "test")
    data = open_demonstrations(root, recipe.train, cache=tmp_path / "cache")
    assert data.frames[make.camera].shape == (12, 16, 3)
    make_trainer(data, recipe, tmp_path / "out").save()
    reader = ObservationReader(load_checkpoint(tmp_path / "out/checkpoints/last/pretrained_model"))
    whole = LeRobotDatasetReader(root).image(make.camera, 7)
    observation = {key: data.vectors[key][7] for key in data.vectors if key != "action"}
    live = reader.read({**observation, make.camera: whole})[make.camera]
    assert np.array_equal(live[0].numpy(), resize_rgb(whole, 12, 16))
    with pytest.raises(ConfigError, match=r"image_sizes\.up"):
        recipe.with_overrides({"train": {"image_sizes": {"up": [0, 3]}}}, "test")
    strange = recipe.with_overrides({"train": {"image_sizes": {"up": [2, 3]}}}, "test")
    with pytest.raises(DatasetError, match="no camera 'up' to reduce"):
        open_demonstrations(root, strange.train)


def test_a_box_of_a_camera_that_is_not_there_is_named(make: Any, tmp_path: Path) -> None:
    root = make.dataset(tmp_path / "data", images=True)
    recipe = Recipe().with_overrides({"train": {"crops": {"observation.images.up": BOX}}}, "t")
    with pytest.raises(DatasetError, match=r"no camera 'observation\.images\.up'"):
        open_demonstrations(root, recipe.train)


@pytest.mark.parametrize("images", [True, False])
@pytest.mark.parametrize("name", ["crops", "image_sizes", "image_size"])
def test_what_is_said_of_images_that_the_policy_does_not_see_is_refused(
    name: str, images: bool, make: Any, tmp_path: Path
) -> None:
    root = make.dataset(tmp_path / "data", images=images)
    size = [12, 16]
    value = {"crops": {make.camera: BOX}, "image_sizes": {make.camera: size}, "image_size": size}
    train = {"inputs": ["observation.state"], name: value[name]}
    recipe = Recipe().with_overrides({"train": train}, "test")
    named = rf"train\.{name}" if images or name == "image_size" else "no camera"
    with pytest.raises(DatasetError, match=named):
        open_demonstrations(root, recipe.train)


def test_a_camera_no_larger_than_the_box_is_refused() -> None:
    rig = load_rig(CONFIG / "rig.sim.yaml")
    key = "observation.images.above"
    policy = FunctionPolicy(
        lambda call, observation: np.zeros((30, J), np.float32),
        inputs={key: PolicyFeature(FeatureType.VISUAL, (3, 96, 128))},
        extras=CheckpointMetadata(
            fps=30.0, units="lerobot", crops={key: BOX}, runtime={"resize": True}
        ),
    )
    assert not differences(policy, rig)[0]
    small = replace(rig.cameras["above"], width=128, height=96)
    wrong, _ = differences(policy, replace(rig, cameras={**rig.cameras, "above": small}))
    assert any("gives no more pixels" in line for line in wrong)
