# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the steps of `koch demo` work with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from koch_vla.steps import Results, Step, StepContext

__all__ = [
    "LANGUAGE_PRESET",
    "SMALL_PRESET",
    "VISION_PRESET",
    "DemoContext",
    "DemoSettings",
    "DemoStep",
    "Results",
]

SMALL_PRESET = "tiny"  # of a policy that learns from a few demonstrations, told the true poses
VISION_PRESET = "vision"  # of a policy that learns from cameras
LANGUAGE_PRESET = "vla-tiny"  # of one that is told by a sentence what to do, besides


@dataclass(frozen=True)
class DemoSettings:
    """What the user asked for.

    Attributes:
        folder: Everything the demo makes goes there.
        rig: The simulated rig's file.
        episodes: Demonstrations to record.
        rollouts: Rollouts of the trained policy.
        policy: Type of the policy, one that has a preset for so little.
        vision: The policy sees the cameras, not the true poses of block and cup.
        language: And a sentence says which of three blocks it is to take.
        seed: Of the world and the training.
        speed: Simulated seconds per second, while recording and running.
        lockstep: Simulate without nodes and without a clock: this machine is too slow for them.
    """

    folder: Path
    rig: Path
    episodes: int = 20
    rollouts: int = 10
    policy: str = "act"
    vision: bool = False
    language: bool = False
    seed: int = 0
    speed: float = 1.0
    lockstep: bool = False

    @property
    def variant(self) -> str:
        """Name of the policy's folder."""
        if self.language:
            return f"{self.policy}_language"
        return f"{self.policy}_vision" if self.vision else self.policy

    @property
    def preset(self) -> str:
        """What the policy is trained with."""
        if self.language:
            return LANGUAGE_PRESET
        return VISION_PRESET if self.vision else SMALL_PRESET

    def scene(self, wording: str) -> list[str]:
        """Words for `koch record` and `koch eval`: what is on the table, and how it is asked for.

        Args:
            wording: "train" or "held-out"; matters where a sentence chooses.
        """
        return ["--scene", "colour_in_cup", "--wording", wording] if self.language else []


DemoContext = StepContext[DemoSettings]
DemoStep = Step[DemoSettings]
