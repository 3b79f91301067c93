# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The joints, and the public names of the package."""

from __future__ import annotations

import koch_rig
from koch_rig.joints import HOME_POSE_RAD, JOINT_NAMES, REST_POSE_RAD
from koch_rig.model import urdf_limits
from koch_rig.rig import Role


def test_home_and_rest_lie_within_the_limits() -> None:
    limits = urdf_limits(Role.FOLLOWER)
    for pose in (HOME_POSE_RAD, REST_POSE_RAD):
        for name, angle in zip(JOINT_NAMES, pose, strict=True):
            assert limits[name].lower <= angle <= limits[name].upper, name


def test_every_public_name_exists() -> None:
    for name in koch_rig.__all__:
        assert getattr(koch_rig, name) is not None
