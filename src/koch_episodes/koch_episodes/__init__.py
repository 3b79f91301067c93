# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes: bags and LeRobot datasets."""

from koch_episodes.decode import joint_vector

__all__ = ["joint_vector"]
