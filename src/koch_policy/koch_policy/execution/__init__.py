# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Running a policy on a rig, without ROS: observations, inference thread, one run's decisions."""

from koch_policy.execution.compatibility import check_policy, differences
from koch_policy.execution.inference import Answer, InferenceWorker, LockstepWorker, Worker
from koch_policy.execution.observation import ObservationBuilder
from koch_policy.execution.run import (
    PolicyRun,
    RunResult,
    RunSettings,
    Sink,
    StopReason,
    Ticker,
)
from koch_policy.execution.takeover import Takeover

__all__ = [
    "Answer",
    "InferenceWorker",
    "LockstepWorker",
    "ObservationBuilder",
    "PolicyRun",
    "RunResult",
    "RunSettings",
    "Sink",
    "StopReason",
    "Takeover",
    "Ticker",
    "Worker",
    "check_policy",
    "differences",
]
