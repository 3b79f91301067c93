# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Definition text and RIHS01 hash of installed message types, as a bag carries them.

The text is the ``.msg`` file followed by those it names, each behind a line of 80 equals signs
and ``MSG: package/Name``.

Source: rosbag2, docs/message_definition_encoding.md and local_message_definition_source.cpp.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from koch_episodes.bag.storage import Topic

_TYPE = re.compile(r"^([A-Za-z0-9_]+)/(?:msg/)?([A-Za-z0-9_]+)$")
_FIELD = re.compile(r"^\s*([A-Za-z0-9_/]+)(?:<=\d+)?(?:\[[^\]]*\])?\s+[A-Za-z]", re.MULTILINE)
_SIZES = ("8", "16", "32", "64")
_PRIMITIVES = frozenset(
    ["bool", "byte", "char", "string", "wstring", "float32", "float64"]
    + [f"{kind}{size}" for kind in ("int", "uint") for size in _SIZES]
)
_LINE = "=" * 80
_DEEPEST = 50


def share_folders(package: str) -> Iterator[Path]:
    """Possible ``share/<package>`` folders: the ament index, then beside the Python package."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        if prefix:
            yield Path(prefix) / "share" / package
    yield Path(sys.prefix) / "share" / package
    spec = importlib.util.find_spec(package)
    if spec is not None and spec.origin:
        for parent in list(Path(spec.origin).parents)[2:6]:
            yield parent / "share" / package


class Definitions:
    """Looks up message types once each.

    Args:
        folders: Share folders of a package; replaced in tests.
    """

    def __init__(self, folders: Callable[[str], Iterator[Path]] = share_folders) -> None:
        self._folders = folders
        self._known: dict[str, tuple[str, str, str]] = {}

    def topic(self, name: str, message_type: str) -> tuple[Topic, str]:
        """Describe a topic: its definition where one is found, and the type's hash or ""."""
        if message_type not in self._known:
            self._known[message_type] = self._look_up(message_type)
        form, definition, type_hash = self._known[message_type]
        return Topic(name, message_type, definition, form), type_hash

    def _look_up(self, message_type: str) -> tuple[str, str, str]:
        try:
            return "ros2msg", self._text(message_type), self._hash(message_type)
        except LookupError:
            return _from_rosbags(message_type)

    def _file(self, message_type: str, suffix: str) -> str | None:
        match = _TYPE.match(message_type)
        if match is None:
            return None
        package, name = match.groups()
        for folder in self._folders(package):
            path = folder / "msg" / f"{name}{suffix}"
            if path.is_file():
                return path.read_text(encoding="utf-8")
        return None

    def _text(self, message_type: str) -> str:
        seen: set[str] = set()
        parts: list[str] = []

        def add(kind: str, depth: int) -> None:
            content = self._file(kind, ".msg")
            if content is None or depth > _DEEPEST:
                raise LookupError(kind)
            parts.append(content)
            for dependency in _dependencies(content, kind.partition("/")[0]):
                if dependency not in seen:
                    seen.add(dependency)
                    parts.append(f"\n{_LINE}\nMSG: {dependency}\n")
                    add(dependency, depth + 1)

        add(message_type, 0)
        return "".join(parts)

    def _hash(self, message_type: str) -> str:
        content = self._file(message_type, ".json")
        if content is None:
            return ""
        try:
            for item in json.loads(content)["type_hashes"]:
                if item["type_name"] == message_type:
                    return str(item["hash_string"])
        except (ValueError, KeyError, TypeError):
            return ""
        return ""


def _dependencies(text: str, package: str) -> Sequence[str]:
    """Types that a definition names, sorted, as ``package/Name``."""
    found = set()
    for name in _FIELD.findall(_without_comments(text)):
        if name not in _PRIMITIVES:
            found.add(name.replace("/msg/", "/") if "/" in name else f"{package}/{name}")
    return sorted(found)


def _without_comments(text: str) -> str:
    return "\n".join(line.partition("#")[0] for line in text.splitlines())


def _from_rosbags(message_type: str) -> tuple[str, str, str]:
    """Standard types without their files, from the rosbags library; else nothing."""
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.LATEST)
    try:
        text, _ = store.generate_msgdef(message_type, ros_version=2)
        return "ros2msg", text, str(store.hash_rihs01(message_type))
    except Exception:  # rosbags raises errors of many classes for an unknown type
        return "ros2msg", "", ""
