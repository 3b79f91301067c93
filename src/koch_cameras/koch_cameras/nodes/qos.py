# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""QoS profiles of the camera topics: reliable and volatile; readers may relax."""

from rclpy.qos import DurabilityPolicy, QoSProfile

IMAGE = QoSProfile(depth=5)
DIAGNOSTICS = QoSProfile(depth=10)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
