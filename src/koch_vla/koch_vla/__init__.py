# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Bring-up of the koch_vla suite: node graph, supervisor and the `koch` command line."""

from koch_vla.graph import GraphOptions, NodeSpec, build_graph

__version__ = "0.1.0"

__all__ = ["GraphOptions", "NodeSpec", "__version__", "build_graph"]
