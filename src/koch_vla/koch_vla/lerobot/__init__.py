# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""LeRobot's commands with LeRobot's flags, carried out by ours: `koch record --robot.type=...`."""
