# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parameters that a person sets for nodes of the graph: `--set follower/driver.on_exit=rest`."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace

from koch_vla.errors import SettingError, UnknownNodeError
from koch_vla.node_spec import NodeSpec, ParameterValue


@dataclass(frozen=True)
class Setting:
    """One parameter of one node, or of all nodes that share a name.

    Attributes:
        node: Any name that `--only` takes.
        parameter: Name of the parameter; the node itself refuses one that it does not have.
        value: Value, of the type that ROS would read from YAML.
    """

    node: str
    parameter: str
    value: ParameterValue


def parse_setting(text: str) -> Setting:
    """Read `NODE.PARAMETER=VALUE`; the value is YAML, as in `ros2 run ... -p NAME:=VALUE`.

    Raises:
        SettingError: It has another form, or the value is not one that a parameter can have.
    """
    import yaml  # here, because koch doctor runs without it

    target, equals, written = text.partition("=")
    node, dot, parameter = target.strip().strip("/").rpartition(".")
    if not (equals and dot and node and parameter):
        raise SettingError(text, "NODE.PARAMETER=VALUE, such as follower/driver.on_exit=rest")
    try:
        value = yaml.safe_load(written)
    except yaml.YAMLError as error:
        expected = "a value in YAML, such as 0.5, true, rest or [0.0, 1.0]"
        raise SettingError(text, expected) from error
    if isinstance(value, list):
        value = tuple(value)
    if not all(map(_is_scalar, value if isinstance(value, tuple) else (value,))):
        raise SettingError(text, "true or false, a number, a text, or a list of them")
    return Setting(node, parameter, value)


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return isinstance(value, (bool, int, str))


def apply_settings(nodes: Iterable[NodeSpec], settings: Iterable[Setting]) -> list[NodeSpec]:
    """Return the nodes with the settings in their parameters; the last of two wins.

    Raises:
        UnknownNodeError: A setting names no node.
    """
    result = list(nodes)
    for setting in settings:
        if not any(setting.node in node.names for node in result):
            known = sorted(set().union(*(node.names for node in result)))
            raise UnknownNodeError("--set", setting.node, known)
        changed = {setting.parameter: setting.value}
        result = [
            replace(node, parameters={**node.parameters, **changed})
            if setting.node in node.names
            else node
            for node in result
        ]
    return result
