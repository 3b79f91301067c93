# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""Runs the checkers that a contributor runs: ruff over everything, mypy over every package."""

import subprocess
import sys

import pytest
from repository import ROOT


def run(*arguments: str) -> None:
    """Run a checker and show what it says when it is not content."""
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_has_nothing_to_say() -> None:
    run("ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing() -> None:
    run("ruff", "format", "--check", "--no-cache", ".")


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mypy_has_nothing_to_say() -> None:
    run("mypy")
