# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""How many of our modules someone opens who reads the policy node from its entry point."""

import ast
from collections.abc import Iterator
from pathlib import Path

from repository import PACKAGES, ROOT, tree

ENTRY = "koch_policy.nodes.policy"
# What every run imports; the packages' `__init__` count. It was 92 before there was a core, and 64
# before goals told their way (`execution.phase`) and stamps had one home (`koch_ros.stamps`).
AT_START = 65
# With what only some runs import: OpenVINO, int8 and the dataset it is calibrated with, LeRobot's
# policies in a server or on another computer, rtc, shadow mode, language. Two of them select the
# episodes of that dataset by an expression.
WITH_ALL_OPTIONS = 116


def file_of(module: str) -> Path | None:
    """Return the file of one of our modules."""
    path = ROOT / "src" / module.split(".")[0] / module.replace(".", "/")
    if module.split(".")[0] not in PACKAGES:
        return None
    found = (path.with_suffix(".py"), path / "__init__.py")
    return next((file for file in found if file.is_file()), None)


def imports(node: ast.AST, *, inside_functions: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports when it runs: not those for types alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not inside_functions:
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module is not None:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child, inside_functions=inside_functions)


def reached(entry: str, *, inside_functions: bool) -> set[str]:
    """Return the modules of ours that a module imports, directly or through others."""
    found: set[str] = set()
    waiting = [entry]
    while waiting:
        module = waiting.pop()
        file = file_of(module)
        if file is None or module in found:
            continue
        found.add(module)
        parts = module.split(".")
        waiting += [".".join(parts[:count]) for count in range(1, len(parts))]
        waiting += imports(tree(file), inside_functions=inside_functions)
    return found


def test_the_policy_node_reaches_few_modules() -> None:
    for bound, inside_functions in ((AT_START, False), (WITH_ALL_OPTIONS, True)):
        found = reached(ENTRY, inside_functions=inside_functions)
        assert len(found) <= bound, (
            f"{len(found)} modules, {bound} before: fold what has one importer into its reader, "
            "or import where it is used what a run may do without:\n" + "\n".join(sorted(found))
        )


def test_a_policy_node_is_found_with_what_it_needs() -> None:
    found = reached(ENTRY, inside_functions=False)
    assert {"koch_policy.execution.run", "koch_policy.chunks.scheduler", "koch_rig"} <= found
    assert "koch_policy.runtime.torch_runtime" not in found
    assert "koch_policy.runtime.torch_runtime" in reached(ENTRY, inside_functions=True)
    assert not any(name.startswith("koch_policy.train") for name in found)
