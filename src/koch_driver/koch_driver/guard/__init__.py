# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The guard: commands in, goals out that keep the promises of `Guard`. No ROS."""

from koch_driver.guard.errors import GuardConfigError
from koch_driver.guard.guard import Guard, GuardResult, GuardState
from koch_driver.guard.limits import GuardLimits, workspace_from_rig
from koch_driver.guard.refusals import Refusal
from koch_driver.guard.rules import Intervention, Rule
from koch_driver.guard.sources import DEFAULT_SOURCES, Command, CommandSource
from koch_driver.guard.workspace import Workspace

__all__ = [
    "DEFAULT_SOURCES",
    "Command",
    "CommandSource",
    "Guard",
    "GuardConfigError",
    "GuardLimits",
    "GuardResult",
    "GuardState",
    "Intervention",
    "Refusal",
    "Rule",
    "Workspace",
    "workspace_from_rig",
]
