# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Public names of a package that are imported on first use."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from importlib import import_module
from typing import Any


def lazy_name(package: str, name: str, modules: Mapping[str, Collection[str]]) -> Any:
    """What a package's `__getattr__` returns for a name.

    Args:
        package: Name of the package, `__name__` there.
        name: What is asked for.
        modules: Its modules, and which names are in each.

    Raises:
        AttributeError: None of them has it.
    """
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
