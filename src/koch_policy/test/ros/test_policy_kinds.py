# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Checkpoints on the graph: tokens and flow drive an arm, flow tells its energy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from koch_policy.nodes.policy import load_from
from koch_policy.train.config import Recipe
from koch_policy.train.data import ArrayFrames, Demonstrations
from koch_policy.train.setup import make_trainer
from koch_rig.arm_model import KOCH_V1_1

pytestmark = [pytest.mark.ros, pytest.mark.timing]

J = len(KOCH_V1_1.joints)
CAMERA = "observation.images.above"
NETWORKS: dict[str, dict[str, Any]] = {
    "fast": {"vocabulary": 128},
    "flow": {"dim_expert": 32, "num_inference_steps": 2},
}


def trained(kind: str, folder: Path) -> Path:
    """A checkpoint that sees the joints and a camera, and learned slow motions: few tokens."""
    draw = np.random.default_rng(0)
    joints = [f"{name}.pos" for name in KOCH_V1_1.joints]
    slow = np.repeat(np.linspace(0.0, 5.0, 60)[:, None], J, axis=1).astype(np.float32)
    vectors = dict.fromkeys(("observation.state", "action"), slow)
    data = Demonstrations(
        name="made up", fps=30.0, lengths=(60,), vectors=vectors, units="lerobot",
        frames={CAMERA: ArrayFrames(draw.integers(0, 256, (60, 48, 64, 3), dtype=np.uint8))},
        names=dict.fromkeys(vectors, joints),
    )  # fmt: skip
    network = {
        "type": kind, "chunk_size": 12, "n_action_steps": 8, "dim_model": 32, "n_heads": 2,
        "dim_head": 16, "n_layers": 1, "vision_backbone": "keypoints", **NETWORKS[kind],
    }  # fmt: skip
    train = {
        "validation_fraction": 0.0, "steps": 60, "batch_size": 8, "learning_rate": 3e-3,
        "warmup_steps": 1, "save_every": 60, "log_every": 60,
    }  # fmt: skip
    recipe = Recipe().with_overrides({"policy": network, "train": train}, "test")
    make_trainer(data, recipe, folder, show_progress=False).run()
    return folder


@pytest.mark.parametrize("kind", NETWORKS)
def test_it_drives_an_arm(kind: str, ros: None, rig: Path, kit: Any, tmp_path: Path) -> None:
    from koch_interfaces.msg import NamedVector

    checkpoint = trained(kind, tmp_path)
    prefix = f"/{kind}"
    world = kit.spinner(kit.probe(prefix))
    probe, energies = world.node, []
    topic = f"{prefix}/policy/energy"
    probe.create_subscription(NamedVector, topic, energies.append, 100)
    node = kit.spinner(
        kit.make_node(
            load_from, rig, prefix, checkpoint=str(checkpoint), strategy="blend",
            execution_steps=6,
        )
    )  # fmt: skip
    try:
        assert kit.wait_for(lambda: node.node.outputs._energies.get_subscription_count() > 0)
        result = probe.result(probe.start(2.5))
        assert result.success, result.reason
        assert result.steps > 20
        assert np.isfinite([command.position for command in probe.commands]).all()
        assert all(chunk.steps == 12 for chunk in probe.chunks)
        if kind == "fast":
            assert not energies  # it has no noise
            return
        assert kit.wait_for(lambda: len(energies) > 0, 2.0)
        stamps = {kit.ns(command.header.stamp) for command in probe.commands}
        assert all(list(each.name) == ["energy"] for each in energies)
        assert all(np.isfinite(each.value[0]) and each.value[0] > 0.0 for each in energies)
        assert {kit.ns(each.header.stamp) for each in energies} <= stamps
    finally:
        node.node.close()
        node.close()
        probe.close()
        world.close()
