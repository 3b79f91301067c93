# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: strict reading, portable writing, LeRobot 0.3, and every broken file named."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from koch_policy.checkpoint import load_checkpoint, save_checkpoint
from koch_policy.config_json import config_to_dict
from koch_policy.configs import FeatureType, PolicyFeature
from koch_policy.errors import (
    CheckpointError,
    ConfigError,
    PickleRefusedError,
    UnknownKeysError,
    UnknownPolicyError,
    WeightsMismatchError,
)
from koch_policy.metadata import CheckpointMetadata
from koch_policy.policy_configs import DiffusionConfig
from koch_rig.arm_model import KOCH_V1_1

J = len(KOCH_V1_1.joints)

_BASE_040 = {
    "type", "n_obs_steps", "input_features", "output_features", "device", "use_amp",
    "push_to_hub", "repo_id", "private", "tags", "license", "pretrained_path",
}  # fmt: skip
_ACT_040 = _BASE_040 | {
    "chunk_size", "n_action_steps", "normalization_mapping", "vision_backbone",
    "pretrained_backbone_weights", "replace_final_stride_with_dilation", "pre_norm", "dim_model",
    "n_heads", "dim_feedforward", "feedforward_activation", "n_encoder_layers",
    "n_decoder_layers", "use_vae", "latent_dim", "n_vae_encoder_layers",
    "temporal_ensemble_coeff", "dropout", "kl_weight", "optimizer_lr", "optimizer_weight_decay",
    "optimizer_lr_backbone",
}  # fmt: skip
_DIFFUSION_040 = _BASE_040 | {
    "horizon", "n_action_steps", "normalization_mapping", "drop_n_last_frames", "vision_backbone",
    "crop_shape", "crop_is_random", "pretrained_backbone_weights", "use_group_norm",
    "spatial_softmax_num_keypoints", "use_separate_rgb_encoder_per_camera", "down_dims",
    "kernel_size", "n_groups", "diffusion_step_embed_dim", "use_film_scale_modulation",
    "noise_scheduler_type", "num_train_timesteps", "beta_schedule", "beta_start", "beta_end",
    "prediction_type", "clip_sample", "clip_sample_range", "num_inference_steps",
    "do_mask_loss_for_padding", "optimizer_lr", "optimizer_betas", "optimizer_eps",
    "optimizer_weight_decay", "scheduler_name", "scheduler_warmup_steps",
}  # fmt: skip


@pytest.fixture
def folder(golden_act: Any, tmp_path: Path) -> Path:
    """A copy of the ACT golden checkpoint that a test may break."""
    return Path(shutil.copytree(golden_act.path, tmp_path / "act"))


def _edit(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text())
    content.update(changes)
    path.write_text(json.dumps({k: v for k, v in content.items() if v != "DROP"}))


def _rewrite(path: Path, change: Any) -> None:
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_written_config_holds_only_keys_of_the_oldest_lerobot(make: Any, tmp_path: Path) -> None:
    for policy, known in (("act", _ACT_040), ("diffusion", _DIFFUSION_040)):
        path = make.checkpoint(policy, tmp_path / policy, images=True)
        content = json.loads((path / "config.json").read_text())
        assert set(content) <= known
        assert content["pretrained_backbone_weights"] is None


def test_key_added_later_is_written_when_it_matters() -> None:
    config = DiffusionConfig(
        input_features={
            "observation.state": PolicyFeature(FeatureType.STATE, (2,)),
            "observation.images.a": PolicyFeature(FeatureType.VISUAL, (3, 64, 64)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (2,))},
        resize_shape=(48, 48),
        crop_ratio=0.5,
    )
    content = config_to_dict(config)
    assert (content["resize_shape"], content["crop_ratio"]) == ([48, 48], 0.5)
    assert config.crop_shape == (24, 24)


def test_keys_of_newer_lerobot_are_read_past(folder: Path) -> None:
    _edit(folder / "config.json", pretrained_revision=None, use_peft=False)
    assert load_checkpoint(folder).config.type == "act"


def test_config_that_lerobot_has_read_and_written_again_is_read(folder: Path) -> None:
    """Of ACT's fields one is an int there that we and its default call false."""
    plain = load_checkpoint(folder).config
    _edit(folder / "config.json", replace_final_stride_with_dilation=0)
    assert load_checkpoint(folder).config == plain
    _edit(folder / "config.json", use_vae=1)
    assert load_checkpoint(folder).config.use_vae is True  # type: ignore[attr-defined]
    _edit(folder / "config.json", use_vae=2)
    with pytest.raises(ConfigError, match="`use_vae` is 2; expected bool"):
        load_checkpoint(folder)


def test_unknown_config_key_is_refused(folder: Path) -> None:
    _edit(folder / "config.json", dim_modell=64)
    with pytest.raises(UnknownKeysError, match="dim_modell"):
        load_checkpoint(folder)


def test_unknown_policy_is_refused_with_the_way_out(folder: Path) -> None:
    _edit(folder / "config.json", type="smolvla")
    with pytest.raises(UnknownPolicyError, match=r"'smolvla'.*act, diffusion.*lerobot"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim_model": "64"}, "`dim_model` is '64'"),
        ({"chunk_size": None}, "`chunk_size` is None"),
        ({"n_action_steps": 21}, "expected <= 20"),
        ({"n_obs_steps": 2}, "ACT sees one observation"),
        ({"vision_backbone": "vgg16"}, "expected one of resnet18"),
        ({"feedforward_activation": "glu"}, "relu, gelu"),
        ({"input_features": {}}, "at least one camera"),
        ({"output_features": "DROP"}, "the features of the policy"),
        ({"normalization_mapping": {"STATE": "MAX"}}, "MEAN_STD, MIN_MAX"),
    ],
)
def test_invalid_config_value_is_named(
    changes: dict[str, Any], message: str, folder: Path
) -> None:
    _edit(folder / "config.json", **changes)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(folder)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_size": 4}, "an odd number"),
        ({"down_dims": []}, "at least one width"),
        ({"down_dims": [16, 18]}, "multiples of n_groups (4)"),
        ({"down_dims": [12, 16]}, "a first width that 8 divides"),
        ({"diffusion_step_embed_dim": 2}, "an even number of 4 or more"),
        ({"beta_schedule": "sigmoid"}, "squaredcos_cap_v2"),
    ],
)
def test_unet_that_cannot_be_is_named(
    changes: dict[str, Any], message: str, make: Any, tmp_path: Path
) -> None:
    path = make.checkpoint("diffusion", tmp_path)
    _edit(path / "config.json", **changes)
    with pytest.raises(ConfigError) as caught:
        load_checkpoint(path)
    assert message in str(caught.value)


def test_diffusion_config_of_two_meanings_is_refused(make: Any, tmp_path: Path) -> None:
    path = make.checkpoint("diffusion", tmp_path)
    _edit(path / "config.json", use_group_norm="DROP")
    with pytest.raises(ConfigError, match=r"use_group_norm.*0\.6 changed its default"):
        load_checkpoint(path)


def test_missing_and_extra_weights_are_named(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        del tensors["model.action_head.bias"]
        tensors["model.extra"] = torch.zeros(1)
        tensors["model.action_head.weight"] = torch.zeros(7, 64)

    _rewrite(folder / "model.safetensors", change)
    with pytest.raises(WeightsMismatchError) as caught:
        load_checkpoint(folder)
    text = str(caught.value)
    assert "1 key(s) missing: model.action_head.bias" in text
    assert "1 unexpected key(s): model.extra" in text
    assert "model.action_head.weight is (7, 64), expected (6, 64)" in text


def test_weights_with_nan_are_refused(folder: Path) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.action_head.bias"][0] = torch.nan

    _rewrite(folder / "model.safetensors", change)
    with pytest.raises(CheckpointError, match=r"action_head\.bias holds NaN"):
        load_checkpoint(folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "policy.pkl"])
def test_pickle_is_refused_and_never_opened(name: str, folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(pickle.dumps(_Bomb()))
    with pytest.raises(PickleRefusedError, match="refused"):
        load_checkpoint(folder)
    assert not _Bomb.exploded


def test_pickle_under_a_false_name_is_refused(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(PickleRefusedError, match="pickled"):
        load_checkpoint(folder)
    with pytest.raises(PickleRefusedError):
        load_checkpoint(folder / "model.safetensors")


class _Bomb:
    """Sets a flag when it is unpickled."""

    exploded = False

    def __reduce__(self) -> Any:
        return (_explode, ())


def _explode() -> None:
    _Bomb.exploded = True


@pytest.mark.parametrize("name", ["config.json", "policy_preprocessor.json"])
def test_broken_json_is_named(name: str, folder: Path) -> None:
    (folder / name).write_text('{"type": ')
    with pytest.raises(CheckpointError, match=f"{name}: not readable as JSON"):
        load_checkpoint(folder)


def test_folder_without_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json here"):
        load_checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        load_checkpoint(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 9}, "has format 9, expected 1"),
        ({"names": 3}, "`names` is 3, no mapping"),
        ({"names": {"action": "x"}}, "`names.action` is 'x', no list"),
        ({"names": {"action": ["x"]}}, "`names.action` has 1 names, the feature has"),
        ({"runtime": None}, "`runtime` is None, no mapping"),
    ],
)
def test_misshapen_extras_are_named(
    changes: dict[str, Any], message: str, make: Any, tmp_path: Path
) -> None:
    path = make.checkpoint("act", tmp_path)
    _edit(path / "koch.json", **changes)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    assert message in str(caught.value)


def test_network_that_no_memory_holds_is_named(folder: Path) -> None:
    _edit(folder / "config.json", dim_model=10**6, n_heads=1)
    with pytest.raises(CheckpointError, match=r"config\.json: describes a network that cannot be"):
        load_checkpoint(folder)


def test_weights_of_another_kind_are_named(folder: Path) -> None:
    _rewrite(folder / "model.safetensors", lambda t: t.update(
        {"model.action_head.bias": torch.zeros(J, dtype=torch.int64)}))  # fmt: skip
    with pytest.raises(CheckpointError, match=r"action_head\.bias is torch\.int64, expected"):
        load_checkpoint(folder)


def test_adapter_without_its_policy_is_named(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    _edit(folder / "config.json", use_peft=True)
    with pytest.raises(CheckpointError, match="PEFT adapter"):
        load_checkpoint(folder)


def test_weights_of_a_compiled_network_are_read(make: Any, tmp_path: Path) -> None:
    """LeRobot's `compile_model` puts `_orig_mod` into every key of the U-Net."""
    path = make.checkpoint("diffusion", tmp_path)
    plain = load_checkpoint(path).model.state_dict()
    tensors = load_file(path / "model.safetensors")
    renamed = {key.replace(".unet.", ".unet._orig_mod."): v for key, v in tensors.items()}
    save_file(renamed, path / "model.safetensors")
    _edit(path / "config.json", compile_model=True)
    for key, value in load_checkpoint(path).model.state_dict().items():
        assert torch.equal(value, plain[key]), key


def test_half_precision_weights_are_read_as_float32(folder: Path) -> None:
    path = folder / "model.safetensors"
    half = {key: value.bfloat16() for key, value in load_file(path).items()}
    save_file(half, path)
    for key, value in load_checkpoint(folder).model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, half[f"model.{key}"].float())


def test_lerobot_03_checkpoint_without_scaling_is_read(golden_act: Any, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    shutil.copy(golden_act.path / "model.safetensors", old)
    shutil.copy(golden_act.path / "config.json", old)
    with pytest.raises(CheckpointError, match="no statistics among the weights"):
        load_checkpoint(old)
    identity = dict.fromkeys(("VISUAL", "STATE", "ACTION"), "IDENTITY")
    _edit(old / "config.json", normalization_mapping=identity)
    assert load_checkpoint(old).normalizer.maps == {}


def test_lerobot_03_checkpoint_is_read(golden_act: Any, tmp_path: Path) -> None:
    """Statistics among the weights, and a camera with an underscore in its name."""
    new = load_checkpoint(golden_act.path)
    old = tmp_path / "old"
    old.mkdir()
    rename = {"observation.images.left": "observation.images.wrist_left"}
    content = json.loads((golden_act.path / "config.json").read_text())
    content["input_features"] = {
        rename.get(key, key): value for key, value in content["input_features"].items()
    }
    for key in ("use_peft", "pretrained_path"):
        del content[key]
    (old / "config.json").write_text(json.dumps(content))
    tensors = load_file(golden_act.path / "model.safetensors")
    for feature, values in new.statistics.items():
        flat = rename.get(feature, feature).replace(".", "_")
        places = ["normalize_inputs"] if feature != "action" else [
            "normalize_targets", "unnormalize_outputs"]  # fmt: skip
        for place in places:
            for name in ("mean", "std"):
                tensors[f"{place}.buffer_{flat}.{name}"] = values[name].clone()
    save_file(tensors, old / "model.safetensors")
    loaded = load_checkpoint(old)
    assert torch.equal(
        loaded.statistics["observation.images.wrist_left"]["mean"],
        new.statistics["observation.images.left"]["mean"],
    )
    for key, value in new.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value)


def test_extras_survive_and_unknown_ones_are_refused(golden_act: Any, tmp_path: Path) -> None:
    first = load_checkpoint(golden_act.path)
    assert first.extras == CheckpointMetadata()
    extras = CheckpointMetadata(
        fingerprint="sha256:1", names={"action": list("abcdef")}, fps=30.0, tasks=["x"]
    )
    save_checkpoint(tmp_path / "c", first.config, first.model, first.statistics, extras)
    assert load_checkpoint(tmp_path / "c").extras == extras
    _edit(tmp_path / "c" / "koch.json", colour="red")
    with pytest.raises(UnknownKeysError, match="colour"):
        load_checkpoint(tmp_path / "c")


def test_failed_write_leaves_the_old_checkpoint(golden_act: Any, tmp_path: Path) -> None:
    first = load_checkpoint(golden_act.path)
    path = tmp_path / "c"
    save_checkpoint(path, first.config, first.model, first.statistics)
    before = (path / "model.safetensors").read_bytes()
    broken: Any = {"action": {"mean": "no tensor"}}
    with pytest.raises(AttributeError):
        save_checkpoint(path, first.config, first.model, broken)
    assert (path / "model.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c"]
