# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's training keys in the policy group: honoured or refused, none swallowed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from koch_policy.config_json import _IGNORED
from koch_policy.errors import CheckpointError, ConfigError, WeightsMismatchError
from koch_policy.train.config import Recipe
from koch_policy.train.lerobot_keys import honoured
from koch_policy.train.setup import make_trainer

REFUSED = {
    "use_peft": True, "push_to_hub": True, "repo_id": "me/x", "private": True, "tags": ["x"],
    "license": "mit", "pretrained_revision": "main", "compile_model": True,
    "compile_mode": "default", "gradient_checkpointing": True,
    "pretrained_backbone_weights": "ResNet18_Weights.IMAGENET1K_V1",
    "input_features": {}, "output_features": {}, "scheduler_name": "linear",
    "crop_ratio": 0.9, "use_amp": "yes", "pretrained_path": 3,
}  # fmt: skip
HONOURED = {"type", "device", "use_amp", "pretrained_path"}


def recipe(policy: str = "diffusion", **keys: Any) -> Recipe:
    return Recipe(policy={"type": policy, **keys})


def test_every_key_that_checkpoints_read_past_is_decided_in_training() -> None:
    assert set(_IGNORED) == (set(REFUSED) & _IGNORED) | HONOURED


@pytest.mark.parametrize("key", REFUSED)
def test_what_is_not_done_is_refused_by_name(key: str) -> None:
    with pytest.raises(ConfigError, match=f"`{key}`"):
        honoured(recipe(**{key: REFUSED[key]}))


@pytest.mark.parametrize(
    "keys",
    [
        {"use_peft": False, "push_to_hub": False, "repo_id": None, "pretrained_path": None},
        {"pretrained_backbone_weights": None, "compile_model": False, "compile_mode": "default"},
        {"use_amp": False, "gradient_checkpointing": False, "tags": None},
    ],
)
def test_keys_that_ask_for_nothing_change_nothing(keys: dict[str, Any]) -> None:
    assert honoured(recipe(**keys)) == recipe()


def test_what_is_asked_for_stands_under_train() -> None:
    asked = recipe(use_amp=True, pretrained_path="out/a", scheduler_warmup_steps=7)
    train = honoured(asked).train
    assert (train.amp, train.pretrained_policy, train.warmup_steps) == (True, "out/a", 7)
    assert honoured(honoured(asked)) == honoured(asked)
    backbone = honoured(recipe(pretrained_backbone_weights="r.safetensors"))
    assert backbone.train.pretrained_backbone == "r.safetensors"


@pytest.mark.parametrize(
    ("keys", "train"),
    [
        ({"use_amp": False}, {"amp": True}),
        ({"scheduler_warmup_steps": 7}, {"warmup_steps": 9}),
        ({"pretrained_path": "a"}, {"pretrained_policy": "b"}),
        ({"pretrained_path": "a"}, {"pretrained_backbone": "b.safetensors"}),
    ],
)
def test_contradictions_are_refused(keys: dict[str, Any], train: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        honoured(recipe(**keys).with_overrides({"train": train}, "test"))


def test_the_device_of_the_recipe_is_the_one_that_is_used(make: Any, tmp_path: Path) -> None:
    asked = make.recipe("act").with_overrides({"policy": {"device": "cuda"}}, "test")
    with pytest.raises(ConfigError, match="`device` is 'cuda'"):
        make_trainer(make.demonstrations(), asked, tmp_path)
    asked = asked.with_overrides({"policy": {"device": "cpu"}}, "test")
    assert make_trainer(make.demonstrations(), asked, tmp_path).device.type == "cpu"


def test_pretrained_path_starts_from_those_weights(make: Any, tmp_path: Path) -> None:
    trained = make.checkpoint("act", tmp_path / "first")
    start = {"policy": {"pretrained_path": str(trained)}, "train": {"seed": 5}}
    fine = make.recipe("act").with_overrides(start, "test")
    trainer = make_trainer(make.demonstrations(), fine, tmp_path / "second")
    first = make_trainer(make.demonstrations(), make.recipe("act"), tmp_path / "third").model
    for key, value in first.state_dict().items():
        assert torch.equal(trainer.model.state_dict()[key], value), key
    other = fine.with_overrides({"policy": {"dim_model": 64}}, "test")
    with pytest.raises(WeightsMismatchError):
        make_trainer(make.demonstrations(), other, tmp_path / "fourth")
    nowhere = fine.with_overrides({"policy": {"pretrained_path": "lerobot/act"}}, "test")
    with pytest.raises(CheckpointError, match="no such folder"):
        make_trainer(make.demonstrations(), nowhere, tmp_path / "fifth")
