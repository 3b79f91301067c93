# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The simulated rig: MuJoCo table, cameras, a scripted hand, evaluation."""

__all__: list[str] = []
