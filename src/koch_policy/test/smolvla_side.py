# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a SmolVLA of LeRobot's with a tiny backbone, random weights and a tokenizer of its own.

    HF_HUB_OFFLINE=1 PYTHON smolvla_side.py FOLDER

PYTHON has lerobot[smolvla]. FOLDER/policy is the checkpoint, FOLDER/vlm what it is built on.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

STATE, CAMERA = "observation.state", "observation.images.above"
TEXT = ["pick up the rectangular block and put it into the cup", "push the cup to the left"]


def make_backbone(folder: Path) -> None:
    """Write configuration, tokenizer and processor of a tiny SmolVLM."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import (
        PreTrainedTokenizerFast,
        SmolVLMConfig,
        SmolVLMImageProcessor,
        SmolVLMProcessor,
        SmolVLMVideoProcessor,
    )

    special = {
        "fake_image_token": "<fake_token_around_image>",
        "image_token": "<image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<pad>", "<unk>", *special.values()]
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>", unk_token="<unk>",
        extra_special_tokens=special,
    )  # fmt: skip
    SmolVLMProcessor(
        image_processor=SmolVLMImageProcessor(), tokenizer=wrapped,
        video_processor=SmolVLMVideoProcessor(), chat_template="{{ messages }}",
    ).save_pretrained(folder)  # fmt: skip
    SmolVLMConfig(
        text_config={
            "model_type": "llama", "vocab_size": 400, "hidden_size": 64, "num_hidden_layers": 2,
            "intermediate_size": 128, "num_attention_heads": 2, "num_key_value_heads": 1,
            "head_dim": 32, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
            "num_attention_heads": 2, "image_size": 64, "patch_size": 16,
        },
        scale_factor=2, image_token_id=wrapped.convert_tokens_to_ids("<image>"), pad_token_id=0,
    ).save_pretrained(folder)  # fmt: skip


def make_policy(backbone: Path, folder: Path) -> None:
    """Save an untrained policy with both pipelines."""
    from lerobot.configs.types import FeatureType, PolicyFeature
    from lerobot.policies.factory import make_pre_post_processors
    from lerobot.policies.smolvla.configuration_smolvla import SmolVLAConfig
    from lerobot.policies.smolvla.modeling_smolvla import SmolVLAPolicy

    torch.manual_seed(1)
    config = SmolVLAConfig(
        input_features={
            STATE: PolicyFeature(FeatureType.STATE, (6,)),
            CAMERA: PolicyFeature(FeatureType.VISUAL, (3, 480, 640)),
        },
        output_features={"action": PolicyFeature(FeatureType.ACTION, (6,))},
        device="cpu", push_to_hub=False, vlm_model_name=str(backbone), load_vlm_weights=False,
        num_vlm_layers=2, resize_imgs_with_padding=(64, 64), chunk_size=30, n_action_steps=15,
        num_steps=2, tokenizer_max_length=24, self_attn_every_n_layers=2,
    )  # fmt: skip
    low, high = torch.full((6,), -5.0), torch.full((6,), 5.0)
    row = {"mean": torch.zeros(6), "std": torch.full((6,), 10.0), "min": low, "max": high}
    statistics: dict[str, Any] = {STATE: row, "action": row}
    SmolVLAPolicy(config).save_pretrained(folder)
    for pipeline in make_pre_post_processors(config, dataset_stats=statistics):
        pipeline.save_pretrained(folder)


def main(folder: Path) -> None:
    """Make both."""
    torch.set_num_threads(1)
    make_backbone(folder / "vlm")
    make_policy(folder / "vlm", folder / "policy")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
