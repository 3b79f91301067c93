# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The repository as data: its packages, its files and what they import."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = tuple(sorted(path.parent.name for path in (ROOT / "src").glob("*/package.xml")))


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return every file that git knows, or would take; what .gitignore names is not ours."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout
    paths = sorted({ROOT / name for name in output.decode().split("\0") if name})
    return tuple(path for path in paths if path.is_file())


def python_files(*, tests: bool) -> list[Path]:
    """Return our Python files, with or without those of tests."""
    return [
        path for path in tracked_files() if path.suffix == ".py" and (tests or not is_test(path))
    ]


def is_test(path: Path) -> bool:
    """Say whether a file belongs to a test suite."""
    parts = path.relative_to(ROOT).parts
    return bool({"test", "tests"} & set(parts)) or path.name == "conftest.py"


def package_of(path: Path) -> str | None:
    """Return the package that a file belongs to; None outside src/."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if len(parts) > 2 and parts[0] == "src" else None


@cache
def tree(path: Path) -> ast.Module:
    """Parse a Python file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def imported_modules(path: Path) -> tuple[tuple[str, int], ...]:
    """Return the dotted names that a file imports, at any depth, and their lines."""
    found: list[tuple[str, int]] = []
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module is not None:
            found.append((node.module, node.lineno))
    return tuple(found)


def where(path: Path, line: int = 0) -> str:
    """Write a place in the repository as a person reads it."""
    name = path.relative_to(ROOT).as_posix()
    return f"{name}:{line}" if line else name
