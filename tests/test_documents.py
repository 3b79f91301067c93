# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""What the documents name is there: modules, what modules hold, files of the repository."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from repository import PACKAGES, ROOT, python_files, tracked_files

DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/api.md", "docs/glossary.md",
    "docs/install.md", "examples/README.md", "examples/plugins/README.md",
    *(f"src/{name}/README.md" for name in PACKAGES),
)  # fmt: skip
_CODE = re.compile(r"`([^`\n]+)`")
_DOTTED = re.compile(rf"({'|'.join(PACKAGES)})(\.\w+)+")
_LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")
_PATH = re.compile(r"[\w./-]+/[\w.-]+\.(?:py|md|yaml|yml|xacro|urdf|sh|txt|in|toml|json|png|gif)")
# Folders whose files a document may name from there: `koch_driver/bus/sdk.py`.
_BASES = ("", "src", *(f"src/{name}" for name in PACKAGES),
          *(f"src/{name}/{name}" for name in PACKAGES), "docs", "examples/plugins")  # fmt: skip
#: Made by the commands that the document tells of, or somebody's own.
_MADE = ("demo/", "data/", "outputs/", "out/", "meta/", "my_package", "config/mine", "~", "train/")


def documents() -> list[Path]:
    return [ROOT / name for name in DOCUMENTS if (ROOT / name).is_file()]


def names_of(module: Path) -> set[str]:
    """What a module defines or hands on, at its top level."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)  # lazy re-exports name them in a table
    return found


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module, or something that a module has."""
    package, *rest = dotted.split(".")
    place = ROOT / "src" / package / package
    for index, word in enumerate(rest):
        if (place / word).is_dir():
            place = place / word
        elif (place / f"{word}.py").is_file():
            place = place / f"{word}.py"
        else:
            module = place if place.is_file() else place / "__init__.py"
            is_message = package == "koch_interfaces" and word in ("msg", "srv", "action")
            return is_message or (module.is_file() and rest[index] in names_of(module))
    return True


@cache
def entry_point_groups() -> frozenset[str]:
    """Groups of entry points, which look like modules: the registries and readers name them."""
    files = [path for path in python_files(tests=False) if "src" in path.parts]
    texts = (path.read_text(encoding="utf-8") for path in files)
    return frozenset(name for text in texts for name in re.findall(r'"(koch_\w+\.\w+)"', text))


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_that_a_document_names_are_there(document: Path) -> None:
    named = {
        match[0]
        for code in _CODE.findall(document.read_text(encoding="utf-8"))
        if "=" not in code and not code.startswith(("--", "/"))
        for match in _DOTTED.finditer(code)
        if not match[0].endswith((".py", ".md", ".yaml", ".h"))
    }
    missing = sorted(n for n in named if not is_there(n) and n not in entry_point_groups())
    assert not missing, f"{document.relative_to(ROOT)} names {missing}"


@pytest.mark.parametrize("document", documents(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_that_a_document_names_are_there(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    tracked = {path.relative_to(ROOT).as_posix() for path in tracked_files()}
    folders = {parent.as_posix() for name in tracked for parent in Path(name).parents}
    wrong = []
    for link in _LINK.findall(text):
        target = (document.parent / link).resolve()
        if not target.exists():
            wrong.append(link)
    for code in _CODE.findall(text):
        for path in _PATH.findall(code) if " " not in code and "*" not in code else ():
            if path.startswith(("/", "../", *_MADE)) or "NAME" in path:
                continue
            own = document.parent.relative_to(ROOT).as_posix()
            places = [Path(base, path).as_posix() for base in (*_BASES, own)]
            if not any(place in tracked or place in folders for place in places):
                wrong.append(path)
    assert not wrong, f"{document.relative_to(ROOT)} names {sorted(set(wrong))}"


def test_a_name_that_is_gone_is_seen() -> None:
    assert is_there("koch_core.registry.Registry")
    assert is_there("koch_core.registry")
    assert not is_there("koch_core.registry.Registrar")
    assert not is_there("koch_core.registrar")
