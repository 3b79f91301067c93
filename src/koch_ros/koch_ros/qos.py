# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""QoS profiles of all topics: publishers are reliable, so that recorders may be; readers relax.

Without other words a profile is reliable, volatile, and keeps the last `depth` messages.
"""

from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

STATE = QoSProfile(depth=5)
IMAGE = QoSProfile(depth=5)
# For control only the newest state counts; waiting for a lost one would only add delay.
NEWEST = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
COMMAND = QoSProfile(depth=1)
DIAGNOSTICS = QoSProfile(depth=10)
# Both ends of a latched topic must say so: a volatile reader gets no stored sample.
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
EVENTS = QoSProfile(depth=10)
EVENTS_LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
