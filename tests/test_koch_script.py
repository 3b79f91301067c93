# SPDX-FileCopyrightText: 2026 The koch_vla authors
# SPDX-License-Identifier: Apache-2.0
"""The `koch` script in the workspace that these tests run in."""

import os
import subprocess
import time
from pathlib import Path

import pytest
from repository import ROOT

KOCH = ROOT / "koch"
needs_setup = pytest.mark.skipif(
    not (ROOT / ".venv" / "koch_setup.json").is_file(), reason="run by hand before ./koch setup"
)


def koch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script."""
    return subprocess.run(
        [str(KOCH), *arguments],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )


@needs_setup
def test_unknown_verb_ends_with_2_and_a_message() -> None:
    done = koch("no-such-verb")
    assert done.returncode == 2
    assert "no-such-verb" in done.stderr


@needs_setup
def test_arguments_and_exit_codes_survive() -> None:
    done = koch("up", "--rig", "no such file.yaml")
    assert done.returncode == 2
    assert "no such file.yaml" in done.stderr


@needs_setup
def test_it_works_from_elsewhere_and_through_a_link(tmp_path: Path) -> None:
    link = tmp_path / "koch"
    link.symlink_to(KOCH)
    done = subprocess.run([str(link), "env"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"export KOCH_ROOT='{ROOT}'" in done.stdout


@needs_setup
def test_environment_can_be_taken_over() -> None:
    code = 'eval "$(./koch env)" && python -c "import rclpy, koch_interfaces.msg"'
    bare = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/")}
    done = subprocess.run(["sh", "-c", code], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@needs_setup
def test_overhead_is_small() -> None:
    koch("env")
    begin = time.monotonic()
    koch("env")
    # 0.1 s on an idle laptop core; the bound leaves room for a busy machine.
    assert time.monotonic() - begin < 2.0


def test_unknown_part_is_one_clear_error() -> None:
    done = koch("setup", "--without", "torch")
    assert done.returncode == 2
    assert "expected some of console, policy, sim" in done.stderr
    assert "Traceback" not in done.stderr
