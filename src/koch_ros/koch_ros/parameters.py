# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Node parameters: a model of options per node, from which the ROS declarations follow."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass
from importlib.metadata import entry_points
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
from koch_core.options import Declared, declared, did_you_mean, option

P = TypeVar("P")
_OF_EVERY_NODE = ("use_sim_time", "start_type_description_service")
# Entry points: the modules of all packages that hold parameter dataclasses of nodes. Loaded only
# when a wildcard section of a parameter file names something that a node does not have.
PARAMETERS_GROUP = "koch_vla.parameters"


class ParameterError(KochError):
    """A node's parameter cannot be used."""

    def __init__(self, name: str, got: object, expected: str) -> None:
        super().__init__(f"parameter {name}: got {got!r}, expected {expected}")


class UnknownParameterError(KochError):
    """A node was given a parameter that it does not have."""

    def __init__(self, name: str, choices: Iterable[str]) -> None:
        known = list(choices)
        super().__init__(
            f"parameter {name}: this node has none of that name, expected one of "
            f"{', '.join(known)}. {did_you_mean(name, known)}".rstrip()
        )


class ParameterRefusedError(KochError):
    """ROS refuses a parameter's type or range."""

    def __init__(self, name: str, why: object, text: str) -> None:
        super().__init__(f"parameter {name} ({text}): {why}")


#: What a node calls an option of its model.
parameter = option


def live_parameters(kind: type[Any]) -> tuple[str, ...]:
    """Names of a dataclass's parameters that may be set while the node runs."""
    return tuple(name for name, item in declared(kind).items() if item.option.live)


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
    options = declared(kind)
    _refuse_unknown(node, list(options))
    return kind(**{name: _declared_value(node, item) for name, item in options.items()})


def _refuse_unknown(node: Node, names: Sequence[str]) -> None:
    given = getattr(node, "_parameter_overrides", ())  # rclpy has no public way to them
    strange = {
        name
        for name in given
        if name not in (*names, *_OF_EVERY_NODE) and not name.startswith("qos_overrides.")
    }
    shared = strange & _for_several_nodes(sys.argv) if strange else set()
    for name in sorted(strange - (shared & _of_other_nodes() if shared else set())):
        raise UnknownParameterError(name, names)


def _declared_value(node: Node, item: Declared) -> Any:
    described, default = item.option, item.default
    # An empty list would have no type: one empty text stands for it.
    start = (list(default) or [""]) if item.is_list else default
    try:
        value = node.declare_parameter(item.name, start, _descriptor(item)).value
    except ParameterException as exc:
        raise ParameterRefusedError(item.name, exc, described.text) from exc
    if item.is_list:
        value = tuple(entry for entry in value or () if entry != "")
    if described.choices and value not in described.choices:
        known = ", ".join(choice or '""' for choice in described.choices)
        raise ParameterError(item.name, value, f"one of {known}")
    if described.required and value == default:
        raise ParameterError(item.name, value, described.text)
    return value


def _for_several_nodes(argv: Sequence[str]) -> set[str]:
    """Names that a command line gives to whatever node reads its files, and to none by name."""
    import yaml

    several: set[str] = set()
    by_name: set[str] = set()
    for word, value in pairwise(argv):
        if word in ("-p", "--param"):
            by_name.add(value.partition(":=")[0])
        if word != "--params-file":
            continue
        for key, section in yaml.safe_load(Path(value).read_text(encoding="utf-8")).items():
            chosen = several if "*" in key.rpartition("/")[2] else by_name  # /**, /cameras/*
            chosen.update(section["ros__parameters"])
    return several - by_name


def _of_other_nodes() -> set[str]:
    """Names of the parameters of all nodes that are installed here."""
    names: set[str] = set()
    for entry in entry_points(group=PARAMETERS_GROUP):
        try:
            kinds = vars(entry.load()).values()
        except ImportError:  # a part that was left out
            continue
        for kind in kinds:
            if isinstance(kind, type) and is_dataclass(kind):
                names.update(declared(kind))
    return names


def _descriptor(item: Declared) -> ParameterDescriptor:
    described = item.option
    descriptor = ParameterDescriptor(description=described.text, read_only=not described.live)
    if item.default == ():
        descriptor.type = ParameterType.PARAMETER_STRING_ARRAY
    if described.low is None or described.high is None:
        return descriptor
    if item.element is int:
        bounds = IntegerRange(from_value=int(described.low), to_value=int(described.high))
        descriptor.integer_range = [bounds]
    else:
        bounds = FloatingPointRange(
            from_value=float(described.low), to_value=float(described.high)
        )
        descriptor.floating_point_range = [bounds]
    return descriptor
