# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Node parameters: one frozen dataclass per node, from which the ROS declarations follow."""

from __future__ import annotations

import difflib
import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    ParameterType,
)
from rclpy.exceptions import ParameterException
from rclpy.node import Node

from koch_core.errors import KochError

P = TypeVar("P")
_KEY = "parameter"
_OF_EVERY_NODE = ("use_sim_time", "start_type_description_service")
# Where this workspace's nodes keep their parameter dataclasses; names, because these packages are
# above this one. Read only when a wildcard section names something that a node does not have.
PARAMETER_MODULES = (
    "koch_cameras.nodes.parameters",
    "koch_driver.nodes.parameters",
    "koch_episodes.recorder.nodes.parameters",
    "koch_policy.nodes.parameters",
    "koch_sim.nodes.world",
    "koch_vla.nodes.state_publisher",
)


class ParameterError(KochError):
    """A node's parameter cannot be used."""

    def __init__(self, name: str, got: object, expected: str) -> None:
        super().__init__(f"parameter {name}: got {got!r}, expected {expected}")


class UnknownParameterError(KochError):
    """A node was given a parameter that it does not have."""

    def __init__(self, name: str, choices: Iterable[str]) -> None:
        known = list(choices)
        close = difflib.get_close_matches(name, known, n=1)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        super().__init__(
            f"parameter {name}: this node has none of that name, expected one of "
            f"{', '.join(known)}.{hint}"
        )


class ParameterRefusedError(KochError):
    """ROS refuses a parameter's type or range."""

    def __init__(self, name: str, why: object, text: str) -> None:
        super().__init__(f"parameter {name} ({text}): {why}")


@dataclass(frozen=True)
class ParameterSpec:
    """What is known of a parameter besides its name, type and default.

    Attributes:
        text: Description, with the unit.
        low: Lowest value of a number, None for no range.
        high: Highest value, with `low`.
        choices: Allowed texts, none for all.
        required: The default stands for nothing and is refused.
        live: May be set while the node runs; otherwise it is read-only.
    """

    text: str
    low: float | None = None
    high: float = 0.0
    choices: tuple[str, ...] = ()
    required: bool = False
    live: bool = False


def parameter(
    default: Any,
    text: str,
    *,
    low: float | None = None,
    high: float = 0.0,
    choices: tuple[str, ...] = (),
    required: bool = False,
    live: bool = False,
) -> Any:
    """A dataclass field with its description; see ParameterSpec."""
    meta = ParameterSpec(text, low, high, choices, required, live)
    return field(default=default, metadata={_KEY: meta})


def live_parameters(kind: type[Any]) -> tuple[str, ...]:
    """Names of a dataclass's parameters that may be set while the node runs."""
    return tuple(item.name for item in fields(kind) if item.metadata[_KEY].live)


def declare(node: Node, kind: type[P]) -> P:
    """Declare the fields of a parameter dataclass on a node and read them.

    ROS itself checks types and ranges, for defaults, overrides and live changes alike, but
    neither texts nor arrays.

    Args:
        node: An rclpy node.
        kind: The dataclass; every field is `parameter`. Texts, numbers, and tuples of them.

    Raises:
        ParameterError: A value is not among its choices, or a required one is missing.
        ParameterRefusedError: A value has the wrong type or is out of range.
        UnknownParameterError: A value was given for a name that is no field. ROS itself would
            pass over it in silence, and a misspelt parameter keep its default. Only a wildcard
            section of a parameter file, such as /**, may hold parameters of other nodes.
    """
    names = [item.name for item in fields(kind)]  # type: ignore[arg-type]  # as below
    given = getattr(node, "_parameter_overrides", ())  # rclpy has no public way to them
    strange = {
        name
        for name in given
        if name not in (*names, *_OF_EVERY_NODE) and not name.startswith("qos_overrides.")
    }
    shared = strange & _for_several_nodes(sys.argv) if strange else set()
    for name in sorted(strange - (shared & _of_other_nodes() if shared else set())):
        raise UnknownParameterError(name, names)
    values: dict[str, Any] = {}
    for item in fields(kind):  # type: ignore[arg-type]  # a dataclass by contract
        meta: ParameterSpec = item.metadata[_KEY]
        default: Any = item.default
        is_list = isinstance(default, tuple)
        # An empty list would have no type: one empty text stands for it.
        start = (list(default) or [""]) if is_list else default
        descriptor = _descriptor(meta, default)
        try:
            value = node.declare_parameter(item.name, start, descriptor).value
        except ParameterException as exc:
            raise ParameterRefusedError(item.name, exc, meta.text) from exc
        if is_list:
            value = tuple(entry for entry in value or () if entry != "")
        if meta.choices and value not in meta.choices:
            known = ", ".join(choice or '""' for choice in meta.choices)
            raise ParameterError(item.name, value, f"one of {known}")
        if meta.required and value == default:
            raise ParameterError(item.name, value, meta.text)
        values[item.name] = value
    return kind(**values)


def _for_several_nodes(argv: Sequence[str]) -> set[str]:
    """Names that a command line gives to whatever node reads its files, and to none by name."""
    import yaml

    several: set[str] = set()
    by_name: set[str] = set()
    for option, value in pairwise(argv):
        if option in ("-p", "--param"):
            by_name.add(value.partition(":=")[0])
        if option != "--params-file":
            continue
        for key, section in yaml.safe_load(Path(value).read_text(encoding="utf-8")).items():
            chosen = several if "*" in key.rpartition("/")[2] else by_name  # /**, /cameras/*
            chosen.update(section["ros__parameters"])
    return several - by_name


def _of_other_nodes() -> set[str]:
    """Names of the parameters of all nodes of this workspace that are installed here."""
    names: set[str] = set()
    for module in PARAMETER_MODULES:
        try:
            kinds = vars(importlib.import_module(module)).values()
        except ImportError:  # a part that was left out
            continue
        for kind in kinds:
            if isinstance(kind, type) and is_dataclass(kind):
                names.update(item.name for item in fields(kind) if _KEY in item.metadata)
    return names


def _descriptor(meta: ParameterSpec, default: Any) -> ParameterDescriptor:
    descriptor = ParameterDescriptor(description=meta.text, read_only=not meta.live)
    if default == ():
        descriptor.type = ParameterType.PARAMETER_STRING_ARRAY
    if meta.low is None:
        return descriptor
    if isinstance(default, int):
        bounds = IntegerRange(from_value=int(meta.low), to_value=int(meta.high))
        descriptor.integer_range = [bounds]
    else:
        bounds = FloatingPointRange(from_value=float(meta.low), to_value=float(meta.high))
        descriptor.floating_point_range = [bounds]
    return descriptor
