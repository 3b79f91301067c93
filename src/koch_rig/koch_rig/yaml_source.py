# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Reads YAML with the line of every key, refuses repeated keys, and expands ${VARIABLES}."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from koch_rig.errors import RigError

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
#: libyaml's parser where PyYAML was built with it: ten times as fast as the one in Python.
SAFE_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MAX_CHARACTERS = 1_000_000
_MAX_VALUES = 50_000  # aliases of aliases multiply; a rig has some hundred values


@dataclass(frozen=True)
class YamlSource:
    """A YAML file as plain values, with the line of every key.

    Attributes:
        path: The file.
        text: Its text as it is in the file.
        root: dict, list, str, int, float, bool or None.
        lines: Dotted key path -> one-based line.
    """

    path: Path
    text: str
    root: Any
    lines: Mapping[str, int]


def read_yaml(path: Path | str, environment: Mapping[str, str] | None = None) -> YamlSource:
    """Read a YAML file.

    `${VAR}` and `${VAR:-default}` in values are expanded from the environment; an unquoted value
    gets its type after the expansion, so that a number may come from a variable.

    Raises:
        RigError: The file is missing, unreadable, not YAML, repeats a key, or names a variable
            that is not set and has no default.
    """
    path = Path(path)
    text = _read_text(path)
    try:
        node = _compose(text)
    except yaml.YAMLError as exc:
        mark = getattr(exc, "problem_mark", None)
        problem = getattr(exc, "problem", None) or str(exc)
        raise RigError(
            path,
            line=None if mark is None else mark.line + 1,
            got=f"unreadable YAML ({problem})",
            expected="valid YAML",
            hint="Indent with spaces, not tabs, and quote strings that hold ': ' or '#'.",
        ) from exc
    env = os.environ if environment is None else environment
    reader = _Reader(path, env)
    root = None if node is None else reader.value(node, "")
    return YamlSource(path=path, text=text, root=root, lines=reader.lines)


def _read_text(path: Path) -> str:
    """The file's text."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise RigError(
            path,
            got="no such file",
            expected="a rig file",
            hint="Copy config/rig.yaml, or use config/rig.sim.yaml for the simulated rig.",
        ) from exc
    except IsADirectoryError as exc:
        hint = "Name the file in it, such as rig.yaml."
        raise RigError(path, got="a folder", expected="a rig file", hint=hint) from exc
    except UnicodeDecodeError as exc:
        got = f"the byte 0x{exc.object[exc.start]:02x} at {exc.start}"
        raise RigError(path, got=got, expected="a text file in UTF-8") from exc
    except OSError as exc:
        raise RigError(path, got=exc.strerror or str(exc), expected="a readable file") from exc
    if len(text) > _MAX_CHARACTERS:
        raise RigError(path, got=f"{len(text)} characters", expected="a rig file of a few kB")
    return text


def _compose(text: str) -> Any:
    try:
        return yaml.compose(text, Loader=SAFE_LOADER)
    except yaml.YAMLError:
        return yaml.compose(text, Loader=yaml.SafeLoader)  # says better what is wrong, and where


class _Reader:
    """Turns YAML nodes into values and notes the lines on the way."""

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        self._path = path
        self._environment = environment
        self._constructor = yaml.SafeLoader("")
        self._open: set[int] = set()  # nodes being read, to find an alias inside its own anchor
        self._count = 0
        self.lines: dict[str, int] = {}

    def value(self, node: yaml.Node, key: str) -> Any:
        """The plain value of a node."""
        self.lines.setdefault(key, node.start_mark.line + 1)
        if id(node) in self._open:
            raise RigError(
                self._path, key=key, line=self.lines[key], got="an alias that holds itself",
                expected="values",
            )  # fmt: skip
        self._count += 1
        if self._count > _MAX_VALUES:
            got = f"more than {_MAX_VALUES} values"
            raise RigError(self._path, key=key, got=got, expected="a rig file of a few kB")
        self._open.add(id(node))
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, key)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, f"{key}[{i}]") for i, item in enumerate(node.value)]
            return self._scalar(node, key)
        finally:
            self._open.discard(id(node))

    def _mapping(self, node: yaml.MappingNode, prefix: str) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._constructor.flatten_mapping(node)  # "<<" merges
        for key_node, value_node in node.value:
            name = str(key_node.value)
            key = f"{prefix}.{name}" if prefix else name
            line = key_node.start_mark.line + 1
            if name in result:
                raise RigError(
                    self._path, key=key, line=line, got="this key twice",
                    expected="each key once", hint=f"The first is on line {self.lines[key]}.",
                )  # fmt: skip
            self.lines[key] = line
            result[name] = self.value(value_node, key)
        return result

    def _scalar(self, node: yaml.Node, key: str) -> Any:
        text = node.value
        if isinstance(text, str) and "${" in text:
            text = self._expand(text, key)
            tag = node.tag
            if not node.style:  # plain: None, or empty from libyaml
                tag = self._constructor.resolve(yaml.ScalarNode, text, (True, False))
            node = yaml.ScalarNode(tag, text, node.start_mark, node.end_mark)
        try:
            return self._constructor.construct_object(node)
        except (yaml.YAMLError, ValueError) as exc:
            raise RigError(
                self._path, key=key, line=self.lines[key], got=repr(text), expected="a plain value"
            ) from exc

    def _expand(self, text: str, key: str) -> str:
        def replacement(match: re.Match[str]) -> str:
            name, default = match.group(1), match.group(2)
            value = self._environment.get(name) or default
            if value is None:
                raise RigError(
                    self._path,
                    key=key,
                    line=self.lines[key],
                    got=f"${{{name}}}, but the variable is not set",
                    expected="a set variable",
                    hint=f"Run `export {name}=...`, or give a default: ${{{name}:-default}}.",
                )
            return value

        return _VARIABLE.sub(replacement, text)
