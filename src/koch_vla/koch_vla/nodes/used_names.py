# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Which topics and services each node of the domain uses, as the running graph tells."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from koch_vla.security import Uses

_PERIOD_S = 0.5


def used_names(seconds: float) -> dict[str, Uses]:
    """Look at the graph for some seconds; {full name of a node: what it used}."""
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(f"koch_names_{os.getpid()}", context=context)
    found: dict[str, Uses] = {}
    try:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(_PERIOD_S)
            for name, namespace in set(node.get_node_names_and_namespaces()):
                full = f"{namespace.rstrip('/')}/{name}"
                found[full] = found.get(full, Uses()) | _of(node, name, namespace)
    finally:
        node.destroy_node()
        context.try_shutdown()
    return found


def _of(node: Node, name: str, namespace: str) -> Uses:
    def names(ask: Callable[[str, str], list[Any]]) -> frozenset[str]:
        try:
            return frozenset(found for found, _ in ask(name, namespace))
        except RuntimeError:  # it has gone meanwhile
            return frozenset()

    return Uses(
        names(node.get_publisher_names_and_types_by_node),
        names(node.get_subscriber_names_and_types_by_node),
        names(node.get_service_names_and_types_by_node),
        names(node.get_client_names_and_types_by_node),
    )
