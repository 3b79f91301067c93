# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The policy node's parameters: one dataclass, from which the ROS declarations follow."""

from __future__ import annotations

from dataclasses import dataclass

from koch_core.options import same_as
from koch_policy.chunks import StrategyKind
from koch_ros.parameters import parameter
from koch_ros.shared_options import (
    ALLOW_MISMATCH,
    CHECKPOINT,
    RIG,
    RUNTIME,
    SHADOW,
    STRATEGY,
)

_STRATEGIES = ("", *(kind.value for kind in StrategyKind))


@dataclass(frozen=True)
class PolicyParameters:
    """Parameters of the policy node; all are read once, at the start."""

    rig: str = same_as(RIG, "")
    checkpoint: str = same_as(CHECKPOINT, "")
    arm: str = parameter("", "follower to drive; empty: those of the rig's feature `action`")
    strategy: str = same_as(STRATEGY, "", choices=_STRATEGIES)
    shadow: bool = same_as(SHADOW, False)
    runtime: str = same_as(RUNTIME, "auto")
    precision: str = parameter("f32", "number format", choices=("f32", "bf16", "int8"))
    calibration: str = parameter("", "dataset folder that int8 is calibrated with, once")
    device: str = parameter("auto", "auto, cpu or cuda")
    num_threads: int = parameter(2, "CPU threads of torch", low=1, high=64)
    denoising_steps: int = parameter(
        0, "of iterative policies; 0: the checkpoint's", low=0, high=1000
    )
    execution_steps: int = parameter(
        0, "steps of a chunk to execute before the next; 0: the policy's", low=0, high=1000
    )
    fade_steps: int = parameter(5, "length of blend's cross-fade in steps", low=0, high=100)
    ensemble_coefficient: float = parameter(
        0.01, "m of temporal_ensemble, where the checkpoint has none", low=-10.0, high=10.0
    )
    guidance: str = parameter(
        "gradient",
        "of rtc: by back-propagation, or a direct pull, which is cheaper",
        choices=("gradient", "pull"),
    )
    max_guidance: float = parameter(5.0, "bound on rtc's guidance weight", low=0.0, high=100.0)
    energy: bool = parameter(
        True, "publish how well a flow or diffusion policy knows what it executed"
    )
    allow_mismatch: bool = same_as(ALLOW_MISMATCH, False)
    open_clutch: bool = parameter(True, "release the leader's enable switch when a run begins")
    stale_abort: float = parameter(
        0.5, "streams may be missing so long before a run is given up [s]", low=0.0, high=60.0
    )
    overrun_abort: float = parameter(
        1.0, "the policy may leave the arm without action so long [s]", low=0.0, high=60.0
    )
    ghost_ahead: float = parameter(0.5, "how far ahead the ghost arm is [s]", low=0.0, high=10.0)
