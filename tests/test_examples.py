# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The scripts in examples/ run and print what their docstrings say; `...` stands for any text."""

from __future__ import annotations

import ast
import doctest
import re
import runpy
import textwrap
from pathlib import Path

import pytest
from repository import ROOT

SCRIPTS = sorted((ROOT / "examples").glob("[0-9][0-9]_*.py"))
MAX_LINES = 79
NEEDS_SIMULATION = ("koch_sim", "koch_policy")
NEEDS_FILE = {"06_run_policy": ("05_train_policy.py", "outputs/examples/policy/checkpoints")}


def documented_output(script: Path) -> str:
    """What a script says that it prints."""
    text = ast.get_docstring(ast.parse(script.read_text(encoding="utf-8"))) or ""
    _, found, output = text.partition("\nOutput:\n")
    assert found, f"{script.name}: the docstring has no 'Output:'"
    return textwrap.dedent(output).strip() + "\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all of them run."""
    return tmp_path_factory.mktemp("examples")


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_an_example_prints_what_it_says(
    script: Path,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source = script.read_text(encoding="utf-8")
    for package in NEEDS_SIMULATION:
        if package in source:
            pytest.importorskip(package)
    monkeypatch.chdir(folder)
    before, file = NEEDS_FILE.get(script.stem, ("", "."))
    if not Path(file).exists():  # another worker ran that one
        runpy.run_path(str(script.with_name(before)), run_name="__main__")
        capsys.readouterr()
    runpy.run_path(str(script), run_name="__main__")
    got, want = capsys.readouterr().out, documented_output(script)
    checker = doctest.OutputChecker()
    assert checker.check_output(want, got, doctest.ELLIPSIS), f"printed:\n{got}\nsays:\n{want}"


def test_examples_are_short_and_listed() -> None:
    table = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")
    assert len(SCRIPTS) >= 10
    for script in SCRIPTS:
        assert len(script.read_text(encoding="utf-8").splitlines()) <= MAX_LINES, script.name
        assert f"({script.name})" in table, f"examples/README.md does not list {script.name}"


def test_another_output_would_be_seen() -> None:
    # The negative control of the comparison above.
    want = documented_output(ROOT / "examples" / "04_load_dataset.py")
    assert not doctest.OutputChecker().check_output(want, "2 episode(s)\n", doctest.ELLIPSIS)


def test_documented_names_are_offered() -> None:
    """Each name that a section of docs/api.md begins a row with is in its package's `__all__`."""
    sections = re.split(
        r"^## ", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), flags=re.M
    )
    for section in sections[1:]:
        package = pytest.importorskip(section.split(":")[0])
        named = re.findall(r"^\| `([A-Za-z_]+)[(`]", section, re.M)
        assert named
        assert [name for name in named if name not in package.__all__] == []
