# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""MoveIt configuration of the Koch follower, and the sampler of its self-collision matrix."""

__all__: list[str] = []
