# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy that writes tokens: its cache, its constraint, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from koch_policy.checkpoint import load_checkpoint
from koch_policy.config_json import config_from_dict
from koch_policy.errors import ConfigError, RuntimeChoiceError
from koch_policy.models.fast import Fast
from koch_policy.models.tokens import TokenError, UniformBins
from koch_policy.policy_configs import FastConfig
from koch_policy.runtime import load_policy
from koch_policy.train.setup import make_trainer

STEPS, WIDTH = 12, 3


def network(tokenizer: str, **changes: Any) -> Fast:
    """A small network with drawn weights, whose tokens are learned from smooth chunks."""
    content = {
        "type": "fast", "chunk_size": STEPS, "n_action_steps": STEPS, "dim_model": 32,
        "n_heads": 2, "dim_head": 16, "n_layers": 2, "vocabulary": 160, "tokenizer": tokenizer,
        "input_features": {
            "observation.state": {"type": "STATE", "shape": [WIDTH]},
            "observation.environment_state": {"type": "ENV", "shape": [2]},
        },
        "output_features": {"action": {"type": "ACTION", "shape": [WIDTH]}},
        **changes,
    }  # fmt: skip
    config = config_from_dict(content, "test")
    assert isinstance(config, FastConfig)
    torch.manual_seed(0)
    model = Fast(config).eval()
    model.learn_tokens(chunks(200))
    with torch.no_grad():  # drawn weights that say different things about different observations
        model.token_out.weight.mul_(20.0)
    return model


def chunks(count: int, seed: int = 0) -> torch.Tensor:
    """Chunks that move as arms do, (count, T, A)."""
    draw = torch.Generator().manual_seed(seed)
    start, way, speed = (torch.rand(count, 1, WIDTH, generator=draw) for _ in range(3))
    time = torch.linspace(0, 1, STEPS).view(1, -1, 1)
    return (1.4 * start - 0.7) + 0.4 * way * (6 * speed * time).sin()


def observations(count: int) -> dict[str, torch.Tensor]:
    """Normalised observations."""
    draw = torch.Generator().manual_seed(1)
    return {
        "observation.state": torch.randn(count, WIDTH, generator=draw),
        "observation.environment_state": torch.randn(count, 2, generator=draw),
    }


@pytest.mark.parametrize("tokenizer", ["fast", "bins"])
def test_with_the_cache_it_writes_what_it_writes_without(tokenizer: str) -> None:
    model = network(tokenizer)
    with torch.no_grad():
        condition = model.condition(observations(5))
        tokens, _ = model.write(condition)
        again = model.logits(tokens, condition).argmax(-1)  # all tokens at once, no cache
    written = model.lengths[tokens].cumsum(1) - model.lengths[tokens] < model.numbers
    assert torch.equal(tokens[written], again[written])
    assert len({tuple(row.tolist()) for row in tokens}) > 1
    one_by_one = [model.write(condition[:, :, n : n + 1])[1] for n in range(5)]
    assert torch.equal(torch.cat(one_by_one), model.write(condition)[1])


def endings(model: Fast) -> set[int]:
    """Where sequences of networks with drawn weights end, in integers; each that ends at the
    chunk's end is compared with what the tokenizer makes of it."""
    found = set()
    for seed in range(20):
        torch.manual_seed(seed)
        with torch.no_grad():
            for weight in model.parameters():
                weight.normal_(std=1.0)
            tokens, numbers = model.write(model.condition(observations(3)))
        for row, chunk in zip(tokens.tolist(), model.actions(numbers).numpy(), strict=True):
            ends = np.cumsum([int(model.lengths[token]) for token in row])
            used = int(np.searchsorted(ends, model.numbers)) + 1
            found.add(int(ends[used - 1]))
            if ends[used - 1] == model.numbers:
                decoded = model.tokenizer().decode(row[:used], STEPS, WIDTH)
                np.testing.assert_allclose(chunk, decoded, atol=1e-4)
    return found


@pytest.mark.parametrize("tokenizer", ["fast", "bins"])
def test_whatever_the_weights_say_the_tokens_are_a_chunk(tokenizer: str) -> None:
    model = network(tokenizer)
    assert endings(model) == {model.numbers}


def test_without_the_constraint_they_would_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("fast")
    monkeypatch.setattr(model, "fits", lambda place: (model.lengths > 0).expand(*place.shape, -1))
    assert max(endings(model)) > model.numbers


@pytest.mark.parametrize("tokenizer", ["fast", "bins"])
def test_chunks_come_back_through_the_buffers(tokenizer: str) -> None:
    model = network(tokenizer, token_scale=40.0, vocabulary=512)
    some = chunks(20, seed=3)
    tokens, is_token = model.encode(some)
    for row, real, chunk in zip(tokens, is_token, some, strict=True):
        numbers = torch.cat([model.pieces[t, : int(model.lengths[t])] for t in row[real]])
        back = model.actions(numbers.unsqueeze(0))[0]
        assert float((back - chunk).abs().max()) < 0.06


def test_more_integers_than_the_vocabulary_are_refused() -> None:
    with pytest.raises(TokenError, match="vocabulary: got 40"):
        network("fast", vocabulary=40)
    with pytest.raises(ConfigError, match="one of fast, bins"):
        network("words")
    with pytest.raises(ConfigError, match="ACTION"):
        network("bins", normalization_mapping={"ACTION": "IDENTITY"})


WIDER = {"policy": {"dim_model": 64, "n_layers": 2, "vocabulary": 256}}


@pytest.fixture(scope="module")
def overfitted(make: Any, tmp_path_factory: Any) -> Path:
    """A run that has learned six short demonstrations by heart."""
    out = Path(tmp_path_factory.mktemp("fast"))
    recipe = make.recipe("fast", steps=200, batch_size=16, learning_rate=3e-3, log_every=200,
                         validate_every=200, save_every=200, validation_fraction=0.0)  # fmt: skip
    recipe = recipe.with_overrides(WIDER, "test")
    make_trainer(make.demonstrations(), recipe, out, show_progress=False).run()
    return out


def test_it_learns_a_tiny_dataset(overfitted: Path, make: Any) -> None:
    policy, data = load_policy(overfitted, "torch"), make.demonstrations()
    wrong = []
    for row in range(2, 200, 9):
        if row % 40 > 30:
            continue
        observation = {key: data.vectors[key][row] for key in data.vectors if key != "action"}
        chunk = policy.predict(observation)
        wrong.append(np.abs(chunk - data.vectors["action"][row : row + 8]).mean())
    still = np.abs(data.vectors["action"]).mean()  # of a policy that says zero
    assert np.mean(wrong) < 0.15 * still


def test_the_checkpoint_carries_its_tokens(overfitted: Path, make: Any) -> None:
    model = load_checkpoint(overfitted).model
    assert isinstance(model, Fast)
    tokenizer = model.tokenizer()
    assert len(tokenizer.pieces()) > 100
    chunk = chunks(1)[0].numpy()[:8].repeat(2, axis=1)
    numbers = tokenizer.numbers(chunk)
    found = model.actions(torch.from_numpy(numbers).unsqueeze(0))[0].numpy()
    np.testing.assert_allclose(found, tokenizer.values(numbers, 8, 6), atol=1e-5)
    with pytest.raises(RuntimeChoiceError, match="cannot compute a fast policy"):
        load_policy(overfitted, "openvino")
    assert load_policy(overfitted).runtime.startswith("torch")


def test_going_on_keeps_the_tokens(overfitted: Path, make: Any, tmp_path: Path) -> None:
    recipe = make.recipe("fast", steps=1, pretrained_policy=str(overfitted), learning_rate=0.0)
    recipe = recipe.with_overrides(WIDER, "test")
    other = make_trainer(make.demonstrations(), recipe, tmp_path, show_progress=False)
    first = load_checkpoint(overfitted).model
    for name in ("merges", "low", "pieces", "lengths"):
        assert torch.equal(other.model.state_dict()[name], first.state_dict()[name])


def test_bins_and_their_network_agree() -> None:
    model = network("bins")
    assert isinstance(model.tokenizer(), UniformBins)
    numbers = torch.arange(model.numbers).unsqueeze(0)
    expected = UniformBins(160).values(numbers[0].numpy(), STEPS, WIDTH)
    np.testing.assert_allclose(model.actions(numbers)[0].numpy(), expected, atol=1e-6)
