# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What a package announces, it has."""

import ast
import importlib
import os
from pathlib import Path

import pytest
from repository import PACKAGES, ROOT, python_files, tree, where

MODULES = [
    path
    for path in python_files(tests=False)
    if path.name == "__init__.py"
    and path.parent.parent.parent == ROOT / "src"
    and path.parent.name == path.parent.parent.name
]


def announced(path: Path) -> list[str]:
    """Return the names in a module's __all__."""
    for node in tree(path).body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign) and node.value is not None:
            targets = [node.target]
        if isinstance(node, ast.Assign | ast.AnnAssign) and "__all__" in map(ast.unparse, targets):
            assert node.value is not None
            names: list[str] = ast.literal_eval(node.value)
            return names
    raise AssertionError(f"{where(path)} has no __all__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.parent.name)
def test_every_announced_name_resolves(path: Path) -> None:
    if path.parent.name in left_out():
        pytest.skip("left out of this set-up")
    module = importlib.import_module(path.parent.name)
    missing = [name for name in announced(path) if not hasattr(module, name)]
    assert not missing, f"{where(path)} announces {missing}"


@pytest.mark.parametrize("package", PACKAGES)
def test_python_package_is_typed(package: str) -> None:
    folder = ROOT / "src" / package / package
    if folder.is_dir():
        assert (folder / "py.typed").is_file()
        assert (folder / "__init__.py").is_file()


def left_out() -> set[str]:
    """Packages whose parts this set-up leaves out."""
    return {f"koch_{part}" for part in os.environ.get("KOCH_WITHOUT", "").split(",") if part}
