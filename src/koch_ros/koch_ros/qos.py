# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""QoS profiles of all topics and services.

Publishers are reliable, so that recorders may be; readers relax.
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
# A server takes one request after the other and keeps the newest ones: of more requests at once
# than its depth (rclpy: ten) the others are never answered. Parameter services have as much.
SERVICES = QoSProfile(depth=1000)
#: The same for the services of an `ActionServer`, as its arguments.
ACTION_SERVICES = {
    "goal_service_qos_profile": SERVICES,
    "result_service_qos_profile": SERVICES,
    "cancel_service_qos_profile": SERVICES,
}
EVENTS = QoSProfile(depth=10)
EVENTS_LATCHED = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
