# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the nodes of this package and those above it share: QoS, node life, clients."""
