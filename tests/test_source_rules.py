# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Rules for every file: licence, length, and what must never be called."""

import ast
import re
from pathlib import Path

from repository import ROOT, python_files, tracked_files, tree, where

THIS = Path(__file__).resolve()
HEADER = (
    "SPDX-FileCopyrightText: 2026 The koch_vla authors",
    "SPDX-License-Identifier: Apache-2.0",
)
# Texts in which a comment can stand.
COMMENTED = {
    ".action",
    ".cmake",
    ".in",
    ".msg",
    ".py",
    ".sh",
    ".srdf",
    ".srv",
    ".toml",
    ".urdf",
    ".xacro",
    ".xml",
    ".yaml",
    ".yml",
}
MAX_LINES = 600
# Of a function's body: signature and docstring are not counted. A test may be longer: it is a
# story that reads from top to bottom.
MAX_BODY = 40
# A function that runs text or bytes from outside.
FORBIDDEN_CALLS = {"eval", "exec", "os.system", "torch.load", "pickle.load", "pickle.loads"}
FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "shelve"}


def dotted(node: ast.expr) -> str:
    """Write a called name as the source does; empty for anything but plain names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def forbidden(module: ast.Module) -> list[tuple[int, str]]:
    """Find calls and imports that this project never uses."""
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.Call):
            name = dotted(node.func)
            if name in FORBIDDEN_CALLS:
                found.append((node.lineno, f"{name}()"))
            for keyword in node.keywords:
                true = isinstance(keyword.value, ast.Constant) and keyword.value.value is True
                if keyword.arg == "shell" and true:
                    found.append((node.lineno, "shell=True"))
        elif isinstance(node, ast.Import):
            names = {alias.name for alias in node.names} & FORBIDDEN_IMPORTS
            found += [(node.lineno, f"import {name}") for name in names]
    return found


def silent_handlers(module: ast.Module) -> list[int]:
    """Find exception handlers that only pass."""
    return [
        node.lineno
        for node in ast.walk(module)
        if isinstance(node, ast.ExceptHandler)
        and all(isinstance(statement, ast.Pass) for statement in node.body)
    ]


def test_every_file_names_its_licence() -> None:
    wrong = []
    for path in tracked_files():
        if (ROOT / "docs" / "sample" / "episode_000000") in path.parents:
            continue  # as a recorder writes it
        named = path.suffix in COMMENTED or path.name in ("koch", "CMakeLists.txt", "Dockerfile")
        if named and path.stat().st_size:
            head = path.read_text(encoding="utf-8")[:600]
            if not all(line in head for line in HEADER):
                wrong.append(where(path))
    assert not wrong, "no SPDX header:\n" + "\n".join(wrong)


def test_no_module_is_longer_than_it_should_be() -> None:
    lengths = {
        path: path.read_text(encoding="utf-8").count("\n") for path in python_files(tests=True)
    }
    wrong = [f"{where(path)}: {lines}" for path, lines in lengths.items() if lines > MAX_LINES]
    assert not wrong, f"more than {MAX_LINES} lines; split:\n" + "\n".join(wrong)


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines of a function from its first statement to its last."""
    told = ast.get_docstring(function, clean=False) is not None and len(function.body) > 1
    return (function.end_lineno or 0) - function.body[told].lineno + 1


def test_no_function_is_longer_than_it_should_be() -> None:
    wrong = [
        f"{where(path, node.lineno)} {node.name}: {body_lines(node)}"
        for path in python_files(tests=False)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and body_lines(node) > MAX_BODY
    ]
    assert not wrong, f"bodies of more than {MAX_BODY} lines; name their steps:\n" + "\n".join(
        wrong
    )


def test_the_lines_of_a_body_are_counted() -> None:
    sample = 'def f(\n    a,\n):\n    """Say.\n\n    More.\n    """\n    a\n    # why\n    a\n'
    function = ast.parse(sample).body[0]
    assert isinstance(function, ast.FunctionDef)
    assert body_lines(function) == 3


def test_nothing_runs_foreign_text_or_bytes() -> None:
    wrong = [
        f"{where(path, line)} {what}"
        for path in python_files(tests=False)
        for line, what in forbidden(tree(path))
    ]
    assert not wrong, "\n".join(wrong)


def test_no_exception_is_swallowed() -> None:
    wrong = [
        where(path, line)
        for path in python_files(tests=False)
        for line in silent_handlers(tree(path))
    ]
    assert not wrong, "except with only pass; use contextlib.suppress or say why:\n" + "\n".join(
        wrong
    )


def test_the_forbidden_is_found_in_a_sample() -> None:
    sample = "import pickle\nsubprocess.run('x', shell=True)\ntorch.load(f)\neval('1')\n"
    assert [what for _, what in sorted(forbidden(ast.parse(sample)))] == [
        "import pickle",
        "shell=True",
        "torch.load()",
        "eval()",
    ]
    assert silent_handlers(ast.parse("try:\n    f()\nexcept OSError:\n    pass\n")) == [3]


def test_every_function_is_annotated() -> None:
    wrong = []
    for path in python_files(tests=False):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.returns is None:
                wrong.append(f"{where(path, node.lineno)} {node.name}")
    assert not wrong, "no return type:\n" + "\n".join(wrong)


def test_no_task_is_left_in_the_text() -> None:
    word = "TO" + "DO"
    wrong = [
        where(path)
        for path in python_files(tests=True)
        if re.search(rf"\b{word}\b(?!\(#\d+\))", path.read_text(encoding="utf-8"))
    ]
    assert not wrong, "\n".join(wrong)


def test_root_has_what_a_reader_expects() -> None:
    names = [
        "LICENSE",
        "README.md",
        "CONTRIBUTING.md",
        "colcon.meta",
        "docs/decisions.md",
        ".ci/run",
        "koch",
    ]
    missing = [name for name in names if not (ROOT / name).is_file()]
    assert not missing, missing


def test_what_commands_leave_behind_is_not_kept() -> None:
    """An image or recording that a command wrote where it stood weighs on every clone."""
    made = {".png", ".jpg", ".mp4", ".mcap", ".log", ".html"}
    left = [
        str(path.relative_to(ROOT))
        for path in tracked_files()
        if path.suffix in made
        and path.relative_to(ROOT).parts[0] != "docs"
        and "static" not in path.parts  # the console's page
    ]
    assert not left, left


def test_joints_are_asked_of_the_arm() -> None:
    """One constant of joint names, for users' scripts alone: arms have models, which know."""
    home = {"src/koch_rig/koch_rig/joints.py", "src/koch_rig/koch_rig/__init__.py", where(THIS)}
    found = [
        where(path)
        for path in python_files(tests=True)
        if "JOINT_NAMES" in path.read_text(encoding="utf-8") and where(path) not in home
    ]
    assert not found, f"say arm.model.joints in {', '.join(found)}"
