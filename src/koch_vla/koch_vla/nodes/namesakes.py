# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Notices nodes of the graph's own names that someone else runs in the same domain."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import rclpy
from rcl_interfaces.srv import ListParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from koch_vla.errors import NamesakesError
from koch_vla.node_spec import NodeSpec

# Discovery on one computer takes a quarter of this; a longer look would delay each start.
_LOOK_S = 1.0
# A node that was killed stays in the graph for some twenty seconds; it does not answer, though.
_ANSWER_S = 1.0
GHOST_S = 30.0


def refuse_namesakes(specs: Sequence[NodeSpec]) -> None:
    """Look whether nodes of these names live already.

    Raises:
        NamesakesError: They do, and answer.
    """
    context = rclpy.Context()
    rclpy.init(args=[], context=context, signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node(
        f"koch_look_{os.getpid()}", context=context, start_parameter_services=False
    )
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    try:
        names = _seen(node, {spec.full_name for spec in specs})
        alive = _that_answer(node, executor, names)
    finally:
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
        context.try_shutdown()
    if alive:
        raise NamesakesError(alive, os.environ.get("ROS_DOMAIN_ID") or "0")


def _seen(node: Node, wanted: set[str]) -> list[str]:
    time.sleep(_LOOK_S)
    return sorted(wanted & set(full_names(node)))


def _that_answer(node: Node, executor: SingleThreadedExecutor, names: Iterable[str]) -> list[str]:
    """Those of the nodes whose parameter services answer."""
    asked: dict[str, Any] = {}
    clients = {
        name: node.create_client(ListParameters, f"{name}/list_parameters") for name in names
    }
    end = time.monotonic() + _ANSWER_S
    while clients and time.monotonic() < end and not _all_done(clients, asked):
        for name, client in clients.items():
            if name not in asked and client.service_is_ready():
                asked[name] = client.call_async(ListParameters.Request())
        executor.spin_once(timeout_sec=0.02)
    return [name for name, future in asked.items() if future.done()]


def _all_done(clients: dict[str, Any], asked: dict[str, Any]) -> bool:
    return len(asked) == len(clients) and all(future.done() for future in asked.values())


def full_names(node: Node) -> list[str]:
    """Full names of all nodes in the domain; a name is there as often as it is used."""
    found = node.get_node_names_and_namespaces()
    return [f"{namespace.rstrip('/')}/{name}" for name, namespace in found]


def twins(node: Node, specs: Iterable[NodeSpec]) -> set[str]:
    """Labels of the graph's nodes of whose name there is more than one."""
    counted = Counter(full_names(node))
    return {spec.label for spec in specs if counted[spec.full_name] > 1}
