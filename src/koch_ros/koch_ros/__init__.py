# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What every node needs of ROS: life cycle, parameters, QoS, stamps, diagnostics, sessions.

The modules are imported one by one: `shared_topics` needs no rclpy.
"""

__all__: list[str] = []
