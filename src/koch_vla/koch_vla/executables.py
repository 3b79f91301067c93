# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Turns a node of the graph into a command line: installed executable, or Python module."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from koch_vla.errors import ExecutableNotFoundError
from koch_vla.node_spec import NodeSpec, ParameterValue
from koch_vla.paths import package_prefix


def find_executable(spec: NodeSpec) -> list[str]:
    """Return the command that starts a node's process, without arguments.

    Raises:
        ExecutableNotFoundError: Neither installed nor importable.
    """
    prefix = package_prefix(spec.package)
    if prefix is not None:
        path = prefix / "lib" / spec.package / spec.executable
        if path.is_file() and os.access(path, os.X_OK):
            return [str(path)]
    if _importable(spec.module):
        return [sys.executable, "-m", spec.module]
    raise ExecutableNotFoundError(spec.package, spec.executable, spec.module)


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def ros_arguments(spec: NodeSpec, parameter_file: Path | None) -> list[str]:
    """Write a node's name, namespace, remappings, parameters and log level as ROS arguments.

    Where SROS 2 is switched on, each has the enclave of its name; `koch security` makes those.
    """
    arguments = ["--ros-args", "-r", f"__node:={spec.name}", "-r", f"__ns:={spec.namespace}"]
    if os.environ.get("ROS_SECURITY_ENABLE") == "true":
        arguments += ["--enclave", spec.full_name]
    for source, target in spec.remappings:
        arguments += ["-r", f"{source}:={target}"]
    if parameter_file is not None:
        arguments += ["--params-file", str(parameter_file)]
    for path in spec.parameter_files:  # the last of two wins
        arguments += ["--params-file", path]
    if spec.log_level:
        arguments += ["--log-level", spec.log_level]
    return arguments


def parameter_text(parameters: Mapping[str, ParameterValue], node: str = "/**") -> str:
    """Write parameters as a ROS parameter file, for a node or for every node reading it.

    A file rather than `-p` arguments: no quoting rules, room for a whole robot description, and
    a person can read what a running node was given. JSON, which YAML includes, because its texts
    are always quoted: rcl reads a plain word such as 1e3 as a number.
    """
    tree = {node: {"ros__parameters": dict(parameters)}}
    return json.dumps(tree, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_parameters(spec: NodeSpec, folder: Path) -> Path | None:
    """Write a node's parameter file into a folder; None when it has no parameters."""
    if not spec.parameters:
        return None
    path = folder / f"{spec.label.replace('/', '.')}.yaml"
    # The node's name, so that a parameter which it does not have is refused, not passed over as
    # one for another node; behind /**, so that a user's section of just that name comes later.
    text = parameter_text(spec.parameters, f"/**{spec.full_name}")
    path.write_text(text, encoding="utf-8")
    return path


def command(spec: NodeSpec, folder: Path) -> list[str]:
    """Build the whole command line of a node, writing its parameter file into a folder.

    Raises:
        ExecutableNotFoundError: Neither installed nor importable.
    """
    parameter_file = write_parameters(spec, folder)
    return [*find_executable(spec), *spec.arguments, *ros_arguments(spec, parameter_file)]


def environment(words: Sequence[str]) -> dict[str, str]:
    """Return the environment for a command: this process's, with unbuffered output.

    A module that this Python finds by its own search path must be found by the child as well.
    """
    variables = {**os.environ, "PYTHONUNBUFFERED": "1"}
    if words[0] == sys.executable:
        variables["PYTHONPATH"] = os.pathsep.join(folder for folder in sys.path if folder)
    return variables
