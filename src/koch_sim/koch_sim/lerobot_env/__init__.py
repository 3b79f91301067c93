# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The Gymnasium environment as LeRobot's environment plug-in, for a Python that has both.

    lerobot-eval --env.discover_packages_path=koch_sim.lerobot_env --env.type=koch_table \
        --policy.path=CHECKPOINT --eval.n_episodes=300
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig

from koch_rig.arm_model import KOCH_V1_1
from koch_sim.environment import MAX_STEPS, TOLD_ID
from koch_sim.tasks import BLOCK_IN_CUP, Wording

__all__ = ["KochTableConfig"]


@EnvConfig.register_subclass("koch_table")
@dataclass
class KochTableConfig(EnvConfig):  # type: ignore[misc]  # LeRobot is not installed where mypy is
    """What LeRobot's command line knows of the table.

    Attributes:
        cameras: Cameras to observe, comma-separated.
        height, width: Size of their images [px].
        spread: Part of the reachable area over which things lie, 0..1.
        randomise: What varies besides poses: "all", or some switches, comma-separated.
        scene: What is on the table, and what to do: a name of `koch_sim.tasks.TASKS`.
        wording: In which words the task is given: "first", "train" or "held-out".
        episode_length: Steps until an episode counts as failed.
    """

    task: str | None = TOLD_ID
    fps: int = 30
    cameras: str = "above,left,wrist"
    height: int = 480
    width: int = 640
    spread: float = 0.5
    randomise: str = ""
    scene: str = BLOCK_IN_CUP.name
    wording: str = Wording.FIRST.value
    episode_length: int = MAX_STEPS
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Describe the observation by LeRobot's names."""
        images = (self.height, self.width, 3)
        self.features = {
            "action": PolicyFeature(FeatureType.ACTION, (len(KOCH_V1_1.joints),)),
            "agent_pos": PolicyFeature(FeatureType.STATE, (len(KOCH_V1_1.joints),)),
            **{f"pixels/{name}": PolicyFeature(FeatureType.VISUAL, images) for name in self.names},
        }
        self.features_map = {
            "action": "action",
            "agent_pos": "observation.state",
            **{f"pixels/{name}": f"observation.images.{name}" for name in self.names},
        }

    @property
    def names(self) -> list[str]:
        """Names of the cameras."""
        return [name for name in self.cameras.split(",") if name]

    @property
    def package_name(self) -> str:
        """Module that registers the environment."""
        return "koch_sim.environment"

    @property
    def gym_id(self) -> str:
        """Name under which Gymnasium knows it."""
        return TOLD_ID

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Arguments of the environment."""
        return {
            "cameras": self.names,
            "image_size": (self.height, self.width),
            "spread": self.spread,
            "randomise": self.randomise,
            "task": self.scene,
            "wording": self.wording,
            "episode_length": self.episode_length,
        }
