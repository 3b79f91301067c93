# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The bus: the MotorBus protocol, and the one that fulfils it with Dynamixel packets."""

from koch_driver.bus.dynamixel import DynamixelBus
from koch_driver.bus.motor_bus import BusConfig, MotorBus, MotorState, PingReply

__all__ = ["BusConfig", "DynamixelBus", "MotorBus", "MotorState", "PingReply"]
