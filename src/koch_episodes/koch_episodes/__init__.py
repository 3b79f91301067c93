# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Episodes: bags and LeRobot datasets."""

from koch_episodes.decode import decode_image, joint_vector

__all__ = ["decode_image", "joint_vector"]
