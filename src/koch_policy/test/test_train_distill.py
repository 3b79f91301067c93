# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""A teacher's chunks beside the demonstrations: what is learned, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import ACTION, ACTION_IS_PAD, ACTION_NOISE, ACTION_WEIGHT
from koch_policy.errors import ConfigError, DatasetError
from koch_policy.models.denoiser import mean_without_padding
from koch_policy.runtime import load_policy
from koch_policy.train.distill import Teacher
from koch_policy.train.setup import make_trainer


def student(make: Any, kind: str, teacher: Path, out: Path, **train: Any) -> Any:
    """A trainer that learns from a teacher."""
    recipe = make.recipe(kind, teacher=str(teacher), **train)
    return make_trainer(make.demonstrations(), recipe, out, show_progress=False)


def observation(data: Any, row: int) -> dict[str, Any]:
    """What a policy sees there."""
    return {key: values[row] for key, values in data.vectors.items() if key != ACTION}


def test_weights_by_hand() -> None:
    error = torch.tensor([[[1.0], [3.0], [9.0]]])
    batch = {ACTION_IS_PAD: torch.tensor([[False, False, True]])}
    assert float(mean_without_padding(error, batch)) == 2.0
    batch[ACTION_WEIGHT] = torch.tensor([[1.0, 0.5, 0.5]])
    assert float(mean_without_padding(error, batch)) == pytest.approx(2.5 / 1.5)
    twice = torch.cat((error, error))
    assert float(mean_without_padding(twice, batch, 2)) == pytest.approx(2.5 / 1.5)


@pytest.mark.parametrize("kind", ["act", "fast"])
def test_the_chunks_are_what_the_teacher_would_do(kind: str, make: Any, tmp_path: Path) -> None:
    teacher, data = make.checkpoint(kind, tmp_path / "teacher"), make.demonstrations()
    trainer = student(make, "flow", teacher, tmp_path / "o", teacher_fraction=0.5)
    rows = trainer.training.rows()[::10]
    raw = trainer.training.batch(rows)
    batch = trainer._augmented(raw)
    taught = batch[ACTION_WEIGHT][:, -1] < 1.0
    assert 0 < int(taught.sum()) < len(rows)
    policy = load_policy(teacher, "torch")
    found = trainer.normalizer.restore(ACTION, batch[ACTION]).numpy()
    for n, row in enumerate(rows):
        expected = policy.predict(observation(data, row)) if taught[n] else raw[ACTION][n].numpy()
        np.testing.assert_allclose(found[n], expected, atol=2e-3)
    assert not batch[ACTION_IS_PAD][taught].any()
    assert torch.equal(batch[ACTION_IS_PAD][~taught], raw[ACTION_IS_PAD][~taught])
    weights = torch.exp(-0.1 * torch.arange(8.0))
    torch.testing.assert_close(batch[ACTION_WEIGHT][taught][0], weights)


def test_a_student_becomes_its_teacher(make: Any, tmp_path: Path) -> None:
    """The teacher is untrained, so that nothing but its chunks can be what is learned."""
    teacher, data = make.checkpoint("act", tmp_path / "teacher"), make.demonstrations()
    trainer = student(
        make, "act", teacher, tmp_path / "o", teacher_fraction=1.0, steps=150, log_every=150,
        validate_every=150, save_every=150, batch_size=16, learning_rate=3e-3, seed=7,
    )  # fmt: skip
    before = trainer.training.rows()[::15]
    policy = load_policy(teacher, "torch")

    def far(other: Any) -> float:
        return float(np.mean([
            np.abs(other.predict(observation(data, n)) - policy.predict(observation(data, n)))
            for n in before
        ]))  # fmt: skip

    trainer.save()
    first = far(load_policy(tmp_path / "o", "torch"))
    trainer.run()
    assert far(load_policy(tmp_path / "o", "torch")) < 0.4 * first


def test_a_flow_that_shares_its_teachers_noise_learns_it_in_one_step(
    make: Any, tmp_path: Path
) -> None:
    few = {"log_every": 200, "validate_every": 200, "save_every": 200, "batch_size": 16}
    recipe = make.recipe("flow", steps=200, learning_rate=3e-3, **few)
    make_trainer(make.demonstrations(), recipe, tmp_path / "t", show_progress=False).run()
    made = student(
        make, "flow", tmp_path / "t", tmp_path / "o", steps=200, learning_rate=3e-3,
        teacher_fraction=1.0, **few,
    )  # fmt: skip
    rows = made.training.rows()[::15]
    batch = made._augmented(made.training.batch(rows))
    assert batch[ACTION_NOISE].shape == batch[ACTION].shape
    made.run()
    ends = []
    for path in (tmp_path / "t", tmp_path / "o"):
        model = load_checkpoint(path).model
        with torch.no_grad():
            condition = model.condition(batch)  # type: ignore[operator]
            chunk = model.integrate(  # type: ignore[operator]
                lambda x, t, m=model, c=condition: m.evaluate(x, t, c), batch[ACTION_NOISE], 1
            )
        ends.append(float((chunk - batch[ACTION]).abs().mean()))
    assert ends[1] < 0.8 * ends[0]


ONE_STEP = {
    "num_train_timesteps": 1, "num_inference_steps": 1, "beta_schedule": "linear",
    "beta_start": 0.9999, "prediction_type": "sample", "do_mask_loss_for_padding": True,
}  # fmt: skip


def test_a_diffusion_of_one_step_learns_what_its_teacher_makes_of_a_noise(
    make: Any, tmp_path: Path
) -> None:
    """The teacher is untrained, so that its chunks follow from the noise and nothing else."""
    teacher, data = make.checkpoint("diffusion", tmp_path / "teacher"), make.demonstrations()
    few = {"log_every": 700, "validate_every": 700, "save_every": 700, "batch_size": 16}
    recipe = make.recipe(
        "diffusion", teacher=str(teacher), teacher_fraction=1.0, steps=700, learning_rate=3e-3,
        **few,
    ).with_overrides({"policy": ONE_STEP}, "test")  # fmt: skip
    trainer = make_trainer(data, recipe, tmp_path / "o", show_progress=False)
    trainer.save()
    first = load_policy(tmp_path / "o", "torch")
    trainer.run()
    draw, policy = np.random.default_rng(3), load_policy(teacher, "torch")
    made = load_policy(tmp_path / "o", "torch")
    ends = {"first": 0.0, "made": 0.0, "other noise": 0.0}
    for row in trainer.training.rows()[::15]:
        noise = draw.standard_normal((8, 6), dtype=np.float32)
        seen = observation(data, row)
        for each in (policy, made, first):
            each.reset()
        goal = policy.predict(seen, noise=noise)
        ends["first"] += float(np.abs(first.predict(seen, noise=noise) - goal).mean())
        ends["made"] += float(np.abs(made.predict(seen, noise=noise) - goal).mean())
        made.reset()
        other = made.predict(seen, noise=draw.standard_normal((8, 6), dtype=np.float32))
        ends["other noise"] += float(np.abs(other - goal).mean())
    assert ends["made"] < 0.6 * ends["first"]
    assert ends["made"] < 0.6 * ends["other noise"]


def test_a_teacher_that_draws_at_each_step_gives_no_pairs(make: Any, tmp_path: Path) -> None:
    for sampler in ("DDIM", "DDPM"):
        teacher = make.checkpoint("diffusion", tmp_path / sampler, noise_scheduler_type=sampler)
        trainer = student(make, "diffusion", teacher, tmp_path / f"{sampler}_student")
        batch = trainer._augmented(trainer.training.batch(trainer.training.rows()[:4]))
        assert (ACTION_NOISE in batch) == (sampler == "DDIM")


def test_a_run_with_a_teacher_resumes_to_the_bit(make: Any, tmp_path: Path) -> None:
    teacher = make.checkpoint("flow", tmp_path / "teacher")
    more = {"save_every": 2, "final_rate_fraction": 1.0}
    student(make, "flow", teacher, tmp_path / "whole", steps=4, **more).run()
    student(make, "flow", teacher, tmp_path / "parts", steps=2, **more).run()
    second = student(make, "flow", teacher, tmp_path / "parts", steps=4, **more)
    assert second.resume() == 2
    second.run()
    ends = [load_checkpoint(tmp_path / name).model.state_dict() for name in ("whole", "parts")]
    assert all(torch.equal(ends[1][key], value) for key, value in ends[0].items())


def test_another_chunk_input_or_unit_is_refused_by_name(make: Any, tmp_path: Path) -> None:
    teacher = make.checkpoint("act", tmp_path / "act", chunk_size=6, n_action_steps=6)
    with pytest.raises(ConfigError, match=r"chunk_size.*6 at most"):
        student(make, "flow", teacher, tmp_path / "o")
    with pytest.raises(ConfigError, match="has_step_axis"):
        student(make, "diffusion", teacher, tmp_path / "o")
    seeing = make.checkpoint("act", tmp_path / "seeing", images=True)
    with pytest.raises(ConfigError, match=make.camera):
        student(make, "act", seeing, tmp_path / "o")
    plain = make.checkpoint("act", tmp_path / "plain")
    trainer = student(make, "act", plain, tmp_path / "o")
    with pytest.raises(ConfigError, match="crops"):
        Teacher(
            trainer.recipe.train, trainer.config, trainer.normalizer, trainer.training.data,
            replace(trainer.extras, crops={make.camera: [0.0, 0.0, 0.5, 0.5]}), trainer.device,
        )  # fmt: skip
    data = make.demonstrations()
    names = {key: list(reversed(each)) for key, each in data.names.items()}
    with pytest.raises(DatasetError, match="same elements"):
        make_trainer(
            replace(data, names=names), make.recipe("act", teacher=str(plain)), tmp_path / "o"
        )
