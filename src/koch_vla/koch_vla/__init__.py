# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bring-up of the koch_vla suite: node graph, supervisor and the `koch` command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from koch_vla.graph import GraphOptions, NodeSpec, build_graph

__version__ = "0.1.0"

__all__ = ["GraphOptions", "NodeSpec", "__version__", "build_graph"]


def __getattr__(name: str) -> Any:
    """Import the graph with its first use: the command line speaks before it needs one."""
    if name in __all__:
        from koch_vla import graph

        return getattr(graph, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
