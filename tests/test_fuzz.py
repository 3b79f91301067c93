# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Parsers of foreign bytes: what once broke them, and a few seconds of searching for more."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from repository import ROOT

from koch_cameras.errors import SourceLostError
from koch_core.errors import KochError

FUZZ = ROOT / "tests" / "fuzz"
sys.path.insert(0, str(FUZZ))
from targets import CORPUS, TARGETS, Target  # noqa: E402 - a folder, not a package

SECONDS = int(os.environ.get("KOCH_FUZZ_SECONDS", "5"))
KEPT = sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_seeds_reach_the_end_of_a_parser(target: Target) -> None:
    """A seed that is refused at its door would leave the rest of a parser untried."""
    for data in target.seeds():
        try:
            target.parse(data)
        except SourceLostError:
            pass  # a camera's stream ends so
        except KochError as exc:
            pytest.fail(f"{target.name}: a whole input is refused: {exc}")


@pytest.mark.parametrize(
    "path", KEPT, ids=[f"{path.parent.name}-{path.name[:14]}" for path in KEPT]
)
def test_what_broke_a_parser_is_refused_by_name(path: Path) -> None:
    TARGETS[path.parent.name](path.read_bytes())


@pytest.mark.slow
@pytest.mark.skipif(find_spec("atheris") is None, reason="atheris has no wheel for this Python")
@pytest.mark.timeout(120 + 2 * SECONDS)
@pytest.mark.parametrize("name", TARGETS)
def test_no_input_breaks_a_parser(name: str) -> None:
    command = [sys.executable, str(FUZZ), name, "--seconds", str(SECONDS)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    text = run.stderr.encode("ascii", "replace").decode()
    assert run.returncode == 0, f"{' '.join(command)}:\n{text[-3000:]}"
    executed = [line for line in text.splitlines() if "number_of_executed_units" in line]
    assert executed, text[-1000:]
    assert int(executed[0].split(":")[-1]) > 10, executed[0]
