# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Running a policy on a rig, without ROS: observations, inference thread, one run's decisions."""

from koch_policy.execution.compatibility import check_policy, differences
from koch_policy.execution.inference import Answer, InferenceWorker, LockstepWorker, Worker
from koch_policy.execution.observation import ObservationBuilder
from koch_policy.execution.outcome import Cause, End
from koch_policy.execution.run import PolicyRun, RunSettings, Sink
from koch_policy.execution.takeover import Takeover

__all__ = [
    "Answer",
    "Cause",
    "End",
    "InferenceWorker",
    "LockstepWorker",
    "ObservationBuilder",
    "PolicyRun",
    "RunSettings",
    "Sink",
    "Takeover",
    "Worker",
    "check_policy",
    "differences",
]
