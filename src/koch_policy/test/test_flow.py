# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Flow matching: time convention, solvers, block mask, guidance."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.errors import ConfigError
from koch_policy.models.flow import Flow
from koch_policy.models.ode import EVALUATIONS, integrate
from koch_policy.models.positions import flow_time_embedding
from koch_policy.models.prefix import block_mask
from koch_policy.policy_configs import FlowConfig

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def _config(**changes: Any) -> FlowConfig:
    features = {
        "observation.state": PolicyFeature(FeatureType.STATE, (3,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (2,)),
    }
    action = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    values: dict[str, Any] = {
        "input_features": features, "output_features": action, "chunk_size": 4,
        "n_action_steps": 4, "dim_model": 16, "dim_expert": 12, "n_heads": 2, "dim_head": 8,
        "n_layers": 2,
    }  # fmt: skip
    return FlowConfig(**{**values, **changes})


def _batch(count: int = 3) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    return {
        "observation.state": torch.randn(count, 3, generator=draw),
        "observation.environment_state": torch.randn(count, 2, generator=draw),
        "action": torch.randn(count, 4, 2, generator=draw),
        "action_is_pad": torch.zeros(count, 4, dtype=torch.bool),
        "task_embedding": torch.eye(2)[[0, 1, 0]][:count],
    }


def _gaussian_velocity(mean: float, std: float) -> Any:
    """The exact field that carries N(0, 1) at t = 1 to N(mean, std^2) at t = 0.

    x_t = t eps + (1 - t) a is Gaussian; E[eps - a | x_t] follows from its covariances.
    """

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        t = time.double().view(-1, 1, 1)
        variance = t**2 + ((1 - t) * std) ** 2
        return -mean + (t - (1 - t) * std**2) / variance * (x - (1 - t) * mean)

    return velocity


def test_noise_at_one_flows_to_the_data_at_zero() -> None:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1)
    out = integrate(_gaussian_velocity(3.0, 0.5), noise, 100, "rk4")
    assert torch.allclose(out, 3.0 + 0.5 * noise, atol=1e-6)  # the optimal map is affine


def test_flow_run_in_the_other_direction_misses_the_data() -> None:
    noise = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 9, 1)
    field = _gaussian_velocity(3.0, 0.5)
    wrong = integrate(lambda x, t: -field(x, 1 - t), noise, 100, "rk4")
    assert (wrong - (3.0 + 0.5 * noise)).abs().max() > 1.0


@pytest.mark.parametrize("solver", sorted(EVALUATIONS))
def test_solver_has_its_order_and_number_of_evaluations(solver: str) -> None:
    noise = torch.tensor([[[1.3]]], dtype=torch.float64)
    calls = []
    exact = _gaussian_velocity(1.0, 0.6)

    def field(x: Tensor, time: Tensor) -> Tensor:
        calls.append(float(time[0]))
        return cast("Tensor", exact(x, time))

    truth = 1.0 + 0.6 * 1.3
    errors = [abs(float(integrate(field, noise, n, solver)) - truth) for n in (16, 32)]
    assert len(calls) == 48 * EVALUATIONS[solver]
    assert calls[0] == 1.0
    ratio = errors[0] / errors[1]  # at least 2^order; symmetry of this field can add one order
    assert 0.7 * 2 ** ORDERS[solver] < ratio < 1.5 * 2 ** (ORDERS[solver] + 1)


def test_training_target_is_noise_minus_action() -> None:
    """A network that outputs the true velocity has zero loss; its negative has not."""
    model = Flow(_config())
    batch = _batch()
    seen: list[Tensor] = []

    def perfect(noisy: Tensor, time: Tensor, _condition: Tensor) -> Tensor:
        t = time.view(-1, 1, 1)
        noise = (noisy - (1 - t) * batch["action"]) / t
        seen.append(t)
        return noise - batch["action"]

    model.evaluate = perfect  # type: ignore[method-assign]
    assert float(model.loss(batch)[0]) < 1e-6
    model.evaluate = lambda *given: -perfect(*given)  # type: ignore[method-assign]
    assert float(model.loss(batch)[0]) > 1.0


def test_training_times_prefer_the_noisy_end() -> None:
    torch.manual_seed(0)
    times = Flow(_config()).draw_times(20_000, torch.device("cpu"))
    # Beta(1.5, 1) * 0.999 + 0.001 has mean 0.6 * 0.999 + 0.001
    assert float(times.mean()) == pytest.approx(0.6004, abs=0.01)
    assert 0.001 <= float(times.min()) <= float(times.max()) <= 1.0


def test_padded_steps_do_not_enter_the_loss() -> None:
    model = Flow(_config()).eval()
    batch = _batch()
    batch["action_is_pad"][:, 2:] = True
    torch.manual_seed(5)
    before = float(model.loss(batch)[0])
    model.evaluate = _with_garbage_behind(model.evaluate, 2)  # type: ignore[method-assign]
    torch.manual_seed(5)
    assert float(model.loss(batch)[0]) == before


def _with_garbage_behind(evaluate: Any, step: int) -> Any:
    def changed(*given: Tensor) -> Tensor:
        out = evaluate(*given).clone()
        out[:, step:] = 1e6
        return cast("Tensor", out)

    return changed


def test_block_mask_lets_later_blocks_see_earlier_ones_only() -> None:
    mask = block_mask(torch.tensor([0, 0, 1, 2]))
    assert mask.tolist() == [
        [True, True, False, False],
        [True, True, False, False],
        [True, True, True, False],
        [True, True, True, True],
    ]


def test_prefix_does_not_see_the_state_but_the_state_sees_the_task() -> None:
    model = Flow(_config(task_encoder="learned", task_dim=2)).eval()
    batch = _batch()
    one = model.condition(batch)  # (L, 2, B, H, P, W), tokens: task | state, environment
    other = dict(batch, **{"observation.state": batch["observation.state"] + 1})
    moved = model.condition(other)
    assert torch.equal(one[..., :1, :], moved[..., :1, :])
    assert not torch.equal(one[-1, ..., 1:, :], moved[-1, ..., 1:, :])
    told = dict(batch, task_embedding=batch["task_embedding"].flip(1))
    assert not torch.equal(one[-1, ..., 1:, :], model.condition(told)[-1, ..., 1:, :])


def test_cached_prefix_equals_attention_over_all_tokens_under_the_block_mask() -> None:
    torch.manual_seed(3)
    model = Flow(_config(task_encoder="learned", task_dim=2)).eval()
    batch = _batch()
    noisy, time = torch.randn(3, 4, 2), torch.tensor([0.9, 0.5, 0.1])
    cached = model.evaluate(noisy, time, model.condition(batch))

    observed = torch.stack(
        (
            model.task_in(batch["task_embedding"]),
            model.state_in(batch["observation.state"]),
            model.environment_in(batch["observation.environment_state"]),
        ),
        dim=1,
    )  # (B, 3, D)
    embedding = flow_time_embedding(time, model.config.dim_expert).unsqueeze(1)
    acting = model.action_in(noisy) + model.action_position  # (B, T, E)
    acting = model.time_mlp(torch.cat((acting, embedding.expand_as(acting)), dim=-1))
    mask = block_mask(torch.tensor([0, 1, 1, 2, 2, 2, 2]))  # task | state, environment | actions
    for one, other in zip(model.prefix, model.expert, strict=True):
        first, second = one.project(observed), other.project(acting)
        keys = torch.cat((first[1], second[1]), dim=2)
        values = torch.cat((first[2], second[2]), dim=2)
        observed = one.finish(observed, first[0], keys, values, mask[:3])
        acting = other.finish(acting, second[0], keys, values, mask[3:])
    assert torch.allclose(cached, model.action_out(model.norm(acting)), atol=1e-5)
    assert float(cached.std()) > 1e-2


def test_guidance_of_one_is_no_guidance_and_two_extrapolates() -> None:
    torch.manual_seed(2)
    plain = Flow(_config(task_encoder="learned", task_dim=2)).eval()
    batch = _batch(1)
    x, time = torch.randn(1, 4, 2), torch.tensor([0.7])
    with_task = plain.evaluate(x, time, plain.condition(batch))
    hidden = plain.condition(batch, torch.tensor([True]))
    without = plain.evaluate(x, time, hidden)
    guided = Flow(replace(plain.config, guidance_scale=2.0)).eval()
    guided.load_state_dict(plain.state_dict())
    found = guided.evaluate(x, time, guided.condition(batch))
    assert torch.allclose(found, without + 2.0 * (with_task - without), atol=1e-5)
    assert not torch.allclose(with_task, without, atol=1e-3)


def test_guidance_needs_a_task() -> None:
    with pytest.raises(ConfigError, match="guidance_scale"):
        _config(guidance_scale=2.0)
    with pytest.raises(ConfigError, match="task_dim"):
        _config(task_encoder="learned")


def test_key_points_are_weighed_by_the_task_once_it_was_learnt() -> None:
    """Before the first step a task changes its own token alone, afterwards the cameras' too."""
    torch.manual_seed(0)
    camera = PolicyFeature(FeatureType.VISUAL, (3, 32, 32))
    config = _config(
        input_features={"observation.images.up": camera},
        vision_backbone="keypoints", task_encoder="learned", task_dim=2, task_dropout=0.0,
    )  # fmt: skip
    model = Flow(config)
    batch = {**_batch(), "observation.images.up": torch.rand(3, 3, 32, 32)}
    other = {**batch, "task_embedding": 1.0 - batch["task_embedding"]}

    def cameras(given: dict[str, Tensor]) -> Tensor:
        found = model.camera_features(0, given["observation.images.up"])
        return model._told(model.task_in(given["task_embedding"]), [found])[0]

    assert torch.equal(cameras(batch), cameras(other))
    model.loss(batch)[0].backward()
    assert model.task_film.weight.grad.abs().max() > 0.0
    with torch.no_grad():
        model.task_film.weight -= model.task_film.weight.grad
    assert not torch.allclose(cameras(batch), cameras(other))
