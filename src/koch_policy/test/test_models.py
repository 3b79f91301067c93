# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parts of the networks against values worked out by hand, and against torch's own layers."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from koch_policy.config_json import config_from_dict
from koch_policy.configs import FeatureType, NormalizationMode, PolicyFeature
from koch_policy.errors import CheckpointError, ConfigError, WeightsMismatchError
from koch_policy.models.act import Act, Attention, EncoderLayer
from koch_policy.models.denoiser import SpatialSoftmax, hold_padding
from koch_policy.models.positions import diffusion_step_embedding, sinusoid_1d, sinusoid_2d
from koch_policy.models.pretrained import load_backbones
from koch_policy.models.registry import build_model, policy_model
from koch_policy.models.resnet import Norm, ResNet, feature_size, fold_batch_norm
from koch_policy.models.schedule import NoiseSchedule, betas
from koch_policy.models.text import MiniLm, WordPieces
from koch_policy.normalize import Normalizer, ZeroRange
from koch_policy.policy_configs import ActConfig
from koch_policy.train.augment import AugmentConfig, add_noise, augment_images
from koch_policy.train.config import TrainConfig
from koch_policy.train.optim import AveragedWeights, rate_factor


def test_sinusoid_1d_by_hand() -> None:
    table = sinusoid_1d(3, 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    expected = [math.sin(2), math.cos(2), math.sin(0.02), math.cos(0.02)]
    assert table[2].tolist() == pytest.approx(expected, abs=1e-6)


def test_sinusoid_2d_puts_rows_before_columns() -> None:
    table = sinusoid_2d(2, 3, 8).view(2, 3, 8)
    assert torch.equal(table[0, 0, :4], table[0, 2, :4])  # the row part ignores the column
    assert torch.equal(table[0, 1, 4:], table[1, 1, 4:])
    angle = 1 / (2 + 1e-6) * 2 * math.pi
    assert float(table[0, 0, 0]) == pytest.approx(math.sin(angle), abs=1e-6)
    assert float(table[0, 0, 1]) == pytest.approx(math.cos(angle), abs=1e-6)


def test_step_embedding_ends_at_the_lowest_frequency() -> None:
    row = diffusion_step_embedding(torch.tensor([10.0]), 8)[0]
    assert float(row[0]) == pytest.approx(math.sin(10), abs=1e-5)
    assert float(row[3]) == pytest.approx(math.sin(10 / 10000), abs=1e-6)


def test_attention_equals_torchs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    reference = torch.nn.MultiheadAttention(12, 3, batch_first=True).eval()
    ours = Attention(12, 3, 0.1).eval()
    ours.load_state_dict(reference.state_dict())
    q, k, v = torch.randn(2, 4, 12), torch.randn(2, 5, 12), torch.randn(2, 5, 12)
    hidden = torch.tensor([[False] * 5, [False, True, True, False, False]])
    expected, _ = reference(q, k, v, key_padding_mask=hidden)
    found = ours(q, k, v, ~hidden[:, None, None, :])
    assert torch.allclose(found, expected, atol=1e-6)
    expected, _ = reference(q, q, q)
    assert torch.allclose(ours(q, q, q), expected, atol=1e-6)


def test_act_drops_what_a_sequence_first_layer_drops() -> None:
    """LeRobot's layers hold tokens as (N, B, D); the same seed must drop the same values here."""
    ours = EncoderLayer(_act_config(dropout=0.3)).train()
    theirs = torch.nn.TransformerEncoderLayer(16, 2, 16, 0.3).train()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(3, 5, 16)
    torch.manual_seed(4)
    expected = theirs(x.transpose(0, 1)).transpose(0, 1)
    torch.manual_seed(4)
    assert torch.allclose(ours(x, torch.zeros(1, 5, 16)), expected, atol=1e-5)
    assert not torch.allclose(ours(x, torch.zeros(1, 5, 16)), expected, atol=1e-1)


def test_act_ignores_padded_actions() -> None:
    torch.manual_seed(0)
    model = Act(_act_config()).eval()
    batch = {
        "observation.environment_state": torch.randn(2, 3),
        "action": torch.randn(2, 6, 2),
        "action_is_pad": torch.tensor([[False] * 4 + [True] * 2] * 2),
    }
    changed = dict(batch, action=batch["action"].clone())
    changed["action"][:, 4:] = 99.0
    for one, two in zip(model.encode_actions(batch), model.encode_actions(changed), strict=True):
        assert torch.allclose(one, two, atol=1e-6)
    torch.manual_seed(1)
    before = model.loss(batch)[0]
    torch.manual_seed(1)
    assert torch.allclose(model.loss(changed)[0], before)


def test_act_loss_by_hand() -> None:
    model = Act(_act_config(kl_weight=3.0))
    mu, log_var = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, math.log(4.0)]])
    model.encode_actions = lambda batch: (mu, log_var)  # type: ignore[method-assign]
    model.decode = lambda batch, latent: torch.zeros(1, 6, 2)  # type: ignore[method-assign]
    is_pad = torch.tensor([[False, False, True, True, True, True]])
    action = torch.tensor([[[1.0, 3.0], [5.0, 7.0], *[[100.0, 100.0]] * 4]])
    loss, parts = model.loss({"action": action, "action_is_pad": is_pad})
    kl = 0.5 + 0.5 * (4 - 1 - math.log(4))
    assert float(parts["l1"]) == 4.0
    assert float(parts["kl"]) == pytest.approx(kl)
    assert float(loss) == pytest.approx(4.0 + 3.0 * kl)


def _act_config(**changes: Any) -> ActConfig:
    features = {"observation.environment_state": PolicyFeature(FeatureType.ENV, (3,))}
    action = {"action": PolicyFeature(FeatureType.ACTION, (2,))}
    values: dict[str, Any] = {
        "input_features": features, "output_features": action, "chunk_size": 6,
        "n_action_steps": 6, "dim_model": 16, "n_heads": 2, "dim_feedforward": 16,
        "n_encoder_layers": 1, "n_vae_encoder_layers": 1, "latent_dim": 2, "dropout": 0.0,
    }  # fmt: skip
    return ActConfig(**{**values, **changes})


def test_padding_repeats_the_nearest_step() -> None:
    steps = torch.arange(5.0).view(1, 5, 1).expand(3, 5, 2)
    is_pad = torch.tensor([
        [True, True, False, False, True],
        [False, False, False, False, False],
        [True, True, True, True, True],
    ])  # fmt: skip
    found = hold_padding(steps, is_pad)[..., 0].tolist()
    assert found == [[2, 2, 2, 3, 3], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


SMALL_POLICIES: dict[str, dict[str, Any]] = {
    "act": {"chunk_size": 20, "n_action_steps": 20, "dim_model": 32, "n_heads": 2,
            "dim_feedforward": 32, "n_encoder_layers": 1, "dropout": 0.0},
    "flow": {"chunk_size": 20, "n_action_steps": 20, "dim_model": 32, "dim_expert": 32,
             "n_heads": 2, "dim_head": 16, "n_layers": 1},
    "fast": {"chunk_size": 20, "n_action_steps": 20, "dim_model": 32, "n_heads": 2,
             "dim_head": 16, "n_layers": 1, "tokenizer": "bins", "vocabulary": 256},
    "diffusion": {"horizon": 16, "n_action_steps": 8, "down_dims": [32, 64],
                  "crop_shape": None, "use_group_norm": True,
                  "use_separate_rgb_encoder_per_camera": False, "do_mask_loss_for_padding": True},
    "diffusion_transformer": {"horizon": 16, "n_action_steps": 8, "dim_model": 32, "n_layers": 1,
                              "is_causal": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", list(SMALL_POLICIES))
@pytest.mark.parametrize("where", ["front", "back"])
def test_what_stands_in_padded_steps_changes_no_loss(kind: str, where: str) -> None:
    features = {
        "observation.state": {"type": "STATE", "shape": [3]},
        "observation.environment_state": {"type": "ENV", "shape": [2]},
    }
    actions = {"action": {"type": "ACTION", "shape": [3]}}
    content = {"type": kind, "input_features": features, "output_features": actions}
    config = config_from_dict({**content, **SMALL_POLICIES[kind]}, "test")
    torch.manual_seed(0)
    model = policy_model(build_model(config)).eval()  # type: ignore[attr-defined]
    steps, lead = config.horizon_steps, (4, config.n_obs_steps) if config.has_step_axis else (4,)
    batch = {key: torch.randn(*lead, *spec["shape"]) for key, spec in features.items()}
    is_pad = torch.zeros(4, steps, dtype=torch.bool)
    is_pad[:, slice(3) if where == "front" else slice(-3, None)] = True
    real, losses = torch.randn(4, steps, 3), []
    for junk in (0.0, 1e3):
        action = real.masked_fill(is_pad.unsqueeze(-1), junk)
        torch.manual_seed(1)
        loss, _ = model.loss({**batch, "action": action, "action_is_pad": is_pad})
        losses.append(loss.item())
    assert losses[0] == losses[1]


def test_spatial_softmax_finds_the_peak() -> None:
    pool = SpatialSoftmax(1, 3, 5, 1)
    with torch.no_grad():
        pool.nets.weight.fill_(1.0)
        assert pool.nets.bias is not None
        pool.nets.bias.fill_(0.0)
        features = torch.zeros(1, 1, 3, 5)
        features[0, 0, 2, 1] = 100.0
        assert pool(features)[0].tolist() == pytest.approx(
            [-0.5, 1.0]
        )  # x of column 1, y of row 2


@pytest.mark.parametrize("side", [31, 32, 33, 64, 100, 480])
def test_feature_size_is_the_networks(side: int) -> None:
    net = ResNet("resnet18", Norm.FROZEN).eval()
    for stage in ("layer1", "layer2", "layer3", "layer4"):  # one block each is enough for sizes
        setattr(net, stage, getattr(net, stage)[:1])
    with torch.no_grad():
        assert net(torch.zeros(1, 3, side, 32)).shape[-2] == feature_size(side)


@pytest.mark.parametrize("norm", [Norm.FROZEN, Norm.BATCH])
def test_folding_batch_norm_changes_nothing(norm: Norm) -> None:
    torch.manual_seed(0)
    net = ResNet("resnet18", norm).eval()
    for value in net.state_dict().values():
        if value.dim() == 1 and value.is_floating_point():
            value.add_(0.3 * torch.rand(value.shape))
    images = torch.randn(1, 3, 40, 40)
    with torch.no_grad():
        before = net(images)
        layers = net.as_sequential()(images)
        fold_batch_norm(net)
        after = net(images)
    assert torch.allclose(before, layers, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert torch.allclose(before, after, rtol=1e-4, atol=1e-4 * float(before.abs().max()))
    assert not any("bn" in key for key in net.state_dict())


def test_resnet18_cannot_be_dilated() -> None:
    with pytest.raises(ConfigError, match="bottleneck"):
        ResNet("resnet18", Norm.FROZEN, dilate_last=True)


def test_backbone_weights_are_loaded_by_torchvisions_names(tmp_path: Path) -> None:
    source = ResNet("resnet18", Norm.BATCH)
    tensors = dict(source.state_dict(), **{"fc.weight": torch.zeros(2, 2)})
    save_file(tensors, tmp_path / "resnet.safetensors")
    features = {
        "observation.images.a": PolicyFeature(FeatureType.VISUAL, (3, 32, 32)),
        "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
    }
    model = Act(_act_config(input_features=features))
    load_backbones(model, tmp_path / "resnet.safetensors")
    assert torch.equal(model.backbone.conv1.weight, source.conv1.weight)
    with pytest.raises(CheckpointError, match="no image backbone"):
        load_backbones(Act(_act_config()), tmp_path / "resnet.safetensors")
    del tensors["layer4.1.conv2.weight"]
    save_file(tensors, tmp_path / "resnet.safetensors")
    with pytest.raises(WeightsMismatchError, match=r"layer4\.1\.conv2\.weight"):
        load_backbones(model, tmp_path / "resnet.safetensors")


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "sigmoid", "squaredcos_cap_v2"])
def test_schedule_goes_from_data_to_noise(kind: str) -> None:
    variance = betas(kind, 100, 1e-4, 0.02)
    signal = torch.cumprod(1 - variance, 0)
    assert bool((signal.diff() < 0).all())
    assert float(signal[0]) > 0.999
    assert float(variance.max()) < 0.9991


@pytest.mark.parametrize("predicts_sample", [False, True])
@pytest.mark.parametrize("count", [1, 3, 10])
def test_ddim_with_a_perfect_network_returns_the_data(predicts_sample: bool, count: int) -> None:
    signal = torch.cumprod(1 - betas("squaredcos_cap_v2", 20, 0, 0), 0)
    schedule = NoiseSchedule(signal, predicts_sample, None)
    data = torch.linspace(-0.9, 0.9, 6).view(1, 3, 2)

    def perfect(x: torch.Tensor, step: int) -> torch.Tensor:
        kept = signal[step]
        noise = (x - kept.sqrt() * data) / (1 - kept).sqrt()
        return data if predicts_sample else noise

    noise = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    for stochastic in (False, True):
        out = schedule.sample(perfect, noise, count, stochastic=stochastic)
        assert torch.allclose(out, data, atol=1e-3)


def test_normalisation_by_hand_in_every_mode() -> None:
    values = {"mean": 2.0, "std": 4.0, "min": 0.0, "max": 10.0, "q01": 1.0, "q99": 5.0,
              "q10": 2.0, "q90": 4.0}  # fmt: skip
    statistics = {"s": {key: torch.tensor([value]) for key, value in values.items()}}
    expected = {"MEAN_STD": 1.0, "MIN_MAX": 0.2, "QUANTILES": 1.5 * 4 / 3 - 1 + 0.5,
                "QUANTILE10": 3.0, "IDENTITY": 6.0}  # fmt: skip
    features = {"s": PolicyFeature(FeatureType.STATE, (1,))}
    for name, wanted in expected.items():
        modes = {"STATE": NormalizationMode(name)}
        normalizer = Normalizer(features, modes, statistics, where="test")
        found = normalizer.normalize("s", torch.tensor([6.0]))
        assert float(found) == pytest.approx(wanted, abs=1e-6), name
        assert float(normalizer.restore("s", found)) == pytest.approx(6.0, abs=1e-5)


def _scaled(mode: str, low: float, high: float, **options: Any) -> Normalizer:
    """A normaliser of one state with a pair of statistics."""
    names = ("mean", "std") if mode == "MEAN_STD" else ("min", "max")
    values = dict(zip(names, (torch.tensor([low]), torch.tensor([high])), strict=True))
    features = {"s": PolicyFeature(FeatureType.STATE, (1,))}
    modes = {"STATE": NormalizationMode(mode)}
    return Normalizer(features, modes, {"s": values}, where="test", **options)


def test_joint_that_hardly_moves_far_from_zero_keeps_its_digits() -> None:
    """x * scale + shift would be wrong by 4e-3 here."""
    value = torch.tensor([95.30615])
    exact = (float(value) - float(torch.tensor(95.3))) / 0.005
    found = _scaled("MEAN_STD", 95.3, 0.005).normalize("s", value)
    assert float(found) == pytest.approx(exact, abs=1e-5)
    low, high = torch.tensor(95.3), torch.tensor(95.31)
    exact = 2 * (float(value) - float(low)) / (float(high) - float(low)) - 1
    found = _scaled("MIN_MAX", 95.3, 95.31).normalize("s", value)
    assert float(found) == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(
    ("mode", "second", "seen"), [("MEAN_STD", 0.0, 0.0), ("MIN_MAX", 7.0, -1.0)]
)
def test_constant_is_seen_as_lerobot_shows_it(mode: str, second: float, seen: float) -> None:
    """LeRobot divides by 1e-8 there, so that the constant itself becomes 0 or -1."""
    normalizer = _scaled(mode, 7.0, second, zero_range=ZeroRange.CONSTANT)
    for value in (7.0, 7.5):
        found = normalizer.normalize("s", torch.tensor([value]))
        assert float(found) == seen
        assert float(normalizer.restore("s", found)) == 7.0


def test_augmentation_of_strength_zero_changes_nothing_and_is_repeatable() -> None:
    images = torch.rand(4, 2, 3, 16, 20)
    assert augment_images(images, AugmentConfig(), torch.Generator()) is images
    config = AugmentConfig(brightness=0.3, contrast=0.3, saturation=0.3, hue=0.1, blur_px=1.0,
                           shift_fraction=0.1, rotate_deg=5)  # fmt: skip
    runs = [augment_images(images, config, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*runs)
    assert runs[0].shape == images.shape
    assert 0 <= float(runs[0].min()) <= float(runs[0].max()) <= 1
    assert not torch.allclose(runs[0], images, atol=0.05)


def test_each_augmentation_does_what_it_says() -> None:
    grey = torch.full((8, 3, 8, 8), 0.4)

    def run(images: torch.Tensor, **strength: float) -> torch.Tensor:
        return augment_images(images, AugmentConfig(**strength), torch.Generator().manual_seed(1))

    brighter = run(grey, brightness=0.5)
    assert brighter.std(dim=(1, 2, 3)).max() < 1e-5  # even images stay even
    assert float(brighter.flatten(1).mean(1).std()) > 0.02  # but each got its own light
    for name in ("contrast", "saturation", "hue"):
        assert torch.allclose(run(grey, **{name: 0.4}), grey, atol=1e-4), name
    coloured = torch.rand(8, 3, 8, 8)
    luma = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    turned = augment_images(coloured * 0.2 + 0.4, AugmentConfig(hue=0.1),
                            torch.Generator().manual_seed(1))  # fmt: skip
    before, after = ((luma * x).sum(1) for x in (coloured * 0.2 + 0.4, turned))
    assert torch.allclose(before, after, atol=1e-3)
    point = torch.zeros(1, 3, 21, 21)
    point[:, :, 10, 10] = 1.0
    blurred = run(point, blur_px=2.0)
    assert float(blurred.sum()) == pytest.approx(3.0, rel=1e-3)
    assert float(blurred.max()) < 0.9
    shifted = run(point, shift_fraction=0.2)
    assert float(shifted[:, :, 10, 10].max()) < 0.5


def test_steps_of_a_window_share_their_augmentation() -> None:
    one = torch.rand(2, 1, 3, 8, 8).expand(2, 3, 3, 8, 8)
    out = augment_images(one, AugmentConfig(brightness=0.5), torch.Generator().manual_seed(0))
    assert torch.equal(out[:, 0], out[:, 2])


def test_noise_has_the_asked_strength() -> None:
    values = add_noise(torch.zeros(10_000), 0.3, torch.Generator().manual_seed(0))
    assert float(values.std()) == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("name", ["brightness", "hue", "blur_px"])
def test_augmentation_out_of_range_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=name):
        AugmentConfig(**{name: -0.1})


def test_rate_warms_up_and_decays() -> None:
    train = TrainConfig(steps=110, warmup_steps=10, final_rate_fraction=0.1)
    assert rate_factor(0, train) == pytest.approx(0.1)
    assert rate_factor(10, train) == pytest.approx(1.0)
    assert rate_factor(60, train) == pytest.approx(0.55)
    assert rate_factor(110, train) == pytest.approx(0.1)


def test_averaged_weights_follow_and_smooth() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
        average = AveragedWeights(model, 0.5)
        model.weight.fill_(1.0)
        average.update(model)  # decay min(0.5, 1/10)
        assert float(average.values["weight"]) == pytest.approx(0.9)
        model.weight.fill_(0.0)
        for _ in range(60):
            average.update(model)
    assert float(average.values["weight"]) < 1e-6


def test_word_pieces_by_hand(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pick", "up", "##per", "cafe", ",", "!"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    pieces = WordPieces(tmp_path / "vocab.txt")
    assert pieces.encode("Pick  upper, Café!") == [2, 4, 5, 6, 8, 7, 9, 3]
    assert pieces.encode("xyz") == [2, 1, 3]
    assert len(pieces.encode("pick " * 1000)) == 256


def test_sentence_encoder_equals_torchs_transformer(tmp_path: Path) -> None:
    """A random two-layer BERT against torch's own post-norm encoder layer."""
    torch.manual_seed(0)
    dim, heads = 16, 4
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"]))
    config = {"num_hidden_layers": 1, "num_attention_heads": heads, "layer_norm_eps": 1e-12}
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = torch.nn.TransformerEncoderLayer(
        dim, heads, 32, 0.0, "gelu", layer_norm_eps=1e-12, batch_first=True
    ).eval()
    state = {key: torch.randn_like(value) for key, value in layer.state_dict().items()}
    layer.load_state_dict(state)
    names = {"self_attn.out_proj": "attention.output.dense", "linear1": "intermediate.dense",
             "linear2": "output.dense", "norm1": "attention.output.LayerNorm",
             "norm2": "output.LayerNorm"}  # fmt: skip
    tensors = {}
    for mine, theirs in names.items():
        for part in ("weight", "bias"):
            tensors[f"encoder.layer.0.{theirs}.{part}"] = state[f"{mine}.{part}"].clone()
    for index, kind in enumerate(("query", "key", "value")):
        rows = slice(index * dim, (index + 1) * dim)
        prefix = f"encoder.layer.0.attention.self.{kind}"
        tensors[f"{prefix}.weight"] = state["self_attn.in_proj_weight"][rows].clone()
        tensors[f"{prefix}.bias"] = state["self_attn.in_proj_bias"][rows].clone()
    for name, count in (("word", 6), ("position", 8), ("token_type", 2)):
        tensors[f"embeddings.{name}_embeddings.weight"] = torch.randn(count, dim)
    tensors["embeddings.LayerNorm.weight"] = torch.ones(dim)
    tensors["embeddings.LayerNorm.bias"] = torch.zeros(dim)
    save_file(tensors, tmp_path / "model.safetensors")
    ids = torch.tensor([2, 4, 5, 3])
    x = tensors["embeddings.word_embeddings.weight"][ids]
    x = x + tensors["embeddings.position_embeddings.weight"][:4]
    x = x + tensors["embeddings.token_type_embeddings.weight"][0]
    x = torch.nn.functional.layer_norm(x, (dim,), eps=1e-12)
    with torch.no_grad():
        expected = layer(x.unsqueeze(0))[0].mean(0).numpy()
    assert np.allclose(MiniLm(tmp_path)("a B"), expected, atol=1e-5)
