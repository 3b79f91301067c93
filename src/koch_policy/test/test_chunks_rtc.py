# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Real-time chunking on fields whose answers are known, and on tiny networks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from koch_policy.checkpoint import Checkpoint
from koch_policy.chunks import Request
from koch_policy.chunks.guided import can_back_propagate, can_guide, predict_continuing
from koch_policy.chunks.rtc import Guidance, guidance_weight, guided, inpainted, soft_mask
from koch_policy.chunks.seams import seam_statistics, seams_of_messages
from koch_policy.chunks.strategies import StrategyKind, make_strategy, strategy_kind
from koch_policy.configs import FeatureType, NormalizationMode, PolicyConfig, PolicyFeature
from koch_policy.errors import StrategyError
from koch_policy.metadata import CheckpointMetadata
from koch_policy.models.ode import integrate
from koch_policy.models.registry import build_model
from koch_policy.models.schedule import NoiseSchedule, betas
from koch_policy.normalize import normalizer_for
from koch_policy.policy_configs import ActConfig, DiffusionConfig, FlowConfig
from koch_policy.runtime.base import EnginePolicy
from koch_policy.runtime.torch_runtime import TorchEngine
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

T, A = 16, 6


def test_soft_mask_by_hand() -> None:
    """d = 2, overlap 5, T = 7: ones, then c (e^c - 1) / (e - 1) with c = 3/4, 2/4, 1/4, zeros."""
    c = np.array([0.75, 0.5, 0.25])
    expected = [1, 1, *(c * np.expm1(c) / np.expm1(1.0)), 0, 0]
    np.testing.assert_allclose(soft_mask(7, 2, 5), expected, rtol=1e-6)


@pytest.mark.parametrize(("delay", "overlap"), [(0, 0), (0, 4), (3, 3), (9, 4), (20, 20), (2, 99)])
def test_soft_mask_never_increases_and_ends_with_the_target(delay: int, overlap: int) -> None:
    mask = soft_mask(T, delay, overlap)
    assert mask.shape == (T,)
    assert (np.diff(mask) <= 0).all()
    assert mask.min() >= 0.0
    assert mask.max() <= 1.0
    assert (mask[min(overlap, T) :] == 0).all()
    assert (mask[: min(delay, overlap, T)] == 1).all()


@pytest.mark.parametrize(
    ("time", "weight"), [(1.0, 5.0), (0.8, 4.25), (0.7, 2.7619), (0.5, 2.0), (0.0, 5.0)]
)
def test_guidance_weight_is_the_papers_and_clipped(time: float, weight: float) -> None:
    assert guidance_weight(time, beta=5.0) == pytest.approx(weight, abs=1e-3)


def centred(centre: Tensor) -> object:
    """Velocity whose data are one point: straight lines from any noise to `centre`."""

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        return (x - centre) / time.view(-1, 1, 1).clamp_min(1e-6)

    return velocity


def spread(mean: float, std: float) -> object:
    """Exact velocity of independent Gaussian data N(mean, std^2): the network of a real policy."""

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        t = time.view(-1, 1, 1)
        variance = (1 - t) ** 2 * std**2 + t**2
        gain = ((1 - t) * std**2 - 0.0) / variance
        data = mean + gain * (x - (1 - t) * mean)
        noise = (x - (1 - t) * data) / t.clamp_min(1e-6)
        return noise - data

    return velocity


@pytest.mark.parametrize("back_propagates", [True, False])
def test_frozen_prefix_follows_the_old_chunk(back_propagates: bool) -> None:
    """Data N(0, 1); the old chunk is 1 on its 8 steps; 4 will be executed meanwhile."""
    torch.manual_seed(0)
    noise = torch.randn(64, T, A)
    field = spread(0.0, 1.0)
    free = integrate(field, noise, 10, "euler")
    guidance = Guidance(torch.ones(8, A), 4, 8, back_propagates=back_propagates)
    held = integrate(guided(field, guidance, T), noise, 10, "euler")
    prefix = (held[:, :4] - 1.0).abs().mean()
    assert prefix < 0.25 * (free[:, :4] - 1.0).abs().mean()
    torch.testing.assert_close(held[:, 8:], free[:, 8:])  # nothing pulls where Y has ended
    errors = (held[:, :8] - 1.0).abs().mean(dim=(0, 2))
    assert (errors[4:].diff() > 0).all(), "the pull decays over the overlap"


def test_vector_jacobian_product_is_the_jacobians() -> None:
    """Against the full Jacobian of the estimate, written out by torch.autograd.functional."""
    torch.manual_seed(0)
    weight = torch.randn(T * A, T * A) / 10

    def velocity(x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x.flatten(1) @ weight).view_as(x)

    x, time = torch.randn(1, T, A), torch.full((1,), 0.6)
    guidance = Guidance(torch.randn(10, A), 3, 10)
    got = guided(velocity, guidance, T)(x, time)

    def estimate(flat: Tensor) -> Tensor:
        y = flat.view(1, T, A)
        return (y - 0.6 * velocity(y, time)).flatten()

    jacobian = torch.autograd.functional.jacobian(estimate, x.flatten())
    target = torch.zeros(T, A)
    target[:10] = guidance.target
    mask = torch.from_numpy(soft_mask(T, 3, 10)).unsqueeze(-1).expand(T, A).flatten()
    error = (target.flatten() - estimate(x.flatten())) * mask
    expected = velocity(x, time).flatten() - guidance_weight(0.6, 5.0) * (jacobian.T @ error)
    torch.testing.assert_close(got.flatten(), expected)
    assert not got.requires_grad


def test_a_short_target_is_never_padded_with_zeros() -> None:
    """Data far from zero; the old chunk has 3 steps left but the delay says 6."""
    torch.manual_seed(0)
    noise = torch.randn(8, T, A)
    guidance = Guidance(torch.full((3, A), 5.0), delay_steps=6, overlap_steps=12)
    result = integrate(guided(spread(5.0, 0.5), guidance, T), noise, 10, "euler")
    free = integrate(spread(5.0, 0.5), noise, 10, "euler")
    torch.testing.assert_close(result[:, 3:], free[:, 3:])


@pytest.mark.parametrize("predicts_sample", [True, False])
@pytest.mark.parametrize("stochastic", [True, False])
def test_inpainting_gives_exactly_the_frozen_steps(
    predicts_sample: bool, stochastic: bool
) -> None:
    torch.manual_seed(0)
    schedule = NoiseSchedule(
        torch.cumprod(1 - betas("squaredcos_cap_v2", 100, 1e-4, 0.02), 0), predicts_sample, 1.0
    )
    first, frozen = 1, 3
    old = torch.linspace(-0.5, 0.5, 8).unsqueeze(-1).expand(8, A)
    guidance = Guidance(old, frozen, 8)
    inner = inpainted(lambda x, step: torch.zeros_like(x), guidance, schedule, first)

    def denoiser(x: Tensor, step: int) -> Tensor:
        return inner(x, torch.full((len(x),), step))

    noise = torch.randn(2, T, A)
    result = schedule.sample(denoiser, noise, 20, stochastic=stochastic)
    torch.testing.assert_close(
        result[:, first : first + frozen], old[:frozen].expand(2, -1, -1), atol=1e-4, rtol=0
    )


def tiny(kind: str) -> EnginePolicy:
    """A network with random weights: state and environment in, 16 steps out."""
    inputs = {
        "observation.state": PolicyFeature(FeatureType.STATE, (J,)),
        "observation.environment_state": PolicyFeature(FeatureType.ENV, (2,)),
    }
    outputs = {"action": PolicyFeature(FeatureType.ACTION, (J,))}
    config: PolicyConfig
    if kind == "flow":
        config = FlowConfig(
            input_features=inputs, output_features=outputs, chunk_size=T, n_action_steps=8,
            dim_model=16, dim_expert=16, n_heads=2, dim_head=8, n_layers=2,
        )  # fmt: skip
    elif kind == "diffusion":
        config = DiffusionConfig(
            input_features=inputs, output_features=outputs, horizon=T, down_dims=(16, 32),
            diffusion_step_embed_dim=16, noise_scheduler_type="DDIM", num_inference_steps=10,
        )  # fmt: skip
    else:
        config = ActConfig(
            input_features=inputs, output_features=outputs, chunk_size=T, n_action_steps=T,
            dim_model=16, n_heads=2, dim_feedforward=32, use_vae=False, n_encoder_layers=1,
        )  # fmt: skip
    torch.manual_seed(1)
    sizes = {"observation.state": 6, "observation.environment_state": 2, "action": 6}
    statistics = {
        key: {
            "mean": torch.full((n,), 10.0),
            "std": torch.full((n,), 20.0),
            "min": torch.full((n,), -50.0),
            "max": torch.full((n,), 70.0),
        }
        for key, n in sizes.items()
    }
    checkpoint = Checkpoint(
        path=None,  # type: ignore[arg-type]  # nothing reads it
        config=config,
        model=build_model(config).eval(),
        normalizer=normalizer_for(config, statistics, where="test"),
        statistics=statistics,
        rename_map={},
        extras=CheckpointMetadata(),
    )
    engine = TorchEngine(checkpoint, device=torch.device("cpu"))
    return EnginePolicy(checkpoint, engine, full_horizon=True)


OBSERVATION = {
    "observation.state": np.zeros(J, np.float32),
    "observation.environment_state": np.zeros(2, np.float32),
}


def noise() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((T, A)).astype(np.float32)


@pytest.mark.parametrize("kind", ["flow", "diffusion"])
@pytest.mark.parametrize("back_propagates", [True, False])
def test_a_guided_network_continues_the_old_chunk(kind: str, back_propagates: bool) -> None:
    policy = tiny(kind)
    assert can_guide(policy)
    assert can_back_propagate(policy)
    policy.predict(OBSERVATION)  # features and condition must not stay bound to inference mode
    old = policy.predict(OBSERVATION, noise=noise())[:10] + 6.0
    start = noise()[::-1].copy()
    free = policy.predict(OBSERVATION, noise=start)
    chunk = predict_continuing(
        policy, OBSERVATION, Request(1, 0, 3, old), noise=start, back_propagates=back_propagates
    )
    assert chunk.shape == free.shape
    assert chunk.dtype == np.float32
    before = np.abs(free[:3] - old[:3]).mean()
    after = np.abs(chunk[:3] - old[:3]).mean()
    assert after < before * (0.5 if kind == "flow" else 0.01)


def test_without_leftover_the_prediction_is_plain() -> None:
    policy = tiny("flow")
    chunk = predict_continuing(policy, OBSERVATION, Request(1, 0, 3, None), noise=noise())
    np.testing.assert_array_equal(chunk, policy.predict(OBSERVATION, noise=noise()))


def test_act_cannot_be_guided_and_says_so() -> None:
    policy = tiny("act")
    assert not can_guide(policy)
    with pytest.raises(StrategyError, match="one shot"):
        strategy_kind("rtc", policy.config)
    with pytest.raises(StrategyError, match="one of queue"):
        strategy_kind("magic", policy.config)


def test_defaults_suit_the_policy() -> None:
    assert strategy_kind("", tiny("flow").config) is StrategyKind.RTC
    assert strategy_kind("", tiny("act").config) is StrategyKind.BLEND
    assert strategy_kind("", tiny("diffusion").config) is StrategyKind.BLEND
    rtc = make_strategy(StrategyKind.RTC, tiny("flow").config)
    assert rtc.execution_steps == 8
    diffusion = make_strategy(StrategyKind.RTC, tiny("diffusion").config)
    assert diffusion.execution_steps == 7  # half of the 15 steps that follow the observation


def test_normalization_modes_cover_the_fixture() -> None:
    modes = tiny("diffusion").config.normalization_mapping
    assert modes["ACTION"] is NormalizationMode.MIN_MAX


def test_seam_statistics_find_the_seam() -> None:
    """A ramp with one step of 0.1 rad at command 20: third difference 2 * 0.1 at 1 s."""
    commands = 0.01 * np.arange(40.0)[:, None]
    commands[20:] += 0.1
    found = seam_statistics(commands, [20], 1.0)
    assert found.seams == 1
    assert found.seam_max == pytest.approx(0.2)
    assert found.inside_p95 == pytest.approx(0.0, abs=1e-12)
    assert seam_statistics(commands, [], 1.0).seams == 0


def test_no_difference_is_taken_across_a_gap() -> None:
    """Two runs far apart in angle, with a pause between them: nothing jerks."""
    commands = np.full((60, 1), np.nan)
    commands[:25, 0] = 0.01 * np.arange(25)
    commands[40:, 0] = 5.0 + 0.01 * np.arange(20)
    found = seam_statistics(commands, [10, 40], 1.0)
    assert found.seams == 1, "no four commands lie around the second one"
    assert found.seam_max == pytest.approx(0.0, abs=1e-12)


def test_seams_are_found_again_from_messages() -> None:
    """Chunks of 10 steps, entered at row 2, each 0.1 rad above the one before."""
    step_ns, begin = 33_333_333, 1_700_000_000 * 10**9
    rows = {}
    chunks = []
    for number in range(5):
        first = number * 10
        chunks.append((begin + first * step_ns, 2))
        rows |= {first + step: (0.1 * number,) for step in range(2, 12)}
    chunks.append((begin + 47 * step_ns, 100))  # came too late: nothing of it was commanded
    commands = [(begin + tick * step_ns, row) for tick, row in rows.items()]
    found = seams_of_messages(commands[::-1], chunks, step_ns * 1e-9)
    assert found.seams == 4
    assert found.seam_mean == pytest.approx(0.2 * 30**3, rel=1e-3)
    assert found.inside_p95 == pytest.approx(0.0, abs=1e-6)
    assert seams_of_messages([], chunks, 0.1).seams == 0
