# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""One arm on its bus: connect, read, decide, write, and watch its servos."""

from koch_driver.arm.connect import DriftReport, check_drift, configure, connect_arm

__all__ = ["DriftReport", "check_drift", "configure", "connect_arm"]
