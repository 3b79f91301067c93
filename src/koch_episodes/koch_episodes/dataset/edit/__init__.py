# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Editing LeRobot datasets: new ones out of stretches of the episodes of others."""
