# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The rig, joints, units, calibration data, geometry and kinematics of Koch arms. No ROS."""
