# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Turns the node graph into what launch_ros's Node action takes; imports launch only when asked.

The launch arguments are those of `koch up`, so that the launch file itself only wires.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from koch_core.command_line import plain
from koch_core.options import Declared, OptionError, declared
from koch_vla.child import STAYS_DOWN
from koch_vla.graph import GraphOptions, NodeSpec, RigChoice, build_graph
from koch_vla.paths import default_rig
from koch_vla.preflight import check_files

M = TypeVar("M")
_BOOLEANS = ("true", "false")
BETWEEN = ";"  # the values of one launch argument


@dataclass(frozen=True)
class LaunchArgument:
    """A launch argument: name, default and description; `choices` are checked by launch."""

    name: str
    default: str
    description: str
    choices: tuple[str, ...] | None = None


def launch_arguments(*models: type[Any]) -> tuple[LaunchArgument, ...]:
    """The launch arguments of some models: their options, called as on the command line."""
    return tuple(_launch_argument(item) for model in models for item in declared(model).values())


def _launch_argument(item: Declared) -> LaunchArgument:
    text, default, choices = item.option.text, item.default, item.choices
    if item.element is bool:
        return LaunchArgument(item.word, str(bool(default)).lower(), text, _BOOLEANS)
    shown = "" if default is None or default == () else plain(default)
    several = f" ({BETWEEN} between several)" if item.is_list else ""
    allowed = (*(() if shown in choices else (shown,)), *choices) if choices else None
    return LaunchArgument(item.word, shown, text + several, allowed)


def from_launch(model: type[M], values: Mapping[str, str], **given: Any) -> M:
    """Make a model from the texts of launch arguments.

    A switch that may be neither on nor off has no third text: false leaves it at its default.

    Raises:
        OptionError: A text is no number, or a value is out of its range; or the model's own error.
    """
    found: dict[str, Any] = {}
    for name, item in declared(model).items():
        text = values[item.word]
        if item.element is bool:
            found[name] = True if text == "true" else (item.default and False)
        elif item.is_list:
            parts = (part.strip() for part in text.split(BETWEEN))
            found[name] = tuple(_from_text(item, part) for part in parts if part)
        else:
            found[name] = _from_text(item, text) if text else item.default
    return model(**found, **given)


def _from_text(item: Declared, text: str) -> Any:
    if item.element not in (int, float, Path):
        return item.from_word(text)
    try:
        return item.element(text)
    except ValueError as error:
        expected = f"a number such as {plain(item.default)}"
        raise OptionError(f"{item.word}:", text, expected) from error


#: Declared by the models of `koch up`.
LAUNCH_ARGUMENTS = launch_arguments(RigChoice, GraphOptions)


def graph_from_launch(values: Mapping[str, str]) -> tuple[NodeSpec, ...]:
    """Load the rig that the launch arguments name and work out its nodes.

    Raises:
        KochError: The rig or an argument is wrong.
    """
    from koch_rig.load import load_rig

    rig = load_rig(default_rig(from_launch(RigChoice, values).rig, sim=values["sim"] == "true"))
    options = from_launch(GraphOptions, values, **GraphOptions.surroundings())
    specs = build_graph(rig, options)
    check_files(rig, specs, options.params_file)
    return specs


def stays_down(returncode: int) -> bool:
    """Whether a node whose process ended so is not started again, as under `koch up`."""
    return returncode in STAYS_DOWN


def node_arguments(spec: NodeSpec) -> dict[str, Any]:
    """Return the keyword arguments of launch_ros.actions.Node for one node of the graph."""
    return {
        "package": spec.package,
        "executable": spec.executable,
        "name": spec.name,
        "namespace": spec.namespace,
        "parameters": [
            *([{k: _plain(v) for k, v in spec.parameters.items()}] if spec.parameters else []),
            *spec.parameter_files,
        ],
        "ros_arguments": ["--log-level", spec.log_level] if spec.log_level else [],
        "remappings": list(spec.remappings),
        "arguments": list(spec.arguments),
        "respawn": spec.respawn,
        "respawn_delay": spec.respawn_delay_s,
        "output": "screen",
        "emulate_tty": True,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
