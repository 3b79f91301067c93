# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The nodes of koch_driver; everything that needs ROS is in here."""
