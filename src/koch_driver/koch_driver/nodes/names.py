# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Names of other arms, relative to a node's own namespace."""

from __future__ import annotations

from rclpy.node import Node


def sibling(node: Node, arm: str, topic: str) -> str:
    """A topic of another arm of the same rig.

    A node is in its arm's namespace; the other arm's namespace is beside it, so that a
    namespace around the whole rig moves both.
    """
    parent = node.get_namespace().rpartition("/")[0]
    return f"{parent}/{arm}/{topic}"
